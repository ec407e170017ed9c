import { describe, expect, test } from 'vitest'
import { ConfigError, functional, memoryStats, ops, ShapeError, scope, type Tensor, tensor } from '../../lib/index.js'
import { type GrpoLossOptions, grpoAdvantages, grpoLoss } from '../../lib/tuning/index.js'
import { expectClose, fixture, settledTensors, tensorsOf } from '../helpers.js'

interface Case {
  name: string
  options?: GrpoLossOptions
  old: boolean
  kl: number | null
  clipRatio: number
  rewardWeights: number[]
  scaleRewards: 'group' | 'batch' | 'none'
}

describe('GRPO', async () => {
  const file = await fixture<Case>('tuning/grpo')
  const given = tensorsOf(file, 'given', 'in') as Record<
    'ids' | 'mask' | 'logits' | 'advantages' | 'rewards' | 'old' | 'reference',
    Tensor
  >
  const { ids, mask, advantages } = given
  const time = ids.size(1)
  const logpsOf = (logits: Tensor) =>
    functional
      .logSoftmax(logits.narrow(1, logits.size(1) - time - 1, time), -1)
      .gather(-1, ids.unsqueeze(-1))
      .squeeze(-1)

  test.each(file.cases.filter(({ options }) => options))('loss and gradients as in TRL: $name $options', (one) =>
    scope(async () => {
      const logits = given.logits.clone().requiresGrad_()
      const output = grpoLoss(
        {
          ...{ logps: logpsOf(logits), mask, advantages, refLogps: logpsOf(given.reference) },
          ...(one.old && { oldLogps: logpsOf(given.old) }),
        },
        one.options,
      )
      const out = tensorsOf(file, one.name, 'out')
      expectClose(output.loss.detach(), out.loss!, 1e-5, 'loss')
      await output.loss.backward()
      expectClose(logits.grad!, out.gradient!, 1e-5, 'gradient')
      expect(output.clipRatio.item()).toBeCloseTo(one.clipRatio, 6)
      if (one.kl === null) expect(output.kl).toBeNull()
      else expect(output.kl?.item()).toBeCloseTo(one.kl, 6)
    }),
  )

  test.each(file.cases.filter(({ rewardWeights }) => rewardWeights))('advantages as in TRL: $name', (one) => {
    const rows = given.rewards.toArray() as number[][]
    const rewards = rows.map((row) => row.map((value) => (Number.isNaN(value) ? null : value)))
    const { rewardWeights, scaleRewards } = one
    const found = grpoAdvantages(rewards, { numGenerations: 4, rewardWeights, scaleRewards })
    expectClose(tensor(found, { dtype: 'float32' }), tensorsOf(file, one.name, 'out').advantages!, 1e-5)
  })

  test('refuses wrong options, shapes and groups by name', () =>
    scope(() => {
      const rows = (count: number) => ops.zeros([count, 3])
      const good = { logps: rows(2), mask: rows(2), advantages: ops.zeros([2]) }
      expect(() => grpoLoss({ ...good, mask: rows(1) })).toThrow(ShapeError)
      expect(() => grpoLoss({ ...good, advantages: rows(2) })).toThrow(/^grpoLoss: advantages: expected \[2\]/)
      expect(() => grpoLoss(good, { beta: 0.1 })).toThrow(/refLogps to be a tensor with beta above 0/)
      expect(() => grpoLoss(good, { lossType: 'dr_grpo' })).toThrow(/maxCompletionLength/)
      expect(() => grpoLoss(good, { epsilonHig: 1 } as never)).toThrow(/epsilonHigh/)
      expect(() => grpoLoss(null as never)).toThrow(ConfigError)
      const two = { numGenerations: 2 }
      expect(() => grpoAdvantages([[1], [2], [3]], two)).toThrow(/whole groups of 2 answers, got 3/)
      expect(() => grpoAdvantages([[1], [Number.NaN]], two)).toThrow(/rewards\[1\]\[0\]/)
      expect(() => grpoAdvantages([[1], [2]], { ...two, rewardWeights: [1, 2] })).toThrow(/rewardWeights/)
    }))

  test('leaves only its results', async () => {
    const before = await settledTensors()
    scope(() => {
      const rows = ops.ones([2, 3])
      const inputs = { logps: rows, mask: rows, refLogps: rows, advantages: tensor([1, -1]) }
      const live = memoryStats().liveTensors
      const output = grpoLoss(inputs, { beta: 0.1 })
      expect(memoryStats().liveTensors - live).toBe(Object.keys(output).length)
    })
    expect(await settledTensors()).toBe(before)
  })
})
