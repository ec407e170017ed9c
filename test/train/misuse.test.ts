import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { packBins } from '../../lib/data/pack.js'
import * as vt from '../../lib/index.js'

// Calls with wrong arguments: an error of ours or a result, never another error and never a crash. One call in five or
// so is right and has to succeed.

const random = new vt.Random(20)
const pick = <T>(list: readonly T[]): T => list[random.below(list.length)] as T
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-misuse-'))
afterAll(() => rmSync(directory, { recursive: true }))

const disposed = vt.zeros([1])
disposed.dispose()
const ODD: readonly unknown[] = [
  undefined,
  null,
  ...[0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 63, 10n, 2n ** 63n],
  ...['', 'a', true, Symbol('s'), () => 1, {}, Object.create(null), new Map(), new Date(0)],
  ...[[], [1], ['a'], [null], [[1, 2], [3]], { length: 3 }, { length: -1 }, { length: 1e12 }],
  ...[new Float32Array(3), Buffer.from('x'), new URL('file:///missing.mjs')],
  ...[
    vt.zeros([2]),
    vt.zeros([2, 2]),
    vt.zeros([3], { dtype: 'int64' }),
    vt.zeros([1], { dtype: 'complex64' }),
    disposed,
  ],
  [new vt.Parameter(vt.zeros([2]))],
]
// biome-ignore lint/suspicious/noExplicitAny: the point is that types do not protect.
type Any = any
const odd = (): Any => pick(ODD)
/** Mostly the right value. */
const or = (right: unknown): Any => (random.below(4) === 0 ? odd() : right)
/** A relative folder would be made in the checkout. */
const inside = (path: unknown): Any => (path === 'a' ? join(directory, 'a') : path)
/** Some options, of which about one in four is wrong. */
const options = (right: Record<string, unknown>): Any =>
  or(Object.fromEntries(Object.entries(right).flatMap(([key, value]) => (random.below(2) ? [[key, or(value)]] : []))))

const parameter = () => {
  const param = new vt.Parameter(vt.ones([2]))
  param.grad = or(vt.ones([2]))
  return param
}
const consume = async (loader: vt.DataLoader<Any, Any>) => {
  for await (const _ of loader) if (random.below(3) === 0) break
}
const schedule = { numWarmupSteps: 2, numTrainingSteps: 9 }

