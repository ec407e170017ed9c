import { describe, expect, it } from 'vitest'
import {
  autograd,
  Clip,
  Generator,
  LanguageBind,
  type Module,
  manualSeed,
  noGrad,
  randn,
  SiglipVisionModel,
  SmolVLM,
  scope,
  Tensor,
  tensor,
} from '../../../lib/index.js'
import { EmotionClassifier, type EmotionFusion, type EmotionInputs } from '../../../lib/systems/emotion/index.js'
import { emotionLoss } from '../../../lib/systems/emotion/training/loss.js'
import { expectClose } from '../../helpers.js'
import { counted } from './counts.js'

// CLIP, LanguageBind's encoders and the emotion classifier: what the CPU gives, and nobody waits for what is there.

const host = { device: 'cpu' } as const
const random = new Generator(11)
const draw = (shape: number[]) => randn(shape, { ...host, generator: random })

/** Whatever tensors there are, on the device. */
function away<T>(given: T): T {
  if (given instanceof Tensor) return given.to('cuda') as T
  if (Array.isArray(given)) return given.map(away) as T
  if (typeof given !== 'object' || given === null) return given
  return Object.fromEntries(Object.entries(given).map(([name, value]) => [name, away(value)])) as T
}

/** The same weights on both devices. */
function both<M extends Module>(make: (device: 'cpu' | 'cuda') => M): [M, M] {
  manualSeed(3)
  const [there, here] = [make('cuda').eval(), make('cpu').eval()]
  here.loadStateDict(Object.fromEntries(Object.entries(there.stateDict()).map(([name, one]) => [name, one.to('cpu')])))
  return [there, here]
}

const shape = { numHiddenLayers: 2, hiddenSize: 32, intermediateSize: 48, numAttentionHeads: 4 }
const textConfig = { ...shape, vocabSize: 20, maxPositionEmbeddings: 8 }
const visionConfig = { ...shape, imageSize: 8, patchSize: 4 }
const exact = { hiddenAct: 'gelu' }
const END = 19
const inputIds = tensor(
  [
    [18, 3, 5, 7, END, END, END, END],
    [18, 4, END, END, END, END, END, END],
    [18, 9, 8, 2, 6, 1, 4, END],
  ],
  { dtype: 'int64', ...host },
)
const attentionMask = tensor(
  [5, 3, 8].map((length) => Array.from({ length: 8 }, (_, i) => Number(i < length))),
  { dtype: 'int64', ...host },
)
const bind = {
  video: {
    textConfig: { ...textConfig, ...exact },
    visionConfig: { ...visionConfig, ...exact, addTimeAttn: true, numFrames: 4 },
    projectionDim: 16,
  },
  audio: {
    textConfig: { ...textConfig, ...exact },
    visionConfig: { ...visionConfig, ...exact, numMelBins: 8, targetLength: 24 },
    projectionDim: 16,
  },
}
const clip = { textConfig: { ...textConfig, eosTokenId: END }, visionConfig, projectionDim: 16 }

type Network = Module & { forward(inputs: object): Promise<Record<string, Tensor>> }
/** Inputs, which of the outputs are compared, and how many launches a pass may be. */
const NETWORKS: [string, (device: 'cpu' | 'cuda') => unknown, object, string[], number][] = [
  [
    'CLIP',
    (device) => Clip.fromConfig(clip, { device }),
    { inputIds, attentionMask, pixelValues: draw([3, 3, 8, 8]) },
    ['logitsPerImage', 'textEmbeds', 'imageEmbeds'],
    157,
  ],
  [
    "LanguageBind's video",
    (device) => LanguageBind.fromConfig(bind, { device }),
    { video: draw([2, 3, 4, 8, 8]) },
    ['video'],
    109,
  ],
  [
    "LanguageBind's audio",
    (device) => LanguageBind.fromConfig(bind, { device }),
    { audio: draw([2, 3, 8, 24]) },
    ['audio'],
    66,
  ],
  [
    "LanguageBind's text",
    (device) => LanguageBind.fromConfig(bind, { device }),
    { text: { inputIds, attentionMask } },
    ['text'],
    80,
  ],
  [
    "SigLIP's vision encoder",
    (device) => SiglipVisionModel.fromConfig(visionConfig, { device }),
    { pixelValues: draw([3, 3, 8, 8]) },
    ['poolerOutput', 'lastHiddenState'],
    79,
  ],
]

