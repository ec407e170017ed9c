import { describe, expect, it } from 'vitest'
import {
  CheckpointError,
  ConfigError,
  cat,
  LBFGS,
  type LBFGSOptions,
  loadTorch,
  memoryStats,
  Parameter,
  scope,
  type Tensor,
  zeros,
} from '../../lib/index.js'
import type { LBFGSState } from '../../lib/train/lbfgs.js'
import { expectClose, fixturePath, relativeError, settledTensors } from '../helpers.js'

interface Run {
  start: Tensor[]
  params: Tensor[]
  after: Tensor[]
  losses: number[]
  options: Record<string, number | string>
  optimizer: LBFGSState
}

const camel = (options: object) =>
  Object.fromEntries(
    Object.entries(options).map(([key, value]) => [key.replace(/_(.)/g, (_, c: string) => c.toUpperCase()), value]),
  ) as LBFGSOptions

/** The sum of 100 (b - a²)² + (1 - a)² over neighbours a, b. */
function curved(params: Parameter[]): Tensor {
  const joined = cat(params.map((param) => param.flatten()))
  const count = joined.size(0) - 1
  const [a, b] = [joined.narrow(0, 0, count), joined.narrow(0, 1, count)]
  const bend = b.sub(a.square()).square().mul(100)
  return bend.add(a.neg().add(1).square()).sum()
}

async function train(optimizer: LBFGS, params: Parameter[], steps: number): Promise<number[]> {
  const losses: number[] = []
  for (let step = 0; step < steps; step++) {
    const loss = await optimizer.step(() =>
      scope(async () => {
        optimizer.zeroGrad()
        const value = curved(params)
        await value.backward()
        return value.item() as number
      }),
    )
    losses.push(loss)
  }
  return losses
}

const parameters = (tensors: Tensor[]) => tensors.map((one) => new Parameter(one.clone()))

describe('LBFGS against torch.optim.LBFGS', async () => {
  const { lbfgs } = await loadTorch<{ lbfgs: Record<string, Run> }>(fixturePath('train/torch-state.pt'))

  it.each(Object.entries(lbfgs))('%s', async (_, run) => {
    const params = parameters(run.start)
    using optimizer = new LBFGS(params, camel(run.options))
    const losses = await train(optimizer, params, 12)
    expect(relativeError(losses, run.losses)).toBeLessThan(1e-6)
    params.forEach((param, i) => void expectClose(param.detach(), run.after[i] as Tensor, 1e-6, String(i)))
  })

  it.each(Object.entries(lbfgs))('%s goes on from the state of torch.save, and from its own', async (_, run) => {
    const params = parameters(run.params)
    using optimizer = new LBFGS(params)
    optimizer.loadStateDict(run.optimizer)
    await train(optimizer, params, 3)
    using second = new LBFGS(params)
    second.loadStateDict(optimizer.stateDict())
    await train(second, params, 3)
    params.forEach((param, i) => void expectClose(param.detach(), run.after[i] as Tensor, 1e-6, String(i)))
  })

  it('leaves no tensors behind', async () => {
    const params = parameters((lbfgs.wolfe as Run).start)
    const before = await settledTensors()
    const optimizer = new LBFGS(params, { lineSearchFn: 'strong_wolfe', maxIter: 3, historySize: 2 })
    await train(optimizer, params, 5)
    optimizer.zeroGrad()
    // The direction, the gradient before, and two vectors for each of two directions.
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before + 6)
    optimizer.dispose()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('names what does not fit', async () => {
    const run = lbfgs.wolfe as Run
    const params = parameters(run.params)
    using optimizer = new LBFGS(params)
    const own = (run.optimizer.state as unknown as Map<number, object>).get(0) as Record<string, unknown>
    const changed = (change: object): LBFGSState => ({ ...run.optimizer, state: { 0: { ...own, ...change } } })
    const cases: [LBFGSState, RegExp][] = [
      [changed({ d: zeros([3]) }), /expected state d to be a tensor \[7\]/],
      [changed({ ro: 3 }), /state ro/],
      [changed({ n_iter: 'x' }), /state n_iter to be a number/],
      [changed({ exp_avg: zeros([7]) }), /state exp_avg/],
      [changed({ old_stps: [] }), /as long as/],
      [{ ...run.optimizer, state: { 1: own } }, /first parameter/],
    ]
    for (const [state, message] of cases) {
      expect(() => optimizer.loadStateDict(state)).toThrow(message)
      expect(() => optimizer.loadStateDict(state)).toThrow(CheckpointError)
    }
    expect(optimizer.stateDict().state).toEqual({})
    const any = (value: unknown) => value as never
    expect(() => new LBFGS([])).toThrow(ConfigError)
    expect(() => new LBFGS(any([{ params }]))).toThrow(/one group/)
    expect(() => new LBFGS(params, any({ history: 3 }))).toThrow(/did you mean 'historySize'/)
    expect(() => new LBFGS(params, { lineSearchFn: any('wolfe') })).toThrow(ConfigError)
    expect(() => new LBFGS([...params, new Parameter(zeros([1]))])).toThrow(/one device and dtype/)
    await expect(optimizer.step(any(undefined))).rejects.toThrow(ConfigError)
    await expect(optimizer.step(() => any('low'))).rejects.toThrow(/a loss/)
  })
})
