import { AdamW, functional, Linear, manualSeed, ReLU, randint, randn, Sequential, scope } from 'voxtorch'

/** The training step of training_step.py: forward, loss, backward, AdamW, gradients cleared; one scope frees what it made. */
export function makeTrainingStep() {
  manualSeed(0)
  const model = new Sequential(new Linear(64, 128), new ReLU(), new Linear(128, 10))
  const optimizer = new AdamW(model.parameters(), { lr: 1e-3 })
  const inputs = randn([64, 64])
  const targets = randint(0, 10, [64])

  return () =>
    scope(async () => {
      const loss = functional.crossEntropy(model.forward(inputs), targets)
      await loss.backward()
      await optimizer.step()
      optimizer.zeroGrad()
    })
}