const CALLS: Record<string, () => unknown> = {
  async AdamW() {
    const rule = { lr: 0.1, betas: [0.9, 0.99], eps: 1e-6, weightDecay: 0.1, amsgrad: true, maximize: true }
    using optimizer = new vt.AdamW(or([or(parameter())]), options(rule))
    await optimizer.step()
    Object.assign(optimizer.groups[0] as object, options(rule))
    await optimizer.step()
    const saved = optimizer.stateDict()
    const state = { ...saved.state[0], ...pick([{}, { [pick(['step', 'exp_avg', 'other'])]: odd() }]) } as Any
    optimizer.loadStateDict(or({ state: or({ 0: or(state) }), param_groups: or(saved.param_groups) }))
  },
  async SGD() {
    const rule = { lr: 0.1, momentum: 0.9, dampening: 0, nesterov: true, weightDecay: 0.1, maximize: true }
    using optimizer = new vt.SGD(or([or({ params: or([parameter()]), lr: or(1) })]), options(rule))
    await optimizer.step()
    optimizer.addGroup(or({ params: or([parameter()]) }))
  },
  clipGradNorm: () => vt.clipGradNorm(or([or(parameter())]), or(1), options({ normType: 1, errorIfNonfinite: true })),
  clipGradValue: () => vt.clipGradValue(or([or(parameter())]), or(1)),
  LRScheduler() {
    const make = pick([
      vt.getLinearScheduleWithWarmup,
      vt.getCosineScheduleWithWarmup,
      vt.getConstantScheduleWithWarmup,
    ])
    const bound = make(or({ groups: or([or({ lr: or(1) })]) }), options(schedule))
    bound.step()
    bound.loadStateDict(or({ base_lrs: or([1]), last_epoch: or(3) }))
    new vt.LRScheduler(or({ groups: [{ lr: 1 }] }), or(or([() => 1])))
  },
  metrics() {
    const [truth, guess] = [or([1, 2, or(2)]), or([1, 1, 2])]
    vt.accuracy(truth, guess)
    vt.unweightedAverageRecall(truth, guess)
    vt.f1Score(truth, guess, options({ average: 'micro', labels: [1], zeroDivision: 1 }))
    vt.confusionMatrix(truth, guess, options({ normalize: 'true', labels: [2, 1] }))
  },
  ProgressBar() {
    const stream = { write: () => true, isTTY: or(true), columns: or(80) }
    using bar = new vt.ProgressBar({
      ...options({ total: 3, label: 'a', unit: 'b', interval: 0 }),
      stream: pick([stream, stream, 1, {}]),
    })
    bar.tick(or(1), or({ loss: or(1) }))
    bar.print(or('text'))
  },
  SummaryWriter() {
    using writer = new vt.SummaryWriter(inside(or(directory)))
    writer.addScalar(or('a'), or(1), or(1))
    writer.addText(or('a'), or('b'), or(1))
    writer.addHistogram(or('a'), or([1, or(2)]), or(1))
  },
  DataLoader() {
    const plan = { batchSize: 2, seed: 3, dropLast: true, prefetch: 2, freeBatches: false }
    const order = pick([{ shuffle: true }, { sampler: [0, 1] }, { lengthBuckets: options({ lengthOf: [1, 2, 3] }) }])
    const loader = new vt.DataLoader(or([1, 2, 3]), options({ ...plan, ...order, collate: (list: Any) => list }))
    loader.setEpoch(or(2))
    return consume(loader)
  },
  padCollate() {
    const field = { pad: 1, dtype: 'int64', side: 'left', multipleOf: 2, elementShape: [1], mask: 'm' }
    const sample = () => or({ x: or([1, or(2)]) })
    return vt.padCollate(or({ x: options(field) }))(or([sample(), sample()]))
  },
  streams() {
    const dataset = { iterate: pick([() => [1, 2, 3], () => odd(), odd()]), sharded: or(false) }
    const plan = { batchSize: 2, shuffleBuffer: 2, onBadRecord: 'skip', pinMemory: false }
    const loader = new vt.DataLoader<Any, Any>(dataset, options(plan))
    loader.loadState(pick([loader.state(), options({ ...loader.state() }) as Any]))
    return consume(loader)
  },
  samplers() {
    const lengths = or([1, or(2), 3])
    const shuffled = { shuffle: true, seed: 1 }
    const sampler = pick([
      () => new vt.RandomSampler(or(5), options({ replacement: true, numSamples: 3, seed: 1 })),
      () => new vt.WeightedRandomSampler(or([1, or(2)]), or(2), options({ replacement: true, seed: 1 })),
      () => new vt.TokenBatchSampler(options({ lengths, maxTokens: 6, maxSamples: 2, ...shuffled }) as Any),
      () => new vt.PackedBatchSampler(options({ lengths, maxLength: 6, ...shuffled }) as Any),
      () => new vt.BatchSampler(or([1]), { batchSize: or(2) }),
      () => packBins(lengths, or(6)) as Any,
    ])()
    for (const _ of sampler.indices?.(0) ?? sampler.batches?.(0) ?? []);
  },
  async datasets() {
    const both = new vt.ConcatDataset([or([1, 2]), [3]])
    const mapped = vt.mapDataset(new vt.Subset(both, or([0, or(1)])), or(String))
    vt.randomSplit(or(mapped), or([1, or(1)]), { seed: or(1) })
    const stoppingStrategy = 'allExhausted'
    const mixed = new vt.MixtureDataset(
      or([or({ dataset: or([1]), weight: or(2) }), { dataset: both }]),
      options({ seed: 1, stoppingStrategy }),
    )
    await mixed.get(or(0))
  },
  packSequences() {
    const pack = vt.packSequences(or(['x']), options({ causalLabels: ['x'], positionOffset: 1, maxLength: 9 }))
    const batch = pack(or([or({ x: or([1, or(2)]) })])) as Any
    vt.blockDiagonalMask(or(batch.sequenceIds), { causal: or(true) })
  },
  valueMetrics() {
    const [a, b] = [or([1, or(2)]), or([1, 2])]
    pick([
      () => vt.meanAbsoluteError(a, b),
      () => vt.pearson(a, b),
      () => vt.spearman(a, b),
      () => vt.cohenKappa(a, b, options({ weights: 'linear' })),
      () => vt.rocAuc(a, b),
      () => vt.rocAucMultiClass(or([0, or(1)]), or([b, [1, 2]]), options({ multiClass: 'ovo', average: 'weighted' })),
    ])()
  },
  textMetrics() {
    const bleu = { tokenize: 'intl', lowercase: true, smoothMethod: 'floor', smoothValue: 0.5, maxNgramOrder: 2 }
    const [a, b] = [or(['a b', or('c')]), or([or(['a']), 'b'])]
    pick([
      () => vt.wordErrors(a, or(['a', 'b'])),
      () => vt.cer(or('abc'), or('abd')),
      () => vt.corpusBleu(a, b, options(bleu)),
      () => vt.sentenceBleu(or('a'), or('b'), options(bleu)),
      () => vt.corpusChrf(a, b, options({ charOrder: 2, wordOrder: 1, beta: 1 })),
      () => vt.rouge(a, b),
      () => vt.meteor(a, b, options({ alpha: 0.5, beta: 2, gamma: 0.3 })),
      () => vt.perplexity(or(1), or(2)),
    ])()
  },
  Metric() {
    const metric = new vt.ClassificationMetric(options({ average: 'micro', labels: [1, 2], zeroDivision: 0 }) as Any)
    metric.update(or([1, 2]), or([1, or(2)]))
    metric.merge(or(options({ ...metric.state() })))
    metric.loadState({ metric: 'classification', statistics: or({ cells: or([or([1, 2, or(3)])]) }) })
    metric.compute()
  },
  Random() {
    const numbers = new vt.Random(or(1), or(2))
    numbers.below(or(9))
    numbers.shuffle(or([1, 2]))
  },
  async AdamW8bit() {
    const rule = { lr: 0.1, betas: [0.9, 0.99], eps: 1e-6, weightDecay: 0.1, min8bitSize: 2, masterWeights: true }
    using optimizer = new vt.AdamW8bit(or([or(parameter())]), options(rule))
    await optimizer.step()
    Object.assign(optimizer.groups[0] as object, options(rule))
    await optimizer.step()
    optimizer.loadStateDict(or(optimizer.stateDict()))
  },
  quantize() {
    const layer = new vt.Linear(4, 3)
    vt.quantize(
      or(layer),
      options({ scheme: pick(['nf4', 'int8']), doubleQuant: pick([false, true]), modules: or(['']), blockSize: 64 }),
    )
    layer.forward(or(vt.ones([2, 4])))
    vt.dequantizeLayer(or(layer))
    layer.forward(or(vt.ones([2, 4])))
  },
}

describe('wrong arguments give typed errors', () => {
  it.each(Object.entries(CALLS))('%s', async (_, call) => {
    let succeeded = 0
    for (let i = 0; i < 1000; i++) {
      try {
        await vt.scope(async () => {
          await call()
        })
        succeeded++
      } catch (error) {
        if (!(error instanceof vt.VoxtorchError)) throw error
      }
    }
    expect(succeeded).toBeGreaterThan(5)
  })
})
