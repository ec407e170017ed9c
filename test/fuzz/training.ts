/** Right calls of what lib/train and lib/data write by hand. Files go into the child's own working directory. */
import { rmSync, writeFileSync } from 'node:fs'
import { isTensor, Tensor, zeros } from '../../lib/index.js'
import { makeZip } from '../files/zip-maker.js'
import { type Args, add, exported, type Loose, learnt, lib, many, of, options } from './define.js'
import { fixtureFiles } from './targets/target.js'
import { dense as f, indices, list, made, type Spec } from './values.js'

// ---- optimizers: constructed, one step, disposed

const rates: Record<string, Spec> = {
  AdamW: options({ lr: 0.1, betas: list([0.9, 0.99]), eps: 1e-8, weightDecay: 0.1, amsgrad: true, maximize: false }),
  Adam: options({ lr: 0.1, betas: list([0.9, 0.99]), weightDecay: 0.1 }),
  SGD: options({ lr: 0.1, momentum: 0.9, dampening: 0, weightDecay: 0.1, nesterov: true }),
}

const common = { lr: 0.1, weightDecay: 0.1, maximize: true }
Object.assign(rates, {
  Adagrad: options({ ...common, lrDecay: 0.1, eps: 1e-8 }),
  Lion: options({ ...common, betas: list([0.9, 0.99]) }),
  RMSprop: options({ ...common, alpha: 0.9, eps: 1e-8, momentum: 0.9, centered: true }),
  RAdam: options({ ...common, betas: list([0.9, 0.99]), eps: 1e-8, decoupledWeightDecay: true }),
  NAdam: options({ ...common, betas: list([0.9, 0.99]), eps: 1e-8, momentumDecay: 0.01 }),
  Adamax: options({ ...common, betas: list([0.9, 0.99]), eps: 1e-8 }),
  Adadelta: options({ ...common, rho: 0.9, eps: 1e-8 }),
  ASGD: options({ ...common, lambd: 1e-3, alpha: 0.7, t0: 2 }),
  Rprop: options({ lr: 0.1, etas: list([0.5, 1.2]), stepSizes: list([1e-6, 50]), maximize: false }),
  Adafactor: options({ ...common, beta2Decay: -0.8, eps: list([null, 1e-3]), d: 1 }),
  TransformersAdafactor: options({
    ...common,
    eps: list([1e-30, 1e-3]),
    clipThreshold: 1,
    beta1: 0.9,
    scaleParameter: true,
  }),
})

/** Gives every leaf a gradient and frees those again. */
async function withGradients(params: unknown, use: () => unknown): Promise<unknown> {
  const leaves: Loose[] = (Array.isArray(params) ? params : [params])
    .flatMap((it: Loose) => (it instanceof Tensor ? [it] : Array.isArray(it?.params) ? it.params : []))
    .filter((it: Loose) => it instanceof Tensor && !it.disposed && it.requiresGrad)
  lib.scope(() => {
    for (const leaf of leaves) if (leaf.isLeaf && /^b?float/.test(leaf.dtype)) leaf.grad = leaf.detach().clone()
  })
  return use()
}

for (const [name, settings] of Object.entries(rates)) {
  add(
    name,
    async (params, ...rest) => {
      const optimizer = new lib[name](params, ...rest)
      try {
        await withGradients(params, () => optimizer.step())
        optimizer.zeroGrad()
        return optimizer.stateDict().param_groups.length
      } finally {
        optimizer.dispose()
      }
    },
    of(many(learnt([2, 3]), learnt([3]))),
    of(many(learnt([2])), settings),
    of(many(options({ params: many(learnt([2])), lr: 0.5 }))),
  )
}
const withOptimizer =
  (use: (optimizer: Loose, ...args: Loose[]) => unknown) =>
  async (...args: Loose[]) => {
    const params = [zeros([2], { requiresGrad: true })]
    const optimizer = new lib.AdamW!(params)
    try {
      await withGradients(params, () => optimizer.step())
      return await use(optimizer, ...args)
    } finally {
      optimizer.zeroGrad()
      optimizer.dispose()
      for (const param of params) param.dispose()
    }
  }
