// Results and samplers that would fill V8's lists; the process must live.
import { DataLoader, keepAlive, scope, tensor } from 'voxtorch'

const outcome = async (name, work) => {
  const made = await Promise.resolve()
    .then(work)
    .then(
      (value) => String(value),
      (error) => `${error.name}: ${error.message}`,
    )
  console.log(JSON.stringify([name, made]))
}

await outcome('a list of holes', () => scope(() => new Array(2e8)).length)
await outcome('a list with a tensor behind holes', () => {
  const list = scope(() => {
    const made = new Array(2e8)
    made[1.9e8] = tensor([7])
    return made
  })
  return list[1.9e8].item()
})
await outcome('the same object again and again', () => scope(() => new Array(3e7).fill({ a: 1 })).length)
await outcome('keep', () => scope(() => keepAlive(new Array(2e8)).length))
await outcome('an endless sampler', async () => {
  const sampler = {
    *indices() {
      for (;;) yield 0
    },
  }
  for await (const _ of new DataLoader([1, 2, 3], { sampler })) break
})
await outcome('an endless batch', async () => {
  const batchSampler = {
    *batches() {
      yield (function* () {
        for (;;) yield 0
      })()
    },
  }
  for await (const _ of new DataLoader([1, 2, 3], { batchSampler })) break
})
