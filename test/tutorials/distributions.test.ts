// Two public tutorials of PyTorch, a variational autoencoder and an actor-critic, with distributions in place of formulas.
// test/reference/tutorials.py ran them in PyTorch, on the same weights, data and random numbers.
import { expect, it } from 'vitest'
import {
  Adam,
  distributions,
  functional,
  Linear,
  Module,
  manualSeed,
  scope,
  stack,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { expectClose, fixture, tensorsOf } from '../helpers.js'
import { STEPS, TOLERANCE } from './tolerance.js'

const { Categorical, klDivergence, Normal } = distributions
const file = await fixture<{ name: string; lengths?: number[] }>('tutorials/distributions')
const losses = (name: string): Tensor => tensorsOf(file, name, 'out').losses!

class VAE extends Module {
  fc1 = new Linear(16, 12)
  fc21 = new Linear(12, 3)
  fc22 = new Linear(12, 3)
  fc3 = new Linear(3, 12)
  fc4 = new Linear(12, 16)
  prior = new Normal(0, 1)

  override forward(x: Tensor): [reconstruction: Tensor, posterior: distributions.Normal] {
    const hidden = this.fc1.forward(x).relu()
    const posterior = new Normal(this.fc21.forward(hidden), this.fc22.forward(hidden).mul(0.5).exp())
    const decoded = this.fc3.forward(posterior.rsample()).relu()
    return [this.fc4.forward(decoded).sigmoid(), posterior]
  }
}

it('a variational autoencoder', async () => {
  const model = new VAE()
  model.loadStateDict(tensorsOf(file, 'vae', 'param'))
  const { data } = tensorsOf(file, 'vae', 'in')
  const optimizer = new Adam(model.parameters(), { lr: 1e-3 })
  manualSeed(1)
  const found: number[] = []
  for (let step = 0; step < STEPS; step += 1) {
    await scope(async () => {
      optimizer.zeroGrad()
      const [reconstruction, posterior] = model.forward(data!)
      const divergence = klDivergence(posterior, model.prior).sum()
      const loss = functional.binaryCrossEntropy(reconstruction, data!, { reduction: 'sum' }).add(divergence)
      await loss.backward()
      await optimizer.step()
      found.push(loss.item())
    })
  }
  expectClose(tensor(found), losses('vae'), TOLERANCE)
  expect(found.at(-1)).toBeLessThan(found[0]!)
})

class Policy extends Module {
  affine1 = new Linear(2, 16)
  action_head = new Linear(16, 2)
  value_head = new Linear(16, 1)

  override forward(x: Tensor): [probs: Tensor, value: Tensor] {
    const hidden = this.affine1.forward(x).relu()
    return [this.action_head.forward(hidden).softmax(-1), this.value_head.forward(hidden)]
  }
}

interface Step {
  logProb: Tensor
  value: Tensor
  reward: number
}

/** A point that runs away from 0 unless it is pushed back; it is lost beyond 1. */
function runEpisode(model: Policy): Step[] {
  let [position, speed] = [0.25, 0]
  const steps: Step[] = []
  while (Math.abs(position) < 1 && steps.length < 25) {
    const [probs, value] = model.forward(tensor([position, speed], { dtype: 'float32' }))
    const policy = new Categorical(probs)
    const action = policy.sample()
    steps.push({ logProb: policy.logProb(action), value, reward: 1 - Math.abs(position) })
    speed += 0.125 * position + (action.item() === 1 ? 0.0625 : -0.0625)
    position += speed
  }
  return steps
}

it('an actor-critic', async () => {
  const model = new Policy()
  model.loadStateDict(tensorsOf(file, 'actor-critic', 'param'))
  const optimizer = new Adam(model.parameters(), { lr: 3e-2 })
  manualSeed(2)
  const found: number[] = []
  const lengths: number[] = []
  for (let episode = 0; episode < STEPS; episode += 1) {
    await scope(async () => {
      const steps = runEpisode(model)
      let total = 0
      const list: number[] = []
      for (const { reward } of [...steps].reverse()) {
        total = reward + 0.99 * total
        list.unshift(total)
      }
      const raw = tensor(list, { dtype: 'float32' })
      const returns = raw.sub(raw.mean()).div(raw.std().add(1e-6))
      const values = stack(steps.map(({ value }) => value)).squeeze(-1)
      const advantages = returns.sub(values.detach())
      const policyLoss = stack(steps.map(({ logProb }) => logProb))
        .mul(advantages)
        .sum()
        .neg()
      const loss = policyLoss.add(functional.smoothL1Loss(values, returns, { reduction: 'sum' }))
      optimizer.zeroGrad()
      await loss.backward()
      await optimizer.step()
      found.push(loss.item())
      lengths.push(steps.length)
    })
  }
  expect(lengths).toEqual(file.cases.find(({ name }) => name === 'actor-critic')!.lengths)
  expectClose(tensor(found), losses('actor-critic'), TOLERANCE)
})