add(
  'LBFGS',
  async (params, ...rest) => {
    const optimizer = new lib.LBFGS!(params, ...rest)
    try {
      await withGradients(params, () => optimizer.step(() => 1))
      optimizer.zeroGrad()
      return Object.keys(optimizer.stateDict().state).length
    } finally {
      optimizer.dispose()
    }
  },
  of(many(learnt([2, 3]), learnt([3]))),
  of(many(learnt([2])), options({ lr: 0.1, maxIter: 3, maxEval: 4, historySize: 2, lineSearchFn: 'strong_wolfe' })),
)

const state: Spec = options({
  state: options({ 0: options({ step: f([], 'ones'), exp_avg: f([2]), exp_avg_sq: f([2], 'unit') }) }),
  param_groups: many(options({ lr: 0.1, betas: list([0.9, 0.9]), params: list([0]) })),
})
add(
  'Optimizer.loadStateDict',
  withOptimizer((optimizer, it) => optimizer.loadStateDict(it)),
  of(state),
)
add(
  'Optimizer.addGroup',
  withOptimizer((optimizer, group) => optimizer.addGroup(group)),
  of(options({ params: many(learnt([2])), lr: 0.5 })),
)
add(
  'Optimizer.zeroGrad',
  withOptimizer((optimizer) => optimizer.zeroGrad()),
  of(),
)
add(
  'clipGradNorm',
  async (params, ...rest) => withGradients(params, () => lib.clipGradNorm(params, ...rest)),
  of(many(learnt([2, 3]), learnt([2])), 1),
  of(many(learnt([2])), 0.5, options({ normType: Number.POSITIVE_INFINITY, errorIfNonfinite: true })),
)
add(
  'clipGradValue',
  async (params, ...rest) => withGradients(params, () => lib.clipGradValue(params, ...rest)),
  of(many(learnt([2, 3]), learnt([2])), 0.1),
)

// ---- schedules

const warm = options({ numWarmupSteps: 2 })
const decay = options({ numWarmupSteps: 2, numTrainingSteps: 5 })
const cosine = options({ numWarmupSteps: 2, numTrainingSteps: 5, numCycles: 1.5 })
const groups = options({ groups: many(options({ lr: 0.1 }), options({ lr: 0.2 })) })
const constant = made('() => 0.5', () => () => 0.5)
const stepped = (scheduler: Loose): unknown => {
  scheduler.step()
  return [scheduler.lastLr, scheduler.stateDict()]
}
add(
  'LRScheduler',
  (...args) => stepped(new lib.LRScheduler!(...args)),
  of(groups, constant),
  of(groups, many(constant, constant)),
)
add(
  'LRScheduler.loadStateDict',
  (it) => {
    new lib.LRScheduler!({ groups: [{ lr: 0.1 }] }, () => 1).loadStateDict(it)
  },
  of(options({ base_lrs: list([0.1]), last_epoch: 3, _step_count: 4, _last_lr: list([0.1]) })),
)
for (const [name, rest] of [
  ['getConstantSchedule', []],
  ['getConstantScheduleWithWarmup', [warm]],
  ['getLinearScheduleWithWarmup', [decay]],
  ['getCosineScheduleWithWarmup', [cosine]],
] as [string, Args][]) {
  add(name, (...args) => stepped(lib[name](...args)), of(groups, ...rest))
}

// ---- metrics

const truth = list([0, 1, 2, 1])
const guess = list([0, 2, 2, 1])
exported('accuracy', of(truth, guess), of(['a', 'b'], ['a', 'a']), of(indices([4]), indices([4])))
for (const name of ['precision', 'recall', 'f1Score', 'precisionRecallF1']) {
  exported(
    name,
    of(truth, guess),
    of(truth, guess, options({ average: 'none', labels: list([2, 1]), zeroDivision: Number.NaN })),
    of(indices([4]), indices([4]), options({ average: 'micro' })),
  )
}
exported('unweightedAverageRecall', of(truth, guess), of(['a', 'b'], ['a', 'a']))
exported('confusionMatrix', of(truth, guess), of(truth, guess, options({ normalize: 'true', labels: list([0, 1]) })))

exported(
  'retrievalMetrics',
  of(f([3, 3])),
  of(f([2, 4]), options({ targets: list([3, 0]), at: list([1, 2]) })),
  of(many(list([1, 2]), list([2, 1]))),
)

// ---- progress, events

