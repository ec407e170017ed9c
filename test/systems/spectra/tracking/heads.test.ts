import { describe, expect, it } from 'vitest'
import {
  ConfigError,
  manualSeed,
  memoryStats,
  noGrad,
  randint,
  randn,
  ShapeError,
  scope,
  type Tensor,
  zeros,
} from '../../../../lib/index.js'
import {
  type DstClassType,
  DstHeads,
  type DstLabels,
  SPOKENWOZ_SLOTS,
  spokenWozConfig,
} from '../../../../lib/systems/spectra/index.js'
import { expectClose, fixture, tensorsOf } from '../../../helpers.js'

interface Case {
  name: string
  slots: string[]
  class_types: DstClassType[]
  masked: boolean
  hidden: number
}

const file = await fixture<Case>('spectra/dst')

function build({ name, slots, class_types: classTypes, masked, hidden }: Case) {
  const heads = new DstHeads({
    config: { slots, classTypes, labelMaps: {} },
    hiddenSize: hidden,
    dropout: 0,
    ...(!masked && { compat: 'published' }),
  })
  heads.loadStateDict(tensorsOf(file, name, 'param'))
  const given = tensorsOf(file, name, 'in')
  const labels: DstLabels = {
    classIds: given.class_ids!,
    startPositions: given.start_positions!,
    endPositions: given.end_positions!,
    referIds: given.refer_ids!,
  }
  return { heads, states: given.states!, mask: given.mask!.to({ dtype: 'bool' }), labels }
}

describe('heads and loss against slot-by-slot PyTorch', () => {
  it.each(file.cases)('$name: logits, losses and every gradient', async (description) => {
    const { heads, states, mask, labels } = build(description)
    states.requiresGrad = true
    const output = heads.forward(states, mask, labels)
    const expected = tensorsOf(file, description.name, 'out')
    expectClose(output.loss!.reshape([1]), expected.loss!, 1e-5, 'loss')
    expectClose(output.slotLosses!, expected.slot_losses!, 1e-5, 'losses of slots')
    expectClose(output.classLogits, expected.class_logits!, 1e-5, 'classes')
    expectClose(output.startLogits, expected.start_logits!, 1e-5, 'starts')
    expectClose(output.endLogits, expected.end_logits!, 1e-5, 'ends')
    expectClose(output.referLogits, expected.refer_logits!, 1e-5, 'references')
    await output.loss!.backward()
    const gradients = tensorsOf(file, description.name, 'grad')
    expectClose(states.grad!, gradients.states!, 1e-5, 'gradient of the states')
    // A constant on all positions changes no softmax: the gradients of the spans' biases are 0 but for rounding, so what is
    // nearly 0 is measured against a hundredth of the largest.
    const largest = (tensor: Tensor) => tensor.abs().max().item() as number
    const scale = Math.max(...Object.values(gradients).map(largest)) / 100
    for (const [name, parameter] of heads.namedParameters()) {
      // Without the class 'refer' those heads have no part in the loss.
      const got = parameter.grad ?? zeros(parameter.shape)
      const error = largest(got.sub(gradients[name]!)) / Math.max(largest(gradients[name]!), scale)
      expect(error, `gradient of ${name}`).toBeLessThanOrEqual(1e-5)
    }
  })

  it('a head that has a hook is called itself, with the same numbers', () => {
    const { heads, states, mask, labels } = build(file.cases[0]!)
    const before = heads.forward(states, mask, labels)
    let calls = 0
    const remove = heads.get('token_hotel-book day').registerForwardHook(() => void calls++)
    const after = heads.forward(states, mask, labels)
    remove()
    expect(calls).toBe(1)
    expectClose(after.loss!, before.loss!, 1e-6)
    expectClose(after.endLogits, before.endLogits, 1e-6)
  })
})

it('names and shapes are those of the published state dictionary', () => {
  const heads = new DstHeads({ config: spokenWozConfig() })
  const state = heads.stateDict()
  expect(SPOKENWOZ_SLOTS).toHaveLength(36)
  expect(Object.keys(state)).toHaveLength(36 * 3 * 2)
  expect(state['class_hotel-book day.weight']!.shape).toEqual([7, 768])
  expect(state['token_restaurant-book people.bias']!.shape).toEqual([2])
  expect(state['refer_profile-email.weight']!.shape).toEqual([37, 768])
})

it('padding changes neither the loss nor the choices, unless published behaviour is asked for', () => {
  const shift = (compat?: 'published') =>
    scope(() => {
      manualSeed(3)
      const heads = new DstHeads({ config: spokenWozConfig(), hiddenSize: 8, dropout: 0, ...(compat && { compat }) })
      const states = randn([2, 10, 8])
      const labels = {
        classIds: randint(0, 7, [2, 36]),
        startPositions: randint(0, 5, [2, 36]),
        endPositions: randint(0, 5, [2, 36]),
        referIds: randint(0, 37, [2, 36]),
      }
      const mask = zeros([2, 10]).eq(0)
      const short = mask.clone()
      short.narrow(1, 6, 4).fill_(false)
      const padded = heads.forward(states, short, labels).loss!.item() as number
      const cut = heads.forward(states.narrow(1, 0, 6), mask.narrow(1, 0, 6), labels).loss!.item() as number
      heads.dispose()
      return Math.abs(padded - cut) / cut
    })
  expect(shift()).toBeLessThan(1e-6)
  expect(shift('published')).toBeGreaterThan(1e-3)
})

it('leaves no temporaries, with and without labels', () => {
  const { heads, states, mask, labels } = build(file.cases[0]!)
  noGrad(() => heads.forward(states, mask, labels))
  scope(() => {
    const before = memoryStats().liveTensors
    noGrad(() => heads.forward(states, mask))
    expect(memoryStats().liveTensors - before).toBe(4)
    noGrad(() => heads.forward(states, mask, labels))
    expect(memoryStats().liveTensors - before).toBe(4 + 6)
  })
})

it('says what is wrong', () => {
  const { heads, states, mask, labels } = build(file.cases[0]!)
  expect(() => heads.forward(states.narrow(2, 0, 3), mask, labels)).toThrow(ShapeError)
  expect(() => heads.forward(states, mask.narrow(1, 0, 3), labels)).toThrow(/mask: expected bool \[5, 9\]/)
  expect(() => heads.forward(states, mask.to({ dtype: 'float32' }), labels)).toThrow(/got float32/)
  expect(() => heads.forward(states, mask, { ...labels, referIds: labels.referIds.narrow(1, 0, 2) })).toThrow(
    /referIds/,
  )
  const { classIds: _, ...lacking } = labels
  expect(() => heads.forward(states, mask, lacking as never as Record<'classIds', Tensor> & DstLabels)).toThrow(
    ConfigError,
  )
  const bad = (config: object) => () => new DstHeads({ config: { ...spokenWozConfig(), ...config } })
  expect(bad({ slots: ['a.b'] })).toThrow(/expected names without a dot, .* got 'a\.b'/)
  expect(bad({ slots: ['a', 'a'] })).toThrow(/slots: expected distinct names, got 'a' twice/)
  expect(bad({ classTypes: ['none', 'copyvalue'] })).toThrow(/did you mean 'copy_value'/)
  expect(bad({ classTypes: ['copy_value', 'none'] })).toThrow(/class_types: expected 'none' as the first/)
  expect(() => new DstHeads({ config: spokenWozConfig(), classLossRatio: 1.5 })).toThrow(ConfigError)
})
