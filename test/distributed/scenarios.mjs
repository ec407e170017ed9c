// What one of two processes does in the tests beside this file: node scenarios.mjs [--timeout MS] NAME… runs these one after
// another in one process group. Each prints lines of JSON; where there are several, its name comes before them.
import { parseArgs } from 'node:util'
import {
  AdamW,
  allGather,
  allGatherObject,
  allReduce,
  BatchNorm1d,
  BatchNorm2d,
  barrier,
  broadcast,
  clipGradNorm,
  DataLoader,
  DistributedDataParallel,
  DistributedSampler,
  destroyProcessGroup,
  functional,
  getRank,
  getWorldSize,
  initProcessGroup,
  isMainProcess,
  Linear,
  Module,
  manualSeed,
  memoryStats,
  noGrad,
  Roberta,
  randn,
  reduceMetrics,
  Sequential,
  SyncBatchNorm,
  scope,
  Tanh,
  tensor,
  ZeroRedundancyOptimizer,
  zeros,
} from '../../dist/index.js'

const print = (value) => console.log(JSON.stringify(value))
const flat = (value) => [value.toArray()].flat(Number.POSITIVE_INFINITY).map(Number)
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** max|a-b| / max|b| over each pair, the largest. */
function distance(actual, expected) {
  let worst = 0
  for (const [i, a] of actual.entries()) {
    const [left, right] = [flat(a), flat(expected[i])]
    const scale = Math.max(...right.map(Math.abs))
    const difference = Math.max(...right.map((value, j) => Math.abs(value - left[j])))
    worst = Math.max(worst, scale === 0 ? difference : difference / scale)
  }
  return worst
}

class Net extends Module {
  first = new Linear(12, 40)
  middle = new Linear(40, 30)
  spare = new Linear(12, 3)
  out = new Linear(30, 3)

  forward(x, useSpare = false) {
    return scope(() => {
      const y = this.out.forward(this.middle.forward(this.first.forward(x).relu()).tanh())
      return useSpare ? y.add(this.spare.forward(x)) : y
    })
  }
}

const BATCH = 16

/** The same inputs and labels on every rank, and this rank's half. */
function batch(step) {
  manualSeed(1000 + step)
  const inputs = randn([BATCH, 12])
  const labels = tensor(
    Array.from({ length: BATCH }, (_, i) => (i * 7 + step) % 3),
    { dtype: 'int64' },
  )
  const half = BATCH / getWorldSize()
  const part = (value, from = getRank() * half, to = from + half) => value.slice(0, from, to)
  return { inputs, labels, part, half }
}

function makeModels() {
  // Different weights on each rank, which construction has to make equal.
  manualSeed(7 + getRank())
  const model = new Net()
  manualSeed(7)
  const alone = new Net()
  return { model, alone }
}

const gradients = (module) => module.parameters().map((parameter) => parameter.grad ?? zeros(parameter.shape))

/** Trains a step on the whole batch in one process, and returns its gradients. */
async function aloneStep(alone, inputs, labels, spare) {
  alone.zeroGrad()
  await functional.crossEntropy(alone.forward(inputs, spare), labels).backward()
  return gradients(alone)
}