const stream = made('{ write() {} }', () => ({ write() {} }))
const terminal = made('{ write() {}, isTTY: true, columns: 40 }', () => ({ write() {}, isTTY: true, columns: 40 }))
const bar =
  (use: (bar: Loose, ...args: Loose[]) => void) =>
  (...args: Loose[]) => {
    const made = new lib.ProgressBar!({ total: 3, stream: { write() {}, isTTY: true, columns: 60 } })
    use(made, ...args)
    made.close()
  }
add(
  'ProgressBar',
  (...args) => {
    const made = new lib.ProgressBar!(
      args[0]?.stream?.write === undefined ? { ...args[0], stream: { write() {} } } : args[0],
    )
    made.tick(1)
    made.close()
  },
  of(options({ total: 3, label: 'epoch', stream, interval: 0, unit: 'batch' })),
  of(options({ stream: terminal })),
)
add(
  'ProgressBar.tick',
  bar((it, ...args) => it.tick(...args)),
  of(1, options({ loss: 0.5, note: 'x' })),
  of(),
)
add(
  'ProgressBar.print',
  bar((it, ...args) => it.print(...args)),
  of('text'),
)
const writer =
  (use: (writer: Loose, ...args: Loose[]) => void) =>
  (...args: Loose[]) => {
    const made = new lib.SummaryWriter!('events')
    try {
      use(made, ...args)
    } finally {
      made.close()
      rmSync('events', { recursive: true, force: true })
    }
  }
add(
  'SummaryWriter',
  (directory) => {
    const made = new lib.SummaryWriter!(directory)
    made.flush()
    made.close()
    rmSync(made.path, { force: true })
  },
  of('events'),
)
add(
  'SummaryWriter.addScalar',
  writer((it, ...args) => it.addScalar(...args)),
  of('train/loss', 0.5, 3),
)
add(
  'SummaryWriter.addText',
  writer((it, ...args) => it.addText(...args)),
  of('note', 'text', 0),
)
add(
  'SummaryWriter.addHistogram',
  writer((it, ...args) => it.addHistogram(...args)),
  of('weights', f([3, 4]), 0),
  of('weights', [1, 2, 3], 1),
)

// ---- data

const ints = made('new Int32Array([1, 2])', () => new Int32Array([1, 2]))
add(
  'padCollate',
  (fields, samples) => lib.padCollate(fields)(samples),
  of(
    options({ ids: options({ pad: 0, multipleOf: 4, side: 'left', mask: 'mask' }), label: options({}) }),
    many(options({ ids: list([1, 2]), label: 1 }), options({ ids: ints, label: 0 })),
  ),
  of(
    options({ x: options({ pad: 0.5, dtype: 'float32', elementShape: list([2]) }) }),
    many(options({ x: list([1, 2, 3, 4]) }), options({ x: list([1, 2]) })),
  ),
)
const collate = made('padCollate({ x: { pad: 0 } })', () => lib.padCollate({ x: { pad: 0 } }))
const samples = many(options({ x: list([1, 2]) }), options({ x: list([3]) }), options({ x: list([4, 5, 6]) }))
add(
  'DataLoader',
  async (dataset, ...rest) => {
    const loader = new lib.DataLoader!(dataset, ...rest)
    if (rest[0]?.sampler === undefined && loader.length > 100) return
    for await (const batch of loader) void batch
    await loader.close()
  },
  of(samples, options({ batchSize: 2, shuffle: true, seed: 3, dropLast: false, collate, prefetch: 1 })),
  of(samples, options({ batchSize: 2, lengthBuckets: options({ lengthOf: list([2, 1, 3]), bucketSize: 2 }) })),
  of(samples, options({ sampler: list([2, 0, 1]), freeBatches: true })),
)
add(
  'DataLoader.setEpoch',
  (epoch) => {
    const loader = new lib.DataLoader!([1, 2, 3])
    loader.setEpoch(epoch)
    return loader.epoch
  },
  of(3),
)
add('Random', (...args) => new lib.Random!(...args).uint32(), of(1), of(2 ** 40, 7))
add('Random.below', (n) => new lib.Random!(1).below(n), of(10), of(2 ** 32))
add('Random.float', () => new lib.Random!(1).float(), of())
add(
  'Random.shuffle',
  (it) => void new lib.Random!(1).shuffle(it),
  of([1, 2, 3]),
  of(made('new Uint32Array(3)', () => new Uint32Array(3))),
)
add(
  'saveSafetensors',
  async (path, ...rest) => {
    await lib.saveSafetensors(path, ...rest)
    rmSync(path, { force: true })
  },
  of('weights.safetensors', options({ a: f([2, 3]), b: indices([2]), c: f([2], 'normal', 'bfloat16') })),
  of('weights.safetensors', options({ a: f([0]) }), options({ format: 'pt' })),
)
add(
  'loadSafetensors',
  async (path) => Object.values((await lib.loadSafetensors(path)).tensors),
  of(made("'sound.safetensors'", () => 'sound.safetensors')),
)

