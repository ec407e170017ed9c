import { describe, expect, test } from 'vitest'
import { AdamW, ConfigError, DecoderLM, getPeftModel, Linear, Roberta, scope } from '../../lib/index.js'
import { createLoraplusOptimizer } from '../../lib/tuning/index.js'
import { fixture } from '../helpers.js'

interface Case {
  name: string
  kind: 'qwen2' | 'roberta'
  lora: { [name: string]: unknown }
  groups: { lr: number; weightDecay: number; names: string[] }[]
}

const SIZES = { vocabSize: 32, hiddenSize: 16, intermediateSize: 24, numHiddenLayers: 1, numAttentionHeads: 2 }
const RATES = { lr: 1e-3, loraplusLrRatio: 16, loraplusWeightDecay: 0.01, loraplusLrEmbedding: 1e-5 }

const network = (kind: Case['kind']) =>
  kind === 'qwen2'
    ? DecoderLM.fromConfig({ ...SIZES, modelType: 'qwen2', numKeyValueHeads: 1, tieWordEmbeddings: false })
    : Roberta.fromConfig(SIZES as never)

describe('createLoraplusOptimizer', async () => {
  const { cases } = await fixture<Case>('tuning/lora-plus')

  test.each(cases)('has the groups of PEFT: $name', ({ kind, lora, groups }) =>
    scope(() => {
      const model = network(kind)
      const config = Object.fromEntries(
        Object.entries(lora).map(([key, value]) => [key.replace(/_(.)/g, (_, c: string) => c.toUpperCase()), value]),
      )
      const peft = getPeftModel(model as DecoderLM, { r: 2, ...config } as never)
      using optimizer = createLoraplusOptimizer(peft, AdamW, { ...RATES, betas: [0.8, 0.9] })
      const names = new Map(model.namedParameters().map(([name, one]) => [one as object, name]))
      const sorted = (list: string[]) => [...list].sort()
      expect(
        optimizer.groups.map(({ lr, weightDecay, params, betas }) => ({
          ...{ lr, weightDecay, betas },
          names: sorted(params.map((one) => names.get(one) as string)),
        })),
      ).toEqual(groups.map((group) => ({ ...group, names: sorted(group.names), betas: [0.8, 0.9] })))
      model.dispose()
    }),
  )

  test('refuses a model without adapters, and wrong rates', () => {
    expect(() => createLoraplusOptimizer(new Linear(2, 2), AdamW, RATES)).toThrow(/expected a model with adapters/)
    const peft = getPeftModel(network('qwen2') as DecoderLM, { targetModules: ['q_proj'] })
    expect(() => createLoraplusOptimizer(peft, AdamW, { lr: 1e-3, loraplusLrRatio: 0.5 })).toThrow(ConfigError)
    expect(() => createLoraplusOptimizer(peft, AdamW, { lr: 1e-3 } as never)).toThrow(/loraplusLrRatio/)
    expect(() => createLoraplusOptimizer(peft, AdamW, { ...RATES, beta: 1 } as never)).toThrow(/beta/)
    expect(() => createLoraplusOptimizer(peft, undefined as never, RATES)).toThrow(/Optimizer/)
  })
})
