// Ways in which threads and processes end, each run in a process of its own by endings.slow.test.ts:
//   node scenarios.mjs <name>
// Workers run the same file. A scenario that ends well prints 'ok' and nothing else, and exits with code 0.
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import {
  AutogradFunction,
  autograd,
  DecoderLM,
  emptyCache,
  eye,
  memoryStats,
  ones,
  ops,
  scope,
  setNumThreads,
  tensor,
  zeros,
} from '../../dist/index.js'

const check = (condition, what) => {
  if (!condition) throw new Error(`not so: ${what}`)
}
const ok = () => console.log('ok')
const tick = () => new Promise((resolve) => setImmediate(resolve))
const spin = () => {
  for (;;);
}
const said = (worker) => new Promise((resolve) => worker.once('message', resolve))
const exited = (worker) => new Promise((resolve) => worker.once('exit', resolve))
const leaf = () => ones([2], { requiresGrad: true })

/** A job of a second or more. */
const long = () => ops.async.linalgMatrixPower(eye(900), 400)

/** More tokens than anyone waits for. */
const generates = () =>
  DecoderLM.fromConfig({
    vocabSize: 500,
    hiddenSize: 64,
    numHiddenLayers: 4,
    numAttentionHeads: 4,
    intermediateSize: 128,
    maxPositionEmbeddings: 1e6,
  }).stream({ inputIds: tensor([[1, 2, 3]]) }, { maxNewTokens: 1e5 })

/** A forward pass of a network, one of whose layers has a hook. */
function hooked(hook) {
  const network = DecoderLM.fromConfig({
    vocabSize: 20,
    hiddenSize: 8,
    numHiddenLayers: 2,
    numAttentionHeads: 2,
    intermediateSize: 12,
  })
  network.get('model.layers.0').registerForwardHook(hook)
  return network.forward({ inputIds: tensor([[1, 2, 3]]) })
}

function start(name) {
  const worker = new Worker(new URL(import.meta.url), { workerData: name })
  worker.on('error', (error) => {
    throw error
  })
  return worker
}

/** A function whose backward says that it runs, and then does `then`. */
function withBackward(then) {
  return class extends AutogradFunction {
    static forward(_, x) {
      return x.mul(2)
    }
    static backward(_, gradient) {
      parentPort?.postMessage('in backward')
      then()
      return gradient
    }
  }
}

// What the worker thread does.
const inWorker = {
  async computes() {
    for (let round = 0; round < 20; round += 1) {
      await scope(async () => {
        const x = leaf()
        await x.mul(x).sum().backward()
        check(x.grad.sum().item() === 4, 'gradient')
        const y = await ops.async.matmul(ones([64, 64]), ones([64, 64]))
        check(y.at(3, 3).item() === 64, 'product')
        const remove = x.registerHook((gradient) => gradient.mul(3))
        await x.sum().backward()
        remove()
        check(x.grad.sum().item() === 10, 'hooked gradient')
      })
      check(memoryStats().liveTensors === 0, 'own slab')
    }
    parentPort.postMessage('done')
  },
  async 'queues a long job'() {
    void long()
    void long()
    parentPort.postMessage('queued')
    await long()
  },
  async 'waits in backward'() {
    await withBackward(spin).apply(leaf()).sum().backward()
  },
  async 'never answers backward'() {
    void withBackward(() => {})
      .apply(leaf())
      .sum()
      .backward()
    parentPort.postMessage('queued')
    spin()
  },
  async 'waits in forward'() {
    class Stuck extends AutogradFunction {
      static forward() {
        parentPort.postMessage('in forward')
        spin()
      }
    }
    Stuck.apply(leaf())
  },
  async 'waits in a hook'() {
    const x = leaf()
    x.registerHook(() => {
      parentPort.postMessage('in a hook')
      spin()
    })
    await x.sum().backward()
  },
  async 'waits in a hook of a block'() {
    await hooked(() => {
      parentPort.postMessage('in a hook')
      spin()
    })
  },
  async 'waits in a nested backward'() {
    const Inner = withBackward(spin)
    class Outer extends AutogradFunction {
      static forward(ctx, x) {
        ctx.saveForBackward(x)
        return x.mul(x)
      }
      static backward(ctx, gradient) {
        return Inner.apply(ctx.savedTensors[0]).mul(gradient)
      }
    }
    const x = leaf()
    const [first] = await autograd.grad(Outer.apply(x).sum(), x, { createGraph: true })
    await first.sum().backward()
  },
  async 'has many tensors and functions'() {
    const Silent = withBackward(() => {})
    globalThis.kept = Array.from({ length: 1000 }, () => {
      const y = Silent.apply(leaf())
      y.registerHook(() => {})
      return y
    })
    parentPort.postMessage('made')
    await new Promise(() => setInterval(() => {}, 1000))
  },
  async 'holds memory'() {
    globalThis.kept = ones([256, 2 ** 18])
    parentPort.postMessage('holding')
    await said(parentPort)
  },
  async generates() {
    for await (const { step } of generates()) if (step === 20) parentPort.postMessage('under way')
  },
  async 'waits between tokens'() {
    for await (const { step } of generates()) {
      if (step < 20) continue
      parentPort.postMessage('under way')
      spin()
    }
  },
  async 'exits in backward'() {
    await withBackward(() => process.exit(0))
      .apply(leaf())
      .sum()
      .backward()
  },
  async 'exits with a job queued'() {
    void long()
    process.exit(0)
  },
  async 'throws with a job queued'() {
    void long()
    throw new Error('thrown in a worker')
  },
  async 'answers with a tensor'() {
    try {
      parentPort.postMessage({ tensor: ones([2]) })
    } catch (error) {
      parentPort.postMessage({ name: error.name, message: error.message })
    }
  },
}

