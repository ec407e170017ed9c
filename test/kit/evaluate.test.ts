import { describe, expect, it } from 'vitest'
import * as vt from '../../lib/index.js'
import { batchesOf, evaluate, evaluateBatches } from '../../lib/kit/evaluate.js'

const network = () => new vt.Sequential(new vt.Linear(2, 3), new vt.Dropout(0.5), new vt.Linear(3, 1))
const modesOf = (model: vt.Module) => model.modules().map(({ training }) => training)

describe('evaluating', () => {
  it('puts back the mode of each part, also where something fails', async () => {
    const model = network()
    const frozen = model.modules()[1] as vt.Module
    frozen.eval()
    const before = modesOf(model)
    const inside = await vt.withEvalMode(model, async () => modesOf(model))
    expect(inside).toEqual([false, false, false, false])
    expect(modesOf(model)).toEqual(before)
    await expect(
      vt.withEvalMode(model, () => {
        throw new Error('no')
      }),
    ).rejects.toThrow('no')
    expect(modesOf(model)).toEqual(before)
    model.dispose()
  })

  it('several at a time: the last puts back what was before the first', async () => {
    const model = network()
    const ends: (() => void)[] = []
    const work = () => new Promise<void>((resolve) => ends.push(resolve))
    const first = vt.withEvalMode(model, work)
    const second = vt.withEvalMode(model, work)
    ends[0]?.()
    await first
    expect(modesOf(model)).toEqual([false, false, false, false])
    ends[1]?.()
    await second
    expect(modesOf(model)).toEqual([true, true, true, true])
    model.dispose()
  })

  it('takes modules only', async () => {
    await expect(vt.withEvalMode({} as never, () => 1)).rejects.toThrow(vt.ConfigError)
    await expect(vt.withEvalMode(network(), 3 as never)).rejects.toThrow(vt.ConfigError)
  })
})

describe('evaluate', () => {
  // What is read for a batch is freed with it.
  const read = (index: number) => vt.tensor([index, 1], { dtype: 'float32' })
  const data = { length: 5, get: async (index: number) => [read(index).size(0) + index - 2, 1] }

  it('gives full batches and the rest, and no empty one', async () => {
    const batches = async (length: number) =>
      Promise.all([...batchesOf({ length, get: (index: number) => index }, 2)].map((batch) => batch()))
    expect(await batches(5)).toEqual([[0, 1], [2, 3], [4]])
    expect(await batches(4)).toEqual([[0, 1], [2, 3]]) // biome-ignore format: one line
    expect(await batches(0)).toEqual([])
  })

  it('gives the predictions of all samples in order, their metrics, and leaves nothing behind', async () => {
    const model = network()
    const done: number[] = []
    const live = vt.memoryStats().liveTensors
    const { predictions, metrics } = await evaluate(model, batchesOf(data, 2), {
      async predict(samples) {
        expect(model.training).toBe(false)
        const output = model.forward(vt.tensor(samples as number[][], { dtype: 'float32' }))
        expect(output.requiresGrad).toBe(false)
        return (output.flatten().toArray() as number[]).map((_, i) => samples[i]?.[0] as number)
      },
      metrics: (all) => ({ sum: all.reduce((sum, value) => sum + value, 0) }),
      onBatch: (count) => done.push(count),
    })
    expect(predictions).toEqual([0, 1, 2, 3, 4])
    expect(metrics).toEqual({ sum: 10 })
    expect(done).toEqual([2, 4, 5])
    expect(vt.memoryStats().liveTensors).toBe(live)
    expect(model.training).toBe(true)
    model.dispose()
  })

  it('looks at chosen samples, batch by batch', async () => {
    const model = network()
    const sizes = await evaluateBatches(model, batchesOf(data, 2, [4, 0, 1]), async (samples) =>
      samples.map(([index]) => index),
    )
    expect(sizes).toEqual([[4, 0], [1]])
    model.dispose()
  })

  it('refuses a model that does not answer each', async () => {
    const model = network()
    const predict = async () => [1]
    await expect(evaluate(model, batchesOf(data, 2), { predict })).rejects.toThrow(
      /Sequential: expected 2 predictions, one per sample, got 1/,
    )
    expect(model.training).toBe(true)
    model.dispose()
  })
})