const sound = (name: string) => made(`'${name}'`, () => name)
const tensorsOf = (value: unknown): unknown[] => (isTensor(value) ? [value] : [])
add(
  'loadSafetensors with options',
  async (path, ...rest) => Object.values((await lib.loadSafetensors(path, ...rest)).tensors),
  of(sound('sound.safetensors'), options({ mmap: true, names: list(['a']) })),
  of(sound('sound.safetensors'), options({ device: 'meta' })),
)
add(
  'readSafetensorsHeader',
  async (path) => void (await lib.readSafetensorsHeader(path)),
  of(sound('sound.safetensors')),
)
add(
  'saveSafetensorsSharded',
  async (folder, ...rest) => {
    rmSync(await lib.saveSafetensorsSharded(folder, ...rest), { force: true })
  },
  of('.', options({ a: f([2, 3]), b: indices([2]) })),
  of('.', options({ a: f([2]), b: f([2]) }), options({ maxShardBytes: 8, name: 'm', metadata: options({ k: 'v' }) })),
)
add(
  'readPickle',
  (path, ...rest) => lib.readPickle(path, ...rest),
  of(sound('sound.pkl')),
  of(sound('sound.pkl'), options({ arrays: 'lazy', encoding: 'latin1', records: list(['A']) })),
)
add(
  'loadTorch',
  async (path, ...rest) => Object.values(await lib.loadTorch(path, ...rest)),
  of(sound('sound.pt')),
  of(sound('sound.pt'), options({ dtype: 'float32', device: 'cpu', mmap: true, names: list([]) })),
)
add(
  'readArchive',
  async (path) => {
    for await (const entry of lib.readArchive(path)) await entry.bytes()
  },
  of(sound('sound.zip')),
)
add('readNpy', async (path) => tensorsOf(await lib.readNpy(path)), of(sound('sound.npy')))
add('readNpz', async (path) => Object.values(await lib.readNpz(path)), of(sound('sound.npz')))
add(
  'saveNpy',
  async (path, ...rest) => {
    await lib.saveNpy(path, ...rest)
    rmSync(path, { force: true })
  },
  of('array.npy', f([2, 3])),
)
add(
  'saveNpz',
  async (path, ...rest) => {
    await lib.saveNpz(path, ...rest)
    rmSync(path, { force: true })
  },
  of('arrays.npz', options({ a: f([2, 3]), b: indices([2]) })),
)

add(
  'saveGguf',
  async (path, ...rest) => {
    await lib.saveGguf(path, ...rest)
    rmSync(path, { force: true })
  },
  of(
    'weights.gguf',
    options({ a: f([2, 32]), b: f([3]) }),
    options({ type: 'Q8_0', metadata: options({ k: 'v', n: 3 }) }),
  ),
  of('weights.gguf', options({ a: f([2, 3]) })),
)
add('readGguf', async (path) => void (await lib.readGguf(path)), of(sound('sound.gguf')))
add(
  'GgufFile.load',
  async (...rest) => Object.values(await (await lib.readGguf('sound.gguf')).load(...rest)),
  of(options({ names: list(['a']), dtype: 'bfloat16', mmap: true })),
  of(),
)
add('publishedWeights', (folder) => void lib.publishedWeights(folder), of('.'))

/** Files that a reader finds. */
export async function prepareFiles(): Promise<void> {
  const a = zeros([2, 3])
  await lib.saveSafetensors('sound.safetensors', { a, b: a })
  await lib.saveGguf('sound.gguf', { a })
  await lib.saveNpy('sound.npy', a)
  writeFileSync('sound.pkl', Buffer.from('](K\x01X\x02\0\0\0hie.', 'latin1'))
  writeFileSync('sound.zip', makeZip([{ name: 'a', data: Buffer.from('a') }]))
  writeFileSync('sound.pt', fixtureFiles('torch')[0]!)
  await lib.saveNpz('sound.npz', { a })
  a.dispose()
}
