import { describe, expect, it } from 'vitest'
import {
  AudioLM,
  type AudioLMConfig,
  Generator,
  manualSeed,
  noGrad,
  randn,
  scope,
  type Tensor,
  tensor,
} from '../../../lib/index.js'
import { expectClose } from '../../helpers.js'
import { counted } from './counts.js'

// AudioLM: numbers, gradients and tokens of the CPU; of the mask of features, which is on the host, nobody waits.

const host = { device: 'cpu' } as const
const AUDIO = 19
const config: AudioLMConfig = {
  modelType: 'audioflamingo3',
  audioConfig: {
    ...{ hiddenSize: 24, intermediateSize: 32, numHiddenLayers: 2, numAttentionHeads: 2, initializerRange: 0.2 },
    ...{ numMelBins: 8, maxSourcePositions: 12 },
  },
  textConfig: {
    ...{ vocabSize: 20, hiddenSize: 16, intermediateSize: 24, numHiddenLayers: 2, numAttentionHeads: 2 },
    ...{ numKeyValueHeads: 2, initializerRange: 0.2 },
  },
  audioTokenId: AUDIO,
}

describe('AudioLM on the device', () => {
  manualSeed(3)
  const [there, here] = (['cuda', 'cpu'] as const).map((device) => AudioLM.fromConfig(config, { device }).eval()) as [
    AudioLM,
    AudioLM,
  ]
  here.loadStateDict(Object.fromEntries(Object.entries(there.stateDict()).map(([name, one]) => [name, one.to('cpu')])))
  const ids = (rows: number[][]) => tensor(rows, { dtype: 'int64', ...host })
  const given = {
    inputIds: ids([
      [1, AUDIO, AUDIO, AUDIO, 3, AUDIO, 5],
      [0, 0, 7, AUDIO, AUDIO, 8, 9],
    ]),
    attentionMask: ids([
      [1, 1, 1, 1, 1, 1, 1],
      [0, 0, 1, 1, 1, 1, 1],
    ]),
    inputFeatures: randn([3, 8, 24], { ...host, generator: new Generator(5) }),
    featuresMask: ids([13, 5, 8].map((length) => Array.from({ length: 24 }, (_, i) => Number(i < length)))),
  }
  const far = { ...given, ...Object.fromEntries(Object.entries(given).map(([name, one]) => [name, one.to('cuda')])) }

  it('has the loss, the gradients and the tokens of the CPU', async () => {
    await scope(async () => {
      const [ours, wanted] = await Promise.all([
        there.forward({ ...far, labels: far.inputIds }),
        here.forward({ ...given, labels: given.inputIds }),
      ])
      expectClose((ours.loss as Tensor).detach().to('cpu'), (wanted.loss as Tensor).detach(), 1e-5)
      await (ours.loss as Tensor).backward()
      await (wanted.loss as Tensor).backward()
      const own = new Map(here.namedParameters())
      for (const [name, { grad }] of there.namedParameters()) {
        const other = own.get(name)?.grad
        if (grad && other && !name.endsWith('k_proj.bias')) expectClose(grad.to('cpu'), other, 1e-4, name)
        else expect(Boolean(grad), name).toBe(Boolean(other))
      }
      const greedy = { maxNewTokens: 4, eosTokenId: [] as number[] }
      expect((await there.generate(far, greedy)).tokens).toEqual((await here.generate(given, greedy)).tokens)
    })
  })

  it('does not wait in a pass with the mask and the ids on the host', async () => {
    const inputs = { ...far, inputIds: given.inputIds, featuresMask: given.featuresMask, logitsToKeep: 1 }
    const pass = () => noGrad(() => scope(async () => void (await there.forward(inputs))))
    await pass()
    const { waits } = await counted(pass)
    expect(waits).toBe(0)
  })
})
