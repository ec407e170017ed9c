import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  emptyCache,
  getPeftModel,
  InternVL,
  KvCache,
  noGrad,
  randint,
  randn,
  readImage,
  saveSafetensors,
  scope,
  scoreLabels,
  tensor,
  tileImage,
} from 'voxtorch'
import { rates } from './rates.mjs'
import { serve, timedBlocks } from './serve.mjs'

/** To see that it runs: VOXTORCH_BENCH_SIZE=tiny has no figures worth anything. */
const isTiny = process.env.VOXTORCH_BENCH_SIZE === 'tiny'
const narrow = (sizes) => (isTiny ? sizes : {})
/** The 1B network's widths. */
const config = {
  visionConfig: {
    hiddenSize: 1024,
    numHiddenLayers: 4,
    numAttentionHeads: 16,
    intermediateSize: 4096,
    imageSize: 448,
    qkvBias: true,
    qkNormalization: false,
    normType: 'layer_norm',
    initializerFactor: 1,
    ...narrow({ hiddenSize: 32, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 64 }),
  },
  llmConfig: {
    modelType: 'qwen2',
    vocabSize: 151655,
    hiddenSize: 896,
    intermediateSize: 4864,
    numHiddenLayers: 4,
    numAttentionHeads: 14,
    numKeyValueHeads: 2,
    ropeTheta: 1e6,
    ...narrow({ vocabSize: 1100, hiddenSize: 32, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 64 }),
  },
  imgContextTokenId: isTiny ? 1099 : 151648,
}
const IMAGE = config.imgContextTokenId
const TARGETS = '^(language_model|mlp1)(?!.*(lm_head|output|emb|wte|shared)).*'
const LABELS = Array.from({ length: 7 }, (_, i) => [1000 + i, 13, isTiny ? 1098 : 151645])

const network = InternVL.fromConfig(config, { seed: 1 }).eval().freeze()
let trained
/** Made where a step is asked for: it is as large again. */
function adapted() {
  if (trained) return trained
  trained = InternVL.fromConfig(config, { seed: 1 }).freeze()
  getPeftModel(trained, { r: 8, loraAlpha: 32, loraDropout: 0.05, targetModules: TARGETS })
  return trained
}

/** Words, so many tiles, words. */
function textOf(tiles) {
  const ids = randint(5, 1000, [1, 32 + tiles * 256])
  noGrad(() => ids.narrow(1, 16, tiles * 256).fill_(IMAGE))
  return ids
}
const [four, eight] = [randn([4, 3, 448, 448]), randn([8, 3, 448, 448])]
const [short, long] = [textOf(1), textOf(8)]
const labels = long.clone()
noGrad(() => labels.narrow(1, 0, long.size(1) - 4).fill_(-100))
const one = four.narrow(0, 0, 1)
const imageFeatures = await noGrad(() => network.encodeImages(eight))
const imageEmbeds = await noGrad(() => network.projectImages(imageFeatures))
/** Decoded; of a few, as often as it takes. */
let photographs = []
const COUNT = isTiny ? 1 : 100

const STEPS = 32
/** Goes on whatever comes. */
const ANY = { eosTokenId: null, padTokenId: 0 }
/** The cache after the prompt, and the next token. */
const begun = await noGrad(async () => {
  const cache = new KvCache()
  const { logits } = await network.forward({ inputIds: short, pixelValues: one, cache, logitsToKeep: 1 })
  return { cache, next: logits.argmax(-1) }
})
/** Steps from there; the cache is what it was then. */
async function decoded() {
  const { cache, next } = begun
  const { tokens } = await network.language_model.generate({ inputIds: next, cache }, { ...ANY, maxNewTokens: STEPS })
  await cache.crop(short.size(1))
  return tokens[0]
}

const often = (work) => async (n) => {
  for (let i = 0; i < n; i++) await scope(async () => void (await work()))
}
const step = (pictures) => async () => {
  const model = adapted()
  const { loss } = await model.forward({ inputIds: long, labels, ...pictures })
  await loss.backward()
  model.zeroGrad()
}

const cases = {
  vision: often(() => noGrad(() => network.encodeImages(four))),
  prefill: often(() => network.generate({ inputIds: long, imageEmbeds }, { ...ANY, maxNewTokens: 1 })),
  decode: often(decoded),
  step: often(step({ pixelValues: eight })),
  stepKept: often(step({ imageFeatures })),
  labels: often(() => scoreLabels(network, { inputIds: long, imageEmbeds }, LABELS)),
  tiles: often(async () => {
    for (let i = 0; i < COUNT; i++)
      (await tileImage(photographs[i % photographs.length], { pillow: 13 })).tiles.dispose()
  }),
  ...rates,
}
const blocks = timedBlocks(cases)

const kibibytes = (field) =>
  Number(readFileSync('/proc/self/status', 'utf8').match(new RegExp(`${field}:\\s+(\\d+)`))[1])

/** The most memory that a case takes above what was taken before it, in bytes. */
async function peakOf(name) {
  await cases[name](1)
  // What is kept for the next one would count as taken before it.
  emptyCache()
  writeFileSync('/proc/self/clear_refs', '5')
  const before = kibibytes('VmRSS')
  await cases[name](1)
  return { peak: (kibibytes('VmHWM') - before) * 1024 }
}

/** The network as transformers reads it, inputs and what they give. */
async function write(folder, files) {
  await network.save(folder, { layout: 'transformers' })
  const { logits } = await noGrad(() => network.forward({ inputIds: short, pixelValues: one }))
  const values = { four, eight, short, long, labels, logits, imageEmbeds }
  values.answers = tensor(LABELS, { dtype: 'int64' })
  values.count = tensor([COUNT], { dtype: 'int64' })
  values.decoded = tensor(await noGrad(decoded), { dtype: 'int64' })
  photographs = await Promise.all(files.map((file) => readImage(file)))
  for (const [i, photograph] of photographs.entries()) {
    const { tiles, grid } = await tileImage(photograph, { pillow: 13 })
    values[`tiles.${i}`] = tiles
    values[`grid.${i}`] = tensor([...grid], { dtype: 'int64' })
  }
  await saveSafetensors(join(folder, 'values.safetensors'), values)
}

await serve(async (request) => {
  if (request.peak !== undefined) return peakOf(request.peak)
  if (request.make === undefined) return blocks(request)
  await write(request.make, request.photographs)
  return {}
})