/** Starts a worker, ends it once it has said something, and uses the executor afterwards. */
async function terminated(name, times = 3) {
  for (let i = 0; i < times; i += 1) {
    const worker = start(name)
    const exit = exited(worker)
    await said(worker)
    await worker.terminate()
    await exit
    const sum = await ops.async.sum(ones([3]))
    check(sum.item() === 3, 'the executor goes on')
    sum.dispose()
  }
  ok()
}

const scenarios = {
  async 'threads that cannot be made'() {
    setNumThreads(4)
    await ops.async.exp(ones([1 << 22]))
  },

  async 'several workers at once'() {
    const workers = [1, 2, 3].map(() => start('computes'))
    const all = Promise.all(workers.map((worker) => Promise.all([said(worker), exited(worker)])))
    const kept = ones([10])
    for (let i = 0; i < 20; i += 1) {
      const y = await ops.async.add(kept, i)
      check(y.sum().item() === 10 + 10 * i, 'the main thread’s own sum')
      y.dispose()
    }
    for (const [message, code] of await all) check(message === 'done' && code === 0, 'a worker’s end')
    check(kept.sum().item() === 10, 'the main thread’s tensor')
    ok()
  },
  'terminated with jobs queued': () => terminated('queues a long job'),
  'terminated in backward': () => terminated('waits in backward'),
  'terminated while backward waits for it': () => terminated('never answers backward'),
  'terminated in forward': () => terminated('waits in forward'),
  'terminated in a hook': () => terminated('waits in a hook'),
  'terminated in a hook of a block': () => terminated('waits in a hook of a block'),
  'terminated in a nested backward': () => terminated('waits in a nested backward'),
  'terminated with tensors and functions alive': () => terminated('has many tensors and functions'),
  async 'terminated while it generates'() {
    await terminated('generates')
    check(memoryStats().kvCacheBytes === 0, 'its cache is freed')
  },
  async 'terminated between two tokens'() {
    await terminated('waits between tokens')
    check(memoryStats().kvCacheBytes === 0, 'its cache is freed')
  },
  async 'the process exits while it generates'() {
    for await (const { step } of generates()) {
      if (step < 20) continue
      ok()
      process.exit(0)
    }
  },
  async 'the process exits in a hook of a block'() {
    await hooked(() => {
      ok()
      process.exit(0)
    })
  },
  async 'terminated while it starts'() {
    for (let i = 0; i < 12; i += 1) {
      const worker = start('computes')
      const exit = exited(worker)
      for (let turn = 0; turn < i * 40; turn += 1) await tick()
      await worker.terminate()
      await exit
    }
    ok()
  },
  async 'a job of the main thread survives a worker’s end'() {
    const job = long()
    const worker = start('queues a long job')
    await said(worker)
    await worker.terminate()
    const result = await job
    check(result.at(5, 5).item() === 1, 'the result')
    ok()
  },
  async 'backward of the main thread while workers come and go'() {
    const Silent = withBackward(() => {})
    for (let i = 0; i < 5; i += 1) {
      const worker = start('computes')
      const exit = exited(worker)
      const x = leaf()
      await Silent.apply(x).sum().backward()
      check(x.grad.sum().item() === 2, 'gradient')
      await worker.terminate()
      await exit
    }
    ok()
  },
  async 'a worker’s memory is freed'() {
    const before = process.memoryUsage().rss
    const worker = start('holds memory')
    const exit = exited(worker)
    await said(worker)
    check(process.memoryUsage().rss - before > 200 * 2 ** 20, 'memory was taken')
    worker.postMessage('go')
    await worker.terminate()
    await exit
    emptyCache()
    check(process.memoryUsage().rss - before < 150 * 2 ** 20, 'memory was given back')
    ok()
  },
  async 'a worker exits in its backward'() {
    check((await exited(start('exits in backward'))) === 0, 'exit code')
    ok()
  },
  async 'a worker exits with a job queued'() {
    check((await exited(start('exits with a job queued'))) === 0, 'exit code')
    ok()
  },
  async 'a worker throws with a job queued'() {
    const worker = new Worker(new URL(import.meta.url), { workerData: 'throws with a job queued' })
    const error = new Promise((resolve) => worker.once('error', resolve))
    const code = await exited(worker)
    check((await error).message === 'thrown in a worker' && code === 1, 'the error')
    ok()
  },
  async 'a tensor cannot travel'() {
    const { name, message } = await said(start('answers with a tensor'))
    check(name === 'DataCloneError', `refused where it is sent, got ${name}: ${message}`)
    ok()
  },
  async 'exit with a job queued'() {
    void long()
    void long()
    await tick()
    ok()
    process.exit(0)
  },
  async 'exit with many jobs queued'() {
    const x = zeros([10])
    for (let i = 0; i < 5000; i += 1) void ops.async.add(x, i)
    ok()
    process.exit(0)
  },
  async 'exit in backward'() {
    const Silent = withBackward(() => {
      ok()
      process.exit(0)
    })
    await Silent.apply(leaf()).sum().backward()
  },
  async 'exit in a hook'() {
    const x = leaf()
    x.registerHook(() => {
      ok()
      process.exit(0)
    })
    await x.sum().backward()
  },
  async 'exit in forward'() {
    class Exits extends AutogradFunction {
      static forward() {
        ok()
        process.exit(0)
      }
    }
    Exits.apply(leaf())
  },
  async 'exit while backward waits for an answer'() {
    void withBackward(() => {})
      .apply(leaf())
      .sum()
      .backward()
    // The executor has asked by the end of this wait, and nobody has answered.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300)
    ok()
    process.exit(0)
  },
  async 'exit with workers at work'() {
    const workers = ['queues a long job', 'waits in backward'].map(start)
    await Promise.all(workers.map(said))
    ok()
    process.exit(0)
  },
  async 'exit with hooks, functions and tensors alive'() {
    const Silent = withBackward(() => {})
    globalThis.kept = Array.from({ length: 1000 }, () => {
      const y = Silent.apply(leaf())
      y.registerHook(() => {})
      return y
    })
    ok()
    process.exit(0)
  },
  async 'exit from an exit listener'() {
    process.on('exit', () => {
      const x = ones([2])
      check(x.add(1).sum().item() === 4, 'operators in an exit listener')
      ok()
    })
    void long()
    process.exit(0)
  },
  async 'an uncaught exception with a job queued'() {
    void long()
    await tick()
    throw new Error('uncaught, on purpose')
  },
  async 'an unhandled rejection of a job'() {
    void ops.async.matmul(ones([2, 3]), ones([2, 3]))
    await tick()
  },
  async 'functions nested without end'() {
    const depth = { now: 0, max: 0 }
    class Nested extends AutogradFunction {
      static forward(_, x) {
        depth.now += 1
        depth.max = Math.max(depth.max, depth.now)
        return Nested.apply(x)
      }
      static backward(_, gradient) {
        return gradient
      }
    }
    await ones([1])
      .backward()
      .catch(() => {})
    let error
    try {
      Nested.apply(leaf())
    } catch (caught) {
      error = caught
    }
    check(error instanceof Error && depth.max > 20, 'an error, and not too soon')
    check(ones([2]).add(1).sum().item() === 4, 'operators go on')
    ok()
  },
  async 'jobs keep the process alive until they are done'() {
    void long().then((result) => {
      check(result.at(5, 5).item() === 1, 'the result')
      ok()
    })
  },
  async 'nothing keeps the process alive when there is nothing to do'() {
    await ops.async.add(ones([2]), 1)
    const x = leaf()
    x.registerHook(() => {})
    await x.sum().backward()
    ok()
  },
  async 'warnings and errors print nothing of their own'() {
    process.removeAllListeners('warning')
    process.on('warning', () => {})
    ops.add(ones([3]), 1, { out: zeros([2]) })
    await ops.async.add(ones([3]), 1, { out: zeros([2]) })
    await ops.async.matmul(ones([2, 3]), ones([2, 3])).catch(() => {})
    try {
      ones([2]).add(ones([3]))
    } catch {}
    await tick()
    ok()
  },
}

if (isMainThread) await scenarios[process.argv[2]]()
else await inWorker[workerData]()