const IMAGE = 19
const smolVLM = {
  visionConfig,
  textConfig: { ...shape, vocabSize: 20, numKeyValueHeads: 2, maxPositionEmbeddings: 16 },
  imageTokenId: IMAGE,
  scaleFactor: 2,
}

describe('SmolVLM on the device', () => {
  const [there, here] = both((device) => SmolVLM.fromConfig(smolVLM, { device }))
  const pixelValues = draw([2, 3, 8, 8])
  const ids = (rows: number[][]) => tensor(rows, { dtype: 'int64', ...host })
  const given = {
    inputIds: ids([
      [1, IMAGE, 3, IMAGE, 5],
      [0, 0, 7, 8, 9],
    ]),
    attentionMask: ids([
      [1, 1, 1, 1, 1],
      [0, 0, 1, 1, 1],
    ]),
    pixelValues,
  }

  it('has the loss, the gradients and the tokens of the CPU', async () => {
    await scope(async () => {
      const labels = given.inputIds
      const [ours, wanted] = [
        await there.forward({ ...away(given), labels: labels.to('cuda') }),
        await here.forward({ ...given, labels }),
      ]
      expectClose((ours.loss as Tensor).detach().to('cpu'), (wanted.loss as Tensor).detach(), 1e-5)
      const grads = [
        await autograd.grad(ours.loss as Tensor, [...there.parameters()]),
        await autograd.grad(wanted.loss as Tensor, [...here.parameters()]),
      ] as [Tensor[], Tensor[]]
      const size = (one: Tensor) => Number(one.abs().max().item())
      const most = Math.max(...grads[1].map(size))
      const apart = grads[0].map((one, i) => size(one.to('cpu').sub(grads[1][i] as Tensor)))
      expect(Math.max(...apart) / most).toBeLessThan(1e-5)
      const greedy = { maxNewTokens: 5, eosTokenId: [] }
      expect((await there.generate(away(given), greedy)).tokens).toEqual((await here.generate(given, greedy)).tokens)
    })
  })

  it('encodes images without a wait', async () => {
    const images = pixelValues.to('cuda')
    const run = () => noGrad(() => scope(async () => void (await there.encodeImages(images))))
    await run()
    expect((await counted(run)).waitsBy).toEqual({})
  })
})

describe.each(NETWORKS)('%s on the device', (_, make, given, outputs, launches) => {
  const [there, here] = both((device) => make(device) as Network)

  it('gives what the CPU gives', async () => {
    await scope(() =>
      noGrad(async () => {
        const [ours, wanted] = [await there.forward(away(given)), await here.forward(given)]
        for (const name of outputs) expectClose((ours[name] as Tensor).to('cpu'), wanted[name] as Tensor, 1e-5)
      }),
    )
  })

  it('learns what the CPU learns', async () => {
    const learnt = async (network: Network, inputs: object) => {
      const output = (await network.forward(inputs))[outputs[0] as string] as Tensor
      const grads = await autograd.grad(output.pow(3).sum(), [...network.parameters()], { allowUnused: true })
      return grads.map((one) => one?.to('cpu'))
    }
    await scope(async () => {
      const [ours, wanted] = [await learnt(there, away(given)), await learnt(here, given)]
      expect(ours.map((one) => one === undefined || one === null)).toEqual(
        wanted.map((one) => one === undefined || one === null),
      )
      const most = Math.max(...wanted.map((one) => (one ? Number(one.abs().max().item()) : 0)))
      const apart = ours.map((one, i) =>
        one
          ? Number(
              one
                .sub(wanted[i] as Tensor)
                .abs()
                .max()
                .item(),
            )
          : 0,
      )
      expect(most).toBeGreaterThan(0)
      expect(Math.max(...apart) / most).toBeLessThan(1e-5)
    })
  })

  it.each(['inference', 'training'])('waits for nothing that is there: %s', async (mode) => {
    there.train(mode === 'training')
    const onDevice = away(given)
    const run = () => scope(async () => void (await there.forward(onDevice)))
    const passed = () => (mode === 'training' ? run() : noGrad(run))
    await passed()
    const spent = await counted(passed)
    expect(spent.waitsBy).toEqual({})
    expect(spent.launches).toBeLessThanOrEqual(launches)
    there.eval()
  })
})

