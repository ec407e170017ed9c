import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import {
  BigVGAN,
  noGrad,
  randint,
  randn,
  saveSafetensors,
  scope,
  UnitExtractor,
  UnitVoicebox,
  Wav2Vec2,
} from 'voxtorch'
import { rates } from './rates.mjs'
import { serve, timedBlocks } from './serve.mjs'

/** XLS-R 1B, cut where USDM takes its units from. */
const xlsr = {
  hiddenSize: 1280,
  numHiddenLayers: 35,
  numAttentionHeads: 16,
  intermediateSize: 5120,
  featExtractNorm: 'layer',
  convBias: true,
  doStableLayerNorm: true,
}
/** For units of many clips: XLS-R 300M, whole. */
const smaller = { ...xlsr, hiddenSize: 1024, numHiddenLayers: 24, intermediateSize: 4096 }
const CLIPS = 48
/** The published configurations in full, as the other side has no values of its own. */
const voicebox = {
  nFeats: 80,
  nTokens: 10_000,
  embeddingDim: 1280,
  hiddenSize: 1024,
  intermediateSize: 4096,
  numAttentionHeads: 16,
  numHiddenLayers: 24,
  convposWidth: 31,
  convposGroups: 16,
  convposDepth: 2,
  sigmaMin: 1e-4,
}
const bigvgan = {
  numMels: 80,
  upsampleRates: [4, 4, 2, 2, 2, 2],
  upsampleKernelSizes: [8, 8, 4, 4, 4, 4],
  upsampleInitialChannel: 1536,
  resblock: '1',
  resblockKernelSizes: [3, 7, 11],
  resblockDilationSizes: [1, 2, 3].map(() => [1, 3, 5]),
  activation: 'snakebeta',
  snakeLogscale: true,
}
const FRAMES = 430
const STEPS = 2

const makers = {
  xlsr: () => [new Wav2Vec2(xlsr), { inputValues: randn([1, 160_000]) }],
  voicebox: () => [
    new UnitVoicebox(voicebox),
    { units: randint(0, 10_000, [1, FRAMES]), noise: randn([1, 80, FRAMES]) },
  ],
  bigvgan: () => [new BigVGAN({ ...bigvgan, weightNorm: false }), { mel: randn([1, 80, FRAMES]) }],
}
const calls = {
  xlsr: async (network, inputs) => (await network.forward(inputs)).lastHiddenState,
  voicebox: (network, inputs) => network.generate({ ...inputs, steps: STEPS, solver: 'euler', guidance: 1 }),
  bigvgan: async (network, inputs) => (await network.forward(inputs)).waveform,
}
const networks = {}

const runs = (name) => async (n) => {
  for (let i = 0; i < n; i++) await noGrad(() => scope(async () => void (await calls[name](...networks[name]))))
}

/** Clips of 1 to 5 seconds, in no order. */
async function units() {
  const encoder = new Wav2Vec2(smaller).eval().freeze()
  const kmeans = randn([1000, smaller.hiddenSize])
  const extractor = await UnitExtractor.fromPretrained({ encoder, kmeans, layer: smaller.numHiddenLayers })
  const clips = Array.from({ length: CLIPS }, (_, i) => randn([16_000 + ((i * 29) % CLIPS) * 1333]))
  return {
    unitsBatched: async () => void (await extractor.extractBatch(clips)),
    unitsSingly: async () => {
      for (const clip of clips) await extractor.extract(clip)
    },
  }
}
let extraction

/** Networks, inputs and what they give, for the other side. */
async function write(folder, names) {
  const tensors = {}
  for (const name of names) {
    if (!(name in makers)) continue
    const [network, inputs] = makers[name]()
    network.eval().freeze()
    networks[name] = [network, inputs]
    mkdirSync(join(folder, name))
    await network.save(join(folder, name))
    for (const [key, value] of Object.entries(inputs)) tensors[`${name}.${key}`] = value
    tensors[name] = await noGrad(() => calls[name](network, inputs))
  }
  await saveSafetensors(join(folder, 'values.safetensors'), tensors)
}

const unitRuns = (name) => async (n) => {
  extraction ??= await units()
  for (let i = 0; i < n; i++) await extraction[name]()
}

const blocks = timedBlocks({
  ...Object.fromEntries(Object.keys(makers).map((name) => [name, runs(name)])),
  unitsBatched: unitRuns('unitsBatched'),
  unitsSingly: unitRuns('unitsSingly'),
  ...rates,
})

await serve(async (request) => {
  if (request.make === undefined) return blocks(request)
  await write(request.make, request.names)
  return {}
})