const scenarios = {
  /** Batches of 3 and 5 images: the same as one process with all 8. */
  async 'synchronized batch norm'() {
    manualSeed(1)
    const images = randn([8, 3, 4, 4])
    const weights = randn([8, 3, 4, 4])
    const plain = () =>
      new Sequential(
        new BatchNorm2d(3),
        new Tanh(),
        new Sequential(new BatchNorm2d(3, { affine: false, momentum: null })),
      )
    const whole = plain()
    const model = SyncBatchNorm.convertSyncBatchnorm(plain())
    noGrad(() => {
      for (const one of [whole, model]) one.at(0).weight.copy_(tensor([0.5, 2, -1]))
    })
    const [start, size] = getRank() === 0 ? [0, 3] : [3, 5]
    const full = images.clone().requiresGrad_(true)
    const part = images.narrow(0, start, size).clone().requiresGrad_(true)
    const sharesParameters = model.parameters()[0] === model.at(0).weight
    let worst = {}
    for (let step = 0; step < 2; step++) {
      const [expected, output] = [whole.forward(full), model.forward(part)]
      full.grad = null
      part.grad = null
      whole.zeroGrad()
      model.zeroGrad()
      await expected.sin().mul(weights).sum().backward()
      await output
        .sin()
        .mul(weights.narrow(0, start, size))
        .sum()
        .backward()
      const gradients = model.parameters().map((parameter) => parameter.grad)
      await allReduce(gradients)
      worst = {
        output: distance([output], [expected.narrow(0, start, size)]),
        input: distance([part.grad], [full.grad.narrow(0, start, size)]),
        parameters: distance(
          gradients,
          whole.parameters().map((parameter) => parameter.grad),
        ),
        buffers: distance(
          model.namedBuffers().map(([, one]) => one),
          whole.namedBuffers().map(([, one]) => one),
        ),
      }
    }
    const evaluated = distance([model.eval().forward(part)], [whole.eval().forward(full).narrow(0, start, size)])
    print({
      worst: { ...worst, evaluated },
      classes: model.modules().map((one) => one.constructor.name),
      sharesParameters,
    })
  },

  async collectives() {
    const mine = tensor([1 + getRank(), 2], { dtype: 'float32' })
    await allReduce(mine)
    const results = { sum: flat(mine) }
    for (const op of ['mean', 'min', 'max', 'product']) {
      const value = tensor([1 + getRank(), -getRank()], { dtype: 'float32' })
      await allReduce([value], { op })
      results[op] = flat(value)
    }
    for (const dtype of ['float16', 'bfloat16', 'float64', 'int64', 'int32', 'int8', 'uint8']) {
      const value = tensor([1, 2, 3], { dtype })
      await allReduce(value)
      results[dtype] = flat(value)
    }
    const column = zeros([3, 2])
    column.select(1, 1).fill_(1 + getRank())
    const view = column.select(1, 1)
    await allReduce(view)
    results.strided = flat(column)
    const truth = tensor([getRank() === 1, true, false], { dtype: 'bool' })
    const number = tensor(getRank() + 0.5, { dtype: 'float64' })
    await broadcast([truth, number], 1)
    results.broadcast = [...flat(truth), ...flat(number)]
    results.gathered = (await allGather(tensor([[getRank(), 5]]))).map(flat)
    results.objects = await allGatherObject({ rank: getRank(), text: 'ä'.repeat(getRank()) })
    results.metrics = await reduceMetrics({ loss: getRank(), wer: getRank() ? 3 : Number.NaN }, { weight: getRank() })
    results.main = isMainProcess()
    print(results)
    const errors = []
    for (const wrong of [
      () => allReduce(zeros([getRank() + 2])),
      () => (getRank() === 0 ? barrier() : allGather(zeros([1]))),
      () => allReduce(tensor([true])),
      () => allReduce(tensor([1], { dtype: 'int64' }), { op: 'mean' }),
      () => reduceMetrics({ [`rank${getRank()}`]: 1 }),
      () => broadcast(zeros([1]), 2),
    ]) {
      errors.push(await wrong().then(String, (error) => `${error.name}: ${error.message}`))
    }
    print(errors)
    const before = memoryStats().liveTensors
    await scope(async () => {
      await allReduce(zeros([4]))
      await allGatherObject('x')
      await broadcast(zeros([2]))
      await barrier()
    })
    print({ left: memoryStats().liveTensors - before })
  },

  async 'the event loop stays free'() {
    let ticks = 0
    const timer = setInterval(() => {
      ticks++
    }, 10)
    if (getRank() === 1) await sleep(600)
    await barrier()
    clearInterval(timer)
    print({ ticks })
  },

  async gradients() {
    const { model, alone } = makeModels()
    const ddp = new DistributedDataParallel(model, { bucketCapMb: 0.002, findUnusedParameters: true })
    const worst = {}
    const unused = []
    for (let step = 0; step < 4; step++) {
      const { inputs, labels, part } = batch(step)
      // The spare layer serves in odd steps only, and there on rank 0 only.
      const spare = step % 2 === 1 && getRank() === 0
      ddp.zeroGrad()
      const loss = functional.crossEntropy(await ddp.forward(part(inputs), spare), part(labels))
      await loss.backward()
      if (step % 2 === 0) {
        const expected = await aloneStep(alone, inputs, labels, false)
        worst[`step ${step}`] = distance(gradients(model), expected)
        unused.push(model.spare.weight.grad === null || Math.max(...flat(model.spare.weight.grad)) === 0)
      }
      const [mine, other] = await allGather(model.spare.weight.grad ?? zeros([3, 12]))
      worst[`ranks ${step}`] = distance([mine], [other])
      if (step % 2 === 1) unused.push(Math.max(...flat(mine).map(Math.abs)) > 1e-4)
    }
    print({ worst, unused })
    ddp.dispose()
  },

  async 'gradients with buckets of many sizes'() {
    const worst = {}
    for (const bucketCapMb of [0.001, 0.003, 25]) {
      const { model, alone } = makeModels()
      model.spare.freeze()
      const ddp = new DistributedDataParallel(model, { bucketCapMb })
      // The order of the buckets changes after the first step.
      for (let step = 0; step < 3; step++) {
        const { inputs, labels, part } = batch(step)
        ddp.zeroGrad()
        await functional.crossEntropy(await ddp.forward(part(inputs)), part(labels)).backward()
        const expected = await aloneStep(alone, inputs, labels, false)
        worst[`${bucketCapMb} ${step}`] = distance(gradients(model), expected)
      }
      ddp.dispose()
    }
    print({ worst })
  },

  async accumulation() {
    const { model, alone } = makeModels()
    model.spare.freeze()
    const ddp = new DistributedDataParallel(model, { bucketCapMb: 0.002 })
    const worst = {}
    const local = []
    for (let step = 0; step < 3; step++) {
      const { inputs, labels, part, half } = batch(step)
      ddp.zeroGrad()
      const from = getRank() * half
      const quarter = async (a, b) => {
        const loss = functional.crossEntropy(await ddp.forward(part(inputs, a, b)), part(labels, a, b))
        await loss.div(2).backward()
      }
      await ddp.noSync(() => quarter(from, from + half / 2))
      const [mine, other] = await allGather(model.out.weight.grad)
      local.push(distance([mine], [other]) > 0.01)
      await quarter(from + half / 2, from + half)
      const expected = await aloneStep(alone, inputs, labels, false)
      worst[`step ${step}`] = distance(gradients(model), expected)
    }
    print({ worst, local })
    ddp.dispose()
  },

  async 'a training run'() {
    const { model, alone } = makeModels()
    model.spare.freeze()
    alone.spare.freeze()
    const ddp = new DistributedDataParallel(model)
    await ddp.ready()
    const options = { lr: 0.01, weightDecay: 0.1 }
    const optimizer = new AdamW(
      ddp.parameters().filter((p) => p.requiresGrad),
      options,
    )
    const reference = new AdamW(
      alone.parameters().filter((p) => p.requiresGrad),
      options,
    )
    let norms = 0
    for (let step = 0; step < 5; step++) {
      await scope(async () => {
        const { inputs, labels, part } = batch(step)
        ddp.zeroGrad()
        await functional.crossEntropy(await ddp.forward(part(inputs)), part(labels)).backward()
        const norm = await clipGradNorm(ddp.parameters(), 0.5)
        await optimizer.step()
        await aloneStep(alone, inputs, labels, false)
        const expected = await clipGradNorm(alone.parameters(), 0.5)
        norms = Math.max(norms, Math.abs(Number(norm) - Number(expected)) / Number(expected))
        await reference.step()
      })
    }
    const before = memoryStats().liveTensors
    await scope(async () => {
      const { inputs, labels, part } = batch(9)
      ddp.zeroGrad()
      await functional.crossEntropy(await ddp.forward(part(inputs)), part(labels)).backward()
      ddp.zeroGrad()
    })
    print({
      weights: distance(model.parameters(), alone.parameters()),
      norms,
      left: memoryStats().liveTensors - before,
    })
    ddp.dispose()
  },

  async 'a native network'() {
    const config = {
      vocabSize: 50,
      hiddenSize: 16,
      numHiddenLayers: 2,
      numAttentionHeads: 2,
      intermediateSize: 32,
      maxPositionEmbeddings: 40,
      hiddenDropoutProb: 0,
      attentionProbsDropoutProb: 0,
    }
    manualSeed(3 + getRank())
    const model = Roberta.fromConfig(config)
    manualSeed(3)
    const alone = Roberta.fromConfig(config)
    const ddp = new DistributedDataParallel(model, { findUnusedParameters: true, bucketCapMb: 0.01 })
    const ids = tensor(
      Array.from({ length: 4 }, (_, i) => Array.from({ length: 6 }, (_, j) => 3 + ((i * 11 + j * 5) % 40))),
      { dtype: 'int64' },
    )
    const worst = []
    for (let step = 0; step < 2; step++) {
      ddp.zeroGrad()
      alone.zeroGrad()
      const { lastHiddenState } = await ddp.forward({ inputIds: ids.slice(0, getRank() * 2, getRank() * 2 + 2) })
      await lastHiddenState.square().sin().mean().backward()
      const whole = await alone.forward({ inputIds: ids })
      await whole.lastHiddenState.square().sin().mean().backward()
      const used = alone.namedParameters().filter(([, p]) => p.grad && Math.max(...flat(p.grad).map(Math.abs)) > 1e-7)
      const mine = Object.fromEntries(model.namedParameters())
      worst.push(
        distance(
          used.map(([name]) => mine[name].grad),
          used.map(([, p]) => p.grad),
        ),
        used.length > 20,
      )
    }
    print({ worst })
  },

  async 'bfloat16 and float32 together'() {
    manualSeed(1)
    class Mixed extends Module {
      a = new Linear(4, 4).to({ dtype: 'bfloat16' })
      b = new Linear(4, 1)
      forward(x) {
        return this.b.forward(this.a.forward(x.to({ dtype: 'bfloat16' })).to({ dtype: 'float32' }))
      }
    }
    const ddp = new DistributedDataParallel(new Mixed())
    await (await ddp.forward(tensor([[1, 2, 3, 1 + getRank()]], { dtype: 'float32' }))).sum().backward()
    // The last column of d/dW of a is the last input times b's weights: its mean over the ranks is 1.5 times.
    const grad = flat(ddp.module.a.weight.grad)
    print({ dtype: ddp.module.a.weight.grad.dtype, ratio: grad[3] / grad[0] })
  },

  async buffers() {
    const model = new BatchNorm1d(2)
    const ddp = new DistributedDataParallel(model)
    for (let step = 0; step < 2; step++) {
      const inputs = tensor(
        [
          [1 + getRank(), 2],
          [3 * getRank(), 4],
          [0, 1],
        ],
        { dtype: 'float32' },
      )
      await (await ddp.forward(inputs)).square().sum().backward()
    }
    const own = flat(model.running_mean)
    await noGrad(() => ddp.forward(zeros([2, 2])))
    print({ own, inRank0: (await allGatherObject(own))[0] })
    const [a, b] = await allGather(model.running_mean)
    print({ differs: distance([a], [b]) })
  },

  async 'a parameter without gradient'() {
    const ddp = new DistributedDataParallel(new Net())
    const step = async () => functional.crossEntropy(await ddp.forward(zeros([2, 12])), tensor([0, 1])).backward()
    await step()
    print(
      await step().then(
        () => 'no error',
        ({ name, message, parameters }) => ({ name, message, parameters }),
      ),
    )
  },

  async 'models of other shapes'() {
    const ddp = new DistributedDataParallel(new Linear(3, 2 + getRank()))
    print(
      await ddp.ready().then(
        () => 'no error',
        ({ name, message }) => ({ name, message }),
      ),
    )
  },

  async zero() {
    const { model, alone } = makeModels()
    const ddp = new DistributedDataParallel(model, { findUnusedParameters: true })
    await ddp.ready()
    const groups = (module) => [
      { params: module.parameters().filter((p) => p.shape.length === 2) },
      { params: module.parameters().filter((p) => p.shape.length === 1), weightDecay: 0 },
    ]
    // The same model twice on each rank: the one trained with ZeRO, and its twin with the whole optimiser.
    alone.loadStateDict(model.stateDict())
    const make = (params) => new AdamW(params, { lr: 0.01, weightDecay: 0.1, amsgrad: true })
    let optimizer = new ZeroRedundancyOptimizer(groups(model), make)
    let reference = make(groups(alone))
    const equal = []
    for (let step = 0; step < 12; step++) {
      await scope(async () => {
        const { inputs, labels, part } = batch(step)
        for (const one of [...optimizer.groups, ...reference.groups]) one.lr = 0.01 / (step + 1)
        ddp.zeroGrad()
        await functional.crossEntropy(await ddp.forward(part(inputs), true), part(labels)).backward()
        const theirs = alone.parameters()
        for (const [i, p] of model.parameters().entries()) theirs[i].grad = p.grad.clone()
        await optimizer.step()
        await reference.step()
      })
      equal.push(
        model.parameters().every((p, i) => JSON.stringify(flat(p)) === JSON.stringify(flat(alone.parameters()[i]))),
      )
      if (step === 5) {
        // Over a consolidated state: the plain optimiser gets ZeRO's, and ZeRO the plain one's.
        const state = await optimizer.consolidateStateDict()
        const other = reference.stateDict()
        const same =
          JSON.stringify(Object.keys(state.state)) === JSON.stringify(Object.keys(other.state)) &&
          JSON.stringify(state.param_groups) === JSON.stringify(other.param_groups) &&
          Object.entries(state.state).every(([number, one]) =>
            Object.entries(one).every(
              ([key, value]) => JSON.stringify(flat(value)) === JSON.stringify(flat(other.state[number][key])),
            ),
          )
        const fresh = new ZeroRedundancyOptimizer(groups(model), make)
        fresh.loadStateDict(other)
        const plain = make(groups(alone))
        plain.loadStateDict(state)
        optimizer.dispose()
        reference.dispose()
        optimizer = fresh
        reference = plain
        print({
          same,
          owners: optimizer.owners.length,
          shares: [0, 1].map((r) => optimizer.owners.filter((o) => o === r).length),
        })
      }
    }
    const only = await optimizer.consolidateStateDict({ to: 0 })
    const before = memoryStats().liveTensors
    optimizer.dispose()
    print({
      equal,
      only: only === null ? null : Object.keys(only.state).length,
      held: before - memoryStats().liveTensors,
    })
  },

  async 'a sampler in a loader'() {
    const data = { length: 11, get: (i) => i }
    const sampler = new DistributedSampler(data.length, { seed: 4 })
    const loader = new DataLoader(data, { batchSize: 2, sampler, collate: (items) => items })
    const epochs = []
    for (let epoch = 0; epoch < 2; epoch++) {
      const seen = []
      for await (const items of loader) seen.push(...items)
      epochs.push(seen)
    }
    print({ rank: getRank(), epochs, batches: loader.length })
  },

  async 'a rank dies in a collective'() {
    if (getRank() === 1) {
      await sleep(300)
      process.kill(process.pid, 'SIGKILL')
    }
    await failing(() => barrier())
  },

  async 'a rank dies in backward'() {
    const ddp = new DistributedDataParallel(new Linear(4, 4))
    const output = await ddp.forward(zeros([1, 4]))
    if (getRank() === 1) process.kill(process.pid, 'SIGKILL')
    await failing(() => output.sum().backward())
  },

  async 'a rank hangs'() {
    if (getRank() === 1) process.kill(process.pid, 'SIGSTOP')
    await failing(() => allReduce(zeros([3])))
  },

  async 'exit in a collective'() {
    if (getRank() === 1) await sleep(1e8)
    else setTimeout(() => process.exit(3), 200)
    await barrier()
  },

  async 'an error while a collective waits'() {
    if (getRank() === 1) await sleep(1e8)
    else
      setTimeout(() => {
        throw new Error('on purpose')
      }, 200)
    await barrier()
  },

  async 'end without destroying'() {
    await barrier()
    print('end')
    leaveOpen = true
  },

  async 'only rank 1 fails'() {
    if (getRank() === 1) throw new Error('rank 1 has a bug')
    await sleep(1e8)
  },

  async 'wait for a signal'() {
    process.on('SIGTERM', () => {
      print({ saved: getRank() })
      process.exit(0)
    })
    await barrier()
    print('ready')
    await sleep(1e8)
  },
}

async function failing(fn) {
  const started = performance.now()
  try {
    await fn()
    print('no error')
  } catch ({ name, code, message }) {
    print({ name, code, message, ms: Math.round(performance.now() - started) })
  }
}

/** Collect what earlier scenarios let go of, so that none counts their tensors. */
async function settle() {
  for (let last = Number.NaN; memoryStats().liveTensors !== last; ) {
    last = memoryStats().liveTensors
    globalThis.gc()
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve))
  }
}

let leaveOpen = false
const { values, positionals: names } = parseArgs({
  allowPositionals: true,
  options: { timeout: { type: 'string', default: '300000' } },
})
await initProcessGroup({ timeout: Number(values.timeout) })
for (const name of names) {
  if (names.length > 1) {
    await settle()
    print({ scenario: name })
  }
  await scenarios[name]()
}
if (!leaveOpen) await destroyProcessGroup()
