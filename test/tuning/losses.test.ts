import { describe, expect, test } from 'vitest'
import { ConfigError, functional, memoryStats, ops, ShapeError, scope, type Tensor, tensor } from '../../lib/index.js'
import { dpoLoss, ipoLoss, ktoLoss, orpoLoss, simpoLoss } from '../../lib/tuning/index.js'
import { expectClose, fixture, settledTensors, tensorsOf } from '../helpers.js'

interface Case {
  name: string
  loss: 'sigmoid' | 'ipo' | 'kto' | 'orpo' | 'simpo'
  options: Record<string, number>
  kl: number | null
  /** Whether model and reference are exchanged in the estimate of KL. */
  exchanged: boolean
  /** Number of chosen answers; the others are rejected. */
  chosen: number
}

describe('preference losses', async () => {
  const file = await fixture<Case>('tuning/preference')
  const { ids, klIds, attention, completion, logits, reference, kl, klReference } = tensorsOf(file, 'given', 'in') as {
    [name: string]: Tensor
  } as Record<'ids' | 'klIds' | 'attention' | 'completion' | 'logits' | 'reference' | 'kl' | 'klReference', Tensor>

  /** Log-probabilities of the tokens that a mask selects, [rows, time - 1]. */
  const tokens = (values: Tensor, words: Tensor, mask: Tensor) => {
    const labels = ops.where(mask.eq(0), tensor(-100), words).slice(-1, 1)
    return functional
      .crossEntropy(values.slice(-2, 0, -1).reshape([-1, values.size(-1)]), labels.reshape([-1]), { reduction: 'none' })
      .neg()
      .reshape(labels.shape)
  }

  function computed({ loss, options, exchanged, chosen: count }: Case, from: Tensor) {
    const pair = (rows: Tensor): [Tensor, Tensor] => [
      rows.narrow(0, 0, count),
      rows.narrow(0, count, rows.size(0) - count),
    ]
    const lengths = completion.sum(1)
    const sums = tokens(from, ids, completion).sum(1)
    const [chosenLogps, rejectedLogps] = pair(loss === 'orpo' || loss === 'simpo' ? sums.div(lengths) : sums)
    const [refChosenLogps, refRejectedLogps] = pair(tokens(reference, ids, completion).sum(1))
    const referenced = { chosenLogps, rejectedLogps, refChosenLogps, refRejectedLogps }
    if (loss === 'sigmoid') return dpoLoss(referenced, options)
    if (loss === 'ipo') {
      const [chosenLengths, rejectedLengths] = pair(lengths)
      return ipoLoss({ ...referenced, chosenLengths, rejectedLengths }, options)
    }
    if (loss === 'kto') {
      const [own, other] = [tokens(kl, klIds, completion).sum(1), tokens(klReference, klIds, completion).sum(1)]
      const [klLogps, refKlLogps] = exchanged ? [other, own] : [own, other]
      return ktoLoss({ ...referenced, klLogps, refKlLogps }, options)
    }
    if (loss === 'simpo') return simpoLoss({ chosenLogps, rejectedLogps }, options)
    // The supervised loss is over whole conversations.
    const [chosen] = pair(tokens(from, ids, attention))
    const [counted] = pair(attention.slice(-1, 1))
    return orpoLoss({ chosenLogps, rejectedLogps, nllLoss: chosen.sum().div(counted.sum()).neg() }, options)
  }

  test.each(file.cases.slice(1))('as in TRL, with gradients: $name', (one) =>
    scope(async () => {
      const from = logits.clone().requiresGrad_()
      const output = computed(one, from)
      const out = tensorsOf(file, one.name, 'out')
      expectClose(output.loss.detach(), out.loss!, 1e-5, 'loss')
      await output.loss.backward()
      expectClose(from.grad!, out.gradient!, 1e-5, 'gradient')
      if (one.kl !== null) expect((output as unknown as { kl: Tensor }).kl.item()).toBeCloseTo(one.kl, 5)
      expect(output.chosenRewards.requiresGrad).toBe(false)
    }),
  )

  const logps = (...values: number[]) => tensor(values, { dtype: 'float64' })

  test('are finite, with finite gradients, for probabilities near 0 and 1', () =>
    scope(async () => {
      const chosenLogps = logps(-1e-12, -800, 0).requiresGrad_()
      const rejectedLogps = logps(-900, 0, -0.7).requiresGrad_()
      const { loss } = orpoLoss({ chosenLogps, rejectedLogps, nllLoss: logps(0).sum() })
      await loss.backward()
      for (const value of [loss.detach(), chosenLogps.grad!, rejectedLogps.grad!])
        expect(ops.isfinite(value).all().item()).toBe(true)
    }))

  test('KTO takes unequal numbers of answers, and no estimate of KL', () =>
    scope(() => {
      const chosen = { chosenLogps: logps(-1, -2, -3), refChosenLogps: logps(-2, -2, -2) }
      const rejected = { rejectedLogps: logps(-4), refRejectedLogps: logps(-3) }
      const sigmoid = (x: number) => 1 / (1 + Math.exp(-x))
      const { loss, kl } = ktoLoss({ ...chosen, ...rejected }, { beta: 0.5 })
      const losses = [sigmoid(-0.5), sigmoid(0), sigmoid(0.5), sigmoid(-0.5)]
      expect(loss.item()).toBeCloseTo(losses.reduce((sum, value) => sum + value) / 4, 12)
      expect(kl.item()).toBe(0)
    }))

  test('refuse wrong options and shapes by name', () =>
    scope(() => {
      const [two, three] = [logps(-1, -2), logps(-1, -2, -3)]
      const good = { chosenLogps: two, rejectedLogps: two }
      const referenced = { ...good, refChosenLogps: two, refRejectedLogps: two }
      expect(() => dpoLoss(referenced, { beta: 0 })).toThrow(/^dpoLoss: expected beta to be a number above 0, got 0/)
      expect(() => dpoLoss(referenced, { labelSmoothing: 0.5 })).toThrow(/labelSmoothing/)
      expect(() => simpoLoss(good, { simpoGama: 1 } as never)).toThrow(/simpoGamma/)
      expect(() => ipoLoss({ ...referenced, chosenLengths: two } as never)).toThrow(/rejectedLengths/)
      expect(() => simpoLoss({ ...good, rejectedLogps: three })).toThrow(ShapeError)
      expect(() => ktoLoss({ ...referenced, klLogps: two })).toThrow(/refKlLogps/)
      expect(() => orpoLoss(good as never)).toThrow(/^orpoLoss: expected nllLoss/)
      expect(() => dpoLoss(null as never)).toThrow(ConfigError)
    }))

  test('leave only their results', async () => {
    const before = await settledTensors()
    scope(() => {
      const inputs = {
        chosenLogps: logps(-1),
        rejectedLogps: logps(-2),
        refChosenLogps: logps(-1),
        refRejectedLogps: logps(-1),
      }
      const live = memoryStats().liveTensors
      const output = dpoLoss(inputs)
      expect(memoryStats().liveTensors - live).toBe(Object.keys(output).length)
      const more = ktoLoss(inputs)
      expect(memoryStats().liveTensors - live).toBe(3 + Object.keys(more).length)
    })
    expect(await settledTensors()).toBe(before)
  })
})