const bools = (rows: number[][]) => tensor(rows, { dtype: 'uint8', ...host }).to({ dtype: 'bool' })
const dialogs: EmotionInputs = {
  mask: bools([
    [1, 1, 1, 1],
    [1, 1, 0, 0],
  ]),
  speakers: tensor(
    [
      [0, 1, 0, 1],
      [0, 0, 0, 0],
    ],
    { dtype: 'int64', ...host },
  ),
  present: {
    text: bools([
      [1, 1, 1, 1],
      [1, 1, 0, 0],
    ]),
    audio: bools([
      [1, 0, 1, 1],
      [0, 1, 0, 0],
    ]),
  },
  vectors: { text: draw([2, 4, 12]), audio: draw([2, 4, 6]) },
}
const labels = tensor([2, 0, 1, 1, 2, 0], { dtype: 'int64', ...host })
const known = tensor([0, 1, 2, 3, 4, 5], { dtype: 'int64', ...host })

describe.each(['concat', 'concat-ln', 'gated', 'cross-attention'] as EmotionFusion[])(
  'an emotion classifier with fusion %s on the device',
  (fusion) => {
    const config = { sizes: { text: 12, audio: 6 }, labels: ['a', 'b', 'c'], hiddenSize: 16, dropout: 0, fusion }
    const [there, here] = both(
      (device) => new EmotionClassifier({ ...config, context: { layers: 1, heads: 2 } }, { device }),
    )
    const step = async (model: EmotionClassifier, inputs: EmotionInputs, truth: Tensor, places: Tensor) => {
      const { logits } = await model.forward(inputs)
      const weights = tensor([1, 2, 0.5], { device: logits.device })
      const rows = logits.reshape([-1, 3]).indexSelect(0, places)
      return emotionLoss(rows, truth, { classWeights: weights, focalGamma: 1, labelSmoothing: 0.1 })
    }

    it('says and learns what the CPU does', async () => {
      await scope(async () => {
        const [ours, wanted] = [
          await step(there, away(dialogs), labels.to('cuda'), known.to('cuda')),
          await step(here, dialogs, labels, known),
        ]
        expectClose(ours.detach().to('cpu'), wanted.detach(), 1e-5)
        const grads = [
          await autograd.grad(ours, [...there.parameters()]),
          await autograd.grad(wanted, [...here.parameters()]),
        ]
        const most = Math.max(...(grads[1] as Tensor[]).map((one) => Number(one.abs().max().item())))
        for (const [i, one] of (grads[0] as Tensor[]).entries()) {
          const off = Number(
            one
              .to('cpu')
              .sub((grads[1] as Tensor[])[i] as Tensor)
              .abs()
              .max()
              .item(),
          )
          expect(off / most, `${i}`).toBeLessThan(1e-5)
        }
      })
    })

    it('waits for nothing that is there', async () => {
      const onDevice = away(dialogs)
      there.train()
      const run = () => scope(async () => void (await there.forward(onDevice)))
      await run()
      expect((await counted(run)).waitsBy).toEqual({})
      there.eval()
    })
  },
)
