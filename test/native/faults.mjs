// Refuses the addon's calls of Node-API one after the other, and prints what became of each: `node faults.mjs loading|running`.
// A line is a JSON list: the function, which of its calls was refused, and 'worked', 'hung' or the error's class and sentence.
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'

const require = createRequire(import.meta.url)
const { arm, disarm, names } = require(process.env.VOXTORCH_FAULTS)
const dist = (name) => new URL(`../../dist/${name}.js`, import.meta.url).href
const { nativeInfo, loadNative } = await import(dist('native/load'))
const patience = Number(process.env.VOXTORCH_PATIENCE)

loadNative()
const { addon, search } = nativeInfo()
const path = join(addon.directory, 'voxtorch.node')
const loader = join(addon.directory, 'voxtorch_loader.node')

let uncaught = null
process.on('uncaughtException', (error) => {
  uncaught = error
})

const said = (error) => (error instanceof Error ? `${error.name}: ${error.message}` : `not an Error: ${String(error)}`)

async function outcome(work) {
  let timer
  const late = new Promise((resolve) => {
    timer = setTimeout(() => resolve('hung'), patience)
  })
  uncaught = null
  const ended = Promise.resolve().then(work)
  const result = await Promise.race([ended.then(() => 'worked', said), late])
  clearTimeout(timer)
  return uncaught === null || result !== 'worked' ? result : `uncaught ${said(uncaught)}`
}

/** Refuses every call in turn that `work` lets a library make of every function; at most `most` of each. */
async function refuseEach(library, work, most) {
  for (const name of [...new Set(names(library))].sort()) {
    for (let n = 0; n < most; n += 1) {
      arm(library, name, n)
      const result = await outcome(work)
      if (disarm() <= n) break // it was not reached
      console.log(JSON.stringify([name, n, result]))
      if (result === 'hung') break
    }
  }
}

const inThread = (code) =>
  new Promise((resolve, reject) => {
    const worker = new Worker(code, { eval: true })
    worker.on('error', reject)
    worker.on('exit', (status) => (status === 0 ? resolve() : reject(new Error(`code ${status}`))))
  })

/** What an import does with libtorch and with the addon. */
const openLibrary = () =>
  inThread(`require(${JSON.stringify(loader)}).open(${JSON.stringify(join(search.libtorch.home, 'lib/libc10.so'))})`)
const load = () =>
  inThread(
    `const addon = require(${JSON.stringify(path)})
     addon.setDispatchers(() => {}, () => 0, () => {})
     if (addon.callBuffer().byteLength === 0) throw new Error('an empty buffer')`,
  )

async function running() {
  const voxtorch = await import(dist('index'))
  const { op } = await import(dist('native/call'))
  const { AutogradFunction, ops, scope, tensor } = voxtorch
  const schemas = op('voxtorch::operator_schemas')
  class Double extends AutogradFunction {
    static forward(ctx, x) {
      ctx.saveForBackward(x)
      return x.mul(2)
    }
    static backward(_, gradient) {
      return gradient.mul(2)
    }
  }
  const big = Array.from({ length: 40_000 }, () => 1)
  /** By what they use of the addon. Each leaves nothing behind, whatever fails. */
  const uses = {
    operators: () =>
      scope(() => {
        const x = tensor([1, 2, 3])
        if (x.add(x).sum().item() !== 12) throw new Error('wrong sum')
        if (x.at(0).item() !== 1 || x.shape[0] !== 3) throw new Error('wrong element')
        if (ops.max(tensor([[1, 2]]), 1).values.item() !== 2) throw new Error('wrong maximum')
      }),
    errors: () =>
      scope(() => {
        const x = tensor([1, 2, 3])
        try {
          x.add(tensor([1, 2]))
        } catch (error) {
          if (error.name === 'ShapeError') return
          throw error
        }
        throw new Error('no error')
      }),
    jobs: () =>
      scope(async () => {
        const x = tensor([1, 2, 3])
        const sums = await Promise.all([ops.async.sum(x), ops.async.sum(x), x.data()])
        if (sums[0].item() !== 6 || Number(sums[2][2]) !== 3) throw new Error('wrong sum')
      }),
    'failing jobs': () =>
      scope(async () => {
        const results = await Promise.allSettled([ops.async.matmul(tensor([1, 2]), tensor([1, 2, 3]))])
        if (results[0].status !== 'rejected' || !(results[0].reason instanceof Error)) throw new Error('not rejected')
        if (results[0].reason.name === 'Error') throw results[0].reason
      }),
    gradients: () =>
      scope(async () => {
        const x = tensor([1, 2, 3], { requiresGrad: true })
        let seen = 0
        const y = Double.apply(x)
        y.registerHook(() => {
          seen += 1
        })
        await y.sum().backward()
        if (x.grad.sum().item() !== 6 || seen !== 1) throw new Error('wrong gradient')
      }),
    'large results': () => {
      if (schemas().length < 1000) throw new Error('too few')
    },
    'large arguments': () =>
      scope(() => {
        if (ops.cat(big.map(() => one)).numel() !== big.length) throw new Error('wrong size')
      }),
    'memory statistics': () => voxtorch.memoryStats(),
    warnings: () => scope(() => void ops.add(tensor([1, 2, 3]), 1, { out: tensor([1, 2]) })),
  }
  const one = tensor([1])
  process.on('warning', () => {})
  for (const [name, work] of Object.entries(uses)) {
    await work()
    await refuseEach(path, work, 12)
    // Whatever was refused, nothing is left of it.
    const after = await outcome(work)
    console.log(JSON.stringify([`afterwards: ${name}`, 0, after]))
  }
  for (let turn = 0; turn < 100 && voxtorch.memoryStats().queuedJobs > 0; turn += 1) {
    await new Promise((resolve) => setImmediate(resolve))
  }
  console.log(JSON.stringify(['jobs left', voxtorch.memoryStats().queuedJobs, 'worked']))
}

try {
  if (process.argv[2] === 'loading') {
    await refuseEach(loader, openLibrary, 4)
    await refuseEach(path, load, 4)
    console.log(JSON.stringify(['afterwards: loading', 0, await outcome(load)]))
  } else {
    await running()
  }
} catch (error) {
  console.error(error)
  process.exit(1) // 'uncaughtException' is heard above
}
