import { describe, expect, it } from 'vitest'
import {
  Adadelta,
  Adafactor,
  Adagrad,
  Adam,
  Adamax,
  AdamW,
  ASGD,
  CheckpointError,
  GradScaler,
  LRScheduler,
  loadTorch,
  MultiStepLR,
  NAdam,
  type Optimizer,
  ones,
  Parameter,
  RAdam,
  RMSprop,
  Rprop,
  SGD,
  scope,
  type Tensor,
  zeros,
} from '../../lib/index.js'
import type { OptimizerState } from '../../lib/train/optimizer-state.js'
import { expectClose, fixturePath } from '../helpers.js'

const KINDS = { AdamW, Adam, SGD, Adagrad, RMSprop, NAdam, RAdam, Adamax, Adadelta, ASGD, Rprop, Adafactor }

type Tensors = Record<'weight' | 'bias' | 'late', Tensor>
interface Run {
  kind: keyof typeof KINDS
  params: Tensors
  after: Tensors
  optimizer: OptimizerState
}
interface Saved {
  gradients: Tensors
  optimizers: Record<string, Run>
  scaler: never
  scheduler: never
  milestones: never
  last_lr: number[]
}

/** `state` of a file has numbers for keys, which is a Map here. */
const stateOf = (dict: OptimizerState) => dict.state as unknown as Map<number, Record<string, Tensor | null>>
const asObject = (dict: OptimizerState): OptimizerState => ({
  ...dict,
  state: Object.fromEntries(stateOf(dict)) as OptimizerState['state'],
})

describe('state of torch.save', async () => {
  const file = await loadTorch<Saved>(fixturePath('train/torch-state.pt'))

  function start({ kind, params }: Run): [Optimizer, Record<keyof Tensors, Parameter>] {
    const own = { weight: params.weight, bias: params.bias, late: params.late }
    const made = Object.fromEntries(Object.entries(own).map(([key, value]) => [key, new Parameter(value.clone())]))
    const { weight, late, bias } = made as Record<keyof Tensors, Parameter>
    // Options come with the state.
    const optimizer = new KINDS[kind]([{ params: [weight, late] }, { params: [bias] }]) as Optimizer
    return [optimizer, { weight, late, bias }]
  }

  async function goOn(optimizer: Optimizer, params: Record<keyof Tensors, Parameter>) {
    for (let step = 5; step < 10; step++) {
      await scope(async () => {
        for (const key of ['weight', 'bias', 'late'] as const) {
          if (key !== 'late' || step > 5) params[key].grad = file.gradients[key].at(step).clone()
        }
        await optimizer.step()
      })
    }
  }

  it.each(Object.keys(file.optimizers).flatMap((name) => [[name, 'Map'] as const, [name, 'object'] as const]))(
    '%s goes on as in PyTorch, from a %s',
    async (name, form) => {
      const run = file.optimizers[name] as Run
      const [optimizer, params] = start(run)
      // An empty dictionary has no keys to tell.
      const keyed = stateOf(run.optimizer) instanceof Map
      expect(keyed).toBe(name !== 'sgd')
      optimizer.loadStateDict(keyed && form === 'object' ? asObject(run.optimizer) : run.optimizer)
      await goOn(optimizer, params)
      for (const key of ['weight', 'bias', 'late'] as const)
        expectClose(params[key].detach(), run.after[key], 1e-6, key)
      optimizer.dispose()
    },
  )

  it('names what does not fit, and changes nothing', async () => {
    const run = file.optimizers.adamw as Run
    const [optimizer] = start(run)
    const before = optimizer.groups.map(({ params: _, ...options }) => options)
    const changed = (change: (state: Map<unknown, unknown>) => void): OptimizerState => {
      const state = new Map<unknown, unknown>([...stateOf(run.optimizer)].map(([key, own]) => [key, { ...own }]))
      change(state)
      return { ...run.optimizer, state: state as never }
    }
    const own = (state: Map<unknown, unknown>) => state.get(0) as Record<string, unknown>
    type Own = { constructor: unknown }
    const cases: [OptimizerState, RegExp][] = [
      [changed((state) => state.set(7, own(state))), /belong to its param_groups, got one for parameter 7/],
      [changed((state) => state.set('weight', own(state))), /got one for parameter "weight"/],
      [changed((state) => delete own(state).exp_avg_sq), /state exp_avg_sq of parameter 0 is missing/],
      [changed((state) => (own(state).exp_avg = ones([2, 3]))), /exp_avg of parameter 0 has shape \[2,3\]/],
      [changed((state) => (own(state).exp_avg = 'x')), /exp_avg of parameter 0 has "x"/],
      [changed((state) => (own(state).momentum_buffer = ones([3, 2]))), /momentum_buffer .*another optimizer/],
      [changed((state) => ((own(state) as Own).constructor = ones([3, 2]))), /constructor .*another optimizer/],
      [changed((state) => state.set(0, 3)), /expected state and param_groups/],
      [{ ...run.optimizer, state: [] as never }, /expected state and param_groups/],
    ]
    for (const [state, message] of cases) {
      expect(() => optimizer.loadStateDict(state)).toThrow(message)
      expect(() => optimizer.loadStateDict(state)).toThrow(CheckpointError)
    }
    expect(optimizer.groups.map(({ params: _, ...options }) => options)).toEqual(before)
    expect(optimizer.stateDict().state).toEqual({})
    const other = new SGD([{ params: [zeros([3, 2]), zeros([5])] }, { params: [zeros([4])] }])
    expect(() => other.loadStateDict(run.optimizer)).toThrow(/step of parameter 0 belongs to another optimizer/)
  })

  it('takes the state of a schedule and of a scaler', () => {
    const optimizer = { groups: [{ lr: 0.5 }] }
    const schedule = new LRScheduler(optimizer, (step) => 1 / (step + 1))
    schedule.loadStateDict(file.scheduler)
    expect(schedule.lastLr).toEqual(file.last_lr)
    expect(optimizer.groups[0]?.lr).toBe(file.last_lr[0])
    // Its milestones are a Counter, whose keys are numbers.
    const steps = new MultiStepLR({ groups: [{ lr: 0.5 }] }, { milestones: [1], gamma: 0.5 })
    steps.loadStateDict(file.milestones)
    expect(steps.stateDict()).toMatchObject({ milestones: { 3: 1, 5: 2 }, gamma: 0.5, base_lrs: [0.1] })
    const scaler = new GradScaler()
    scaler.loadStateDict(file.scaler)
    expect(scaler.stateDict()).toEqual({ ...(file.scaler as object) })
    expect(scaler.getScale()).toBe(512)
  })
})
