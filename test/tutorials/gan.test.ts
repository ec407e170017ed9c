// PyTorch's DCGAN tutorial on small images: two networks, two optimizers, and a loss that trains them against each other.
// test/reference/tutorials.py ran it in PyTorch.
import { expect, it } from 'vitest'
import {
  Adam,
  arange,
  BatchNorm2d,
  BCELoss,
  Conv2d,
  ConvTranspose2d,
  full,
  init,
  LeakyReLU,
  type Module,
  manualSeed,
  ReLU,
  randn,
  Sequential,
  Sigmoid,
  scope,
  Tanh,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { expectClose, fixture, tensorsOf } from '../helpers.js'
import { expectWeights, STEPS, TOLERANCE } from './tolerance.js'

const NOISE = 8
const file = await fixture('tutorials/gan')

const makeGenerator = (): Sequential =>
  new Sequential(
    new ConvTranspose2d(NOISE, 16, 4, { stride: 1, padding: 0, bias: false }),
    new BatchNorm2d(16),
    new ReLU(),
    new ConvTranspose2d(16, 8, 4, { stride: 2, padding: 1, bias: false }),
    new BatchNorm2d(8),
    new ReLU(),
    new ConvTranspose2d(8, 1, 4, { stride: 2, padding: 1, bias: false }),
    new Tanh(),
  )

const makeDiscriminator = (): Sequential =>
  new Sequential(
    new Conv2d(1, 8, 4, { stride: 2, padding: 1, bias: false }),
    new LeakyReLU(0.2),
    new Conv2d(8, 16, 4, { stride: 2, padding: 1, bias: false }),
    new BatchNorm2d(16),
    new LeakyReLU(0.2),
    new Conv2d(16, 1, 4, { stride: 1, padding: 0, bias: false }),
    new Sigmoid(),
  )

function initializeWeights(module: Module): void {
  if (module instanceof Conv2d || module instanceof ConvTranspose2d) init.normal_(module.weight, 0, 0.02)
  else if (module instanceof BatchNorm2d) {
    init.normal_(module.weight!, 1, 0.02)
    init.constant_(module.bias!, 0)
  }
}

/** Eight images [1, 16, 16] of waves in [-1, 1]. */
const images = (): Tensor =>
  scope(() => {
    const pixels = arange(16, { dtype: 'float64' })
    const frequency = arange(1, 9, { dtype: 'float64' }).div(8).view([8, 1, 1, 1])
    const rows = pixels.view([1, 1, 16, 1]).mul(frequency).sin()
    const columns = pixels.view([1, 1, 1, 16]).mul(frequency).cos()
    return rows.mul(columns).float()
  })

it('a generative adversarial network', async () => {
  manualSeed(3)
  const generator = makeGenerator()
  const discriminator = makeDiscriminator()
  generator.apply(initializeWeights)
  discriminator.apply(initializeWeights)
  const networks = { generator, discriminator }
  for (const [name, network] of Object.entries(networks)) {
    const start = tensorsOf(file, name, 'start')
    expectWeights(network.stateDict(), start, 1e-6)
    network.loadStateDict(start)
  }

  const criterion = new BCELoss()
  const discriminatorOptimizer = new Adam(discriminator.parameters(), { lr: 2e-3, betas: [0.5, 0.999] })
  const generatorOptimizer = new Adam(generator.parameters(), { lr: 2e-3, betas: [0.5, 0.999] })
  const real = images()
  const found: Record<keyof typeof networks, number[]> = { generator: [], discriminator: [] }
  manualSeed(4)
  for (let step = 0; step < STEPS; step += 1) {
    await scope(async () => {
      discriminator.zeroGrad()
      const label = full([8], 1, { dtype: 'float32' })
      const realLoss = criterion.forward(discriminator.forward(real).view([-1]), label)
      await realLoss.backward()
      const fake = generator.forward(randn([8, NOISE, 1, 1]))
      label.fill_(0)
      const fakeLoss = criterion.forward(discriminator.forward(fake.detach()).view([-1]), label)
      await fakeLoss.backward()
      await discriminatorOptimizer.step()

      generator.zeroGrad()
      label.fill_(1)
      const generatorLoss = criterion.forward(discriminator.forward(fake).view([-1]), label)
      await generatorLoss.backward()
      await generatorOptimizer.step()
      found.discriminator.push(realLoss.add(fakeLoss).item())
      found.generator.push(generatorLoss.item())
    })
  }
  const losses = tensorsOf(file, 'losses', 'out')
  for (const [name, network] of Object.entries(networks)) {
    expectClose(tensor(found[name as keyof typeof networks]), losses[name]!, TOLERANCE, name)
    expectWeights(network.stateDict(), tensorsOf(file, name, 'out'))
  }
  expect(found.discriminator.at(-1)).toBeLessThan(found.discriminator[0]!)
})
