// Every public function of metrics and data sets that takes a list, with lists whose `length` lies. A child of
// hostile-lists.test.ts, which may be killed: prints each call before it begins, then what came of it.
const vt = await import('../../dist/index.js')

const sparse = (length, ...items) => Object.assign([...items], { length })
const revoked = () => {
  const { proxy, revoke } = Proxy.revocable([], {})
  revoke()
  return proxy
}
const lying = new Proxy([1], { get: (target, key) => (key === 'length' ? 1e9 : Reflect.get(target, key)) })
const LISTS = {
  'an object of a billion': { length: 1e9, 0: 1 },
  'an object with its ends': { length: 2e7, 0: 1, 19999999: 1 },
  'an array of a billion holes': sparse(1e9, 1),
  'an array with its ends': Object.assign(sparse(2e7, 1), { 19999999: 1 }),
  'an array of four billion holes': sparse(2 ** 32 - 1),
  'a proxy of an array of a billion': lying,
  'a revoked proxy': revoked(),
  'a throwing proxy': new Proxy([], { get: () => { throw new TypeError('no') } }), // biome-ignore format: one line
}
const [truth, scores, texts] = [
  [1, 2, 1],
  [0.1, 0.2, 0.3],
  ['a', 'b', 'c'],
]
const drained = (sampler) => {
  let count = 0
  for (const _ of sampler.indices?.(0) ?? sampler.batches?.(0) ?? []) if (++count > 10) break
}
const read = async (dataset, options) => {
  let count = 0
  for await (const _ of new vt.DataLoader(dataset, options)) if (++count > 3) break
}
const pair = (fn, good) => [
  [fn.name, (x) => fn(x, good)],
  [`${fn.name} 2`, (x) => fn(good, x)],
]
const METRICS = [
  vt.accuracy,
  vt.precision,
  vt.recall,
  vt.f1Score,
  vt.precisionRecallF1,
  vt.unweightedAverageRecall,
  vt.confusionMatrix,
  vt.cohenKappa,
  vt.matthewsCorrcoef,
]
const VALUES = [
  vt.meanSquaredError,
  vt.rootMeanSquaredError,
  vt.meanAbsoluteError,
  vt.r2Score,
  vt.pearson,
  vt.spearman,
  vt.concordance,
]
const TEXTS = [vt.wer, vt.cer, vt.wordErrors, vt.characterErrors, vt.corpusBleu, vt.corpusChrf, vt.rouge, vt.meteor]
const updated = (Class) => [
  [`${Class.name} update`, (x) => new Class().update(x, x)],
  [
    `${Class.name} merge`,
    (x) => {
      const m = new Class()
      const s = m.state()
      for (const key of Object.keys(s.statistics)) s.statistics[key] = x
      m.merge(s)
      return m.compute()
    },
  ],
]
const CALLS = Object.fromEntries([
  ...METRICS.flatMap((fn) => pair(fn, truth)),
  ...VALUES.flatMap((fn) => pair(fn, scores)),
  ...TEXTS.flatMap((fn) => pair(fn, texts)),
  ['labels', (x) => vt.f1Score(truth, truth, { labels: x })],
  ['confusionMatrix labels', (x) => vt.confusionMatrix(truth, truth, { labels: x })],
  ['cohenKappa labels', (x) => vt.cohenKappa(truth, truth, { labels: x })],
  ...pair(vt.rocAuc, scores),
  ['rocAucMultiClass targets', (x) => vt.rocAucMultiClass(x, [[1, 2], [2, 1]])],
  ['rocAucMultiClass', (x) => vt.rocAucMultiClass(truth, x)],
  ['rocAucMultiClass row', (x) => vt.rocAucMultiClass(truth, [x, x, x])],
  ['retrievalMetrics', (x) => vt.retrievalMetrics(x)],
  ['retrievalMetrics row', (x) => vt.retrievalMetrics([x, x])],
  ['retrievalMetrics at', (x) => vt.retrievalMetrics([[1]], { at: x })],
  ['retrievalMetrics targets', (x) => vt.retrievalMetrics([[1]], { targets: x })],
  ['references', (x) => vt.corpusBleu(['a'], [x])],
  ...[vt.ClassificationMetric, vt.RegressionMetric, vt.SpearmanMetric, vt.RocAucMetric, vt.WordErrorRateMetric, vt.CharacterErrorRateMetric, vt.BleuMetric, vt.ChrfMetric, vt.RougeMetric, vt.MeteorMetric].flatMap(updated),
  ['ConcatDataset', (x) => new vt.ConcatDataset(x)],
  ['ConcatDataset part', (x) => new vt.ConcatDataset([x]).get(0)],
  ['Subset', (x) => new vt.Subset([1, 2], x)],
  ['Subset dataset', (x) => new vt.Subset(x, [0])],
  ['randomSplit', (x) => vt.randomSplit([1, 2], x)],
  ['randomSplit dataset', (x) => vt.randomSplit(x, [0.5, 0.5])],
  ['mapDataset', (x) => vt.mapDataset(x, String).get(0)],
  ['MixtureDataset', (x) => new vt.MixtureDataset(x)],
  ['MixtureDataset part', (x) => new vt.MixtureDataset([{ dataset: x }])],
  ['MixtureDataset of a rare part', () => new vt.MixtureDataset([{ dataset: [1], weight: 1e-300 }, { dataset: [1] }], { stoppingStrategy: 'allExhausted' })],
  ['MixtureDataset of heavy parts', () => new vt.MixtureDataset([{ dataset: [1], weight: 1e308 }, { dataset: [1], weight: 1e308 }])],
  ['MixtureDataset of a computed part', () => new vt.MixtureDataset([{ dataset: { length: 1e15, get: (i) => i } }])],
  ['mixtureStream', (x) => vt.mixtureStream(x)],
  ['WeightedRandomSampler', (x) => drained(new vt.WeightedRandomSampler(x, 1))],
  ['TokenBatchSampler', (x) => drained(new vt.TokenBatchSampler({ lengths: x, maxTokens: 9 }))],
  ['PackedBatchSampler', (x) => drained(new vt.PackedBatchSampler({ lengths: x, maxLength: 9 }))],
  ['BatchSampler', (x) => drained(new vt.BatchSampler(x, { batchSize: 2 }))],
  ['packSequences fields', (x) => vt.packSequences(x)([])],
  ['packSequences', (x) => vt.packSequences(['a'])(x)],
  ['packSequences row', (x) => vt.packSequences(['a'])([{ a: x }])],
  ['padCollate', (x) => vt.padCollate({ a: {} })(x)],
  ['padCollate row', (x) => vt.padCollate({ a: { pad: 1 } })([{ a: x }])],
  ['DataLoader', (x) => read(x, { shuffle: true })],
  ['DataLoader sampler', (x) => read([1, 2], { sampler: x })],
  ['DataLoader batch', (x) => read([1, 2], { batchSampler: { batches: () => [x] } })],
  ['DataLoader lengths', (x) => read([1, 2], { lengthBuckets: { lengthOf: x } })],
  ['addHistogram', (x) => { const writer = new vt.SummaryWriter(process.argv[2]); try { writer.addHistogram('a', x, 1) } finally { writer.close() } }],
  ['parameters', (x) => new vt.SGD(x)],
  ['clipGradNorm', (x) => vt.clipGradNorm(x, 1)],
]) // biome-ignore format: a table

for (const [name, call] of Object.entries(CALLS)) {
  for (const [kind, list] of Object.entries(LISTS)) {
    process.stdout.write(`${name} of ${kind}: `)
    let outcome = 'a result'
    try {
      await call(list)
    } catch (error) {
      outcome = error instanceof vt.VoxtorchError ? error.name : `UNTYPED ${error?.stack ?? String(error)}`
    }
    process.stdout.write(`${outcome.replaceAll('\n', ' | ')}\n`)
  }
}
process.stdout.write('done\n')
