import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import {
  BigVGAN,
  DecoderLM,
  noGrad,
  randint,
  randn,
  saveSafetensors,
  scope,
  UnitExtractor,
  UnitVoicebox,
  Wav2Vec2,
} from 'voxtorch'
import { Usdm, UsdmTokenizer } from 'voxtorch/usdm'
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
/** Of a reply, 50 a second. */
const REPLY_UNITS = 300
const LLM = 'smollm2-135m-instruct'
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

/** A question of 3 seconds and a reply of 6: all of its sound, and until its sound begins. The text of both is given. */
async function replies() {
  const encoder = new Wav2Vec2(smaller).eval().freeze()
  const units = await UnitExtractor.fromPretrained({
    ...{ encoder, kmeans: randn([1000, smaller.hiddenSize]), layer: smaller.numHiddenLayers },
  })
  const tokenizer = await UsdmTokenizer.fromPretrained(LLM, { units: units.units })
  const llm = await DecoderLM.fromPretrained(LLM, { dtype: 'float32' })
  llm.resizeTokenEmbeddings(tokenizer.vocabSize)
  const usdm = new Usdm({
    ...{ llm: llm.eval(), tokenizer, units },
    voicebox: new UnitVoicebox({ ...voicebox, nTokens: units.units }).eval(),
    vocoder: new BigVGAN({ ...bigvgan, weightNorm: false }).eval(),
  })
  const question = { samples: randn([48_000]), sampleRate: 16_000 }
  const options = {
    ...{ transcript: 'where have you been?', reply: 'i was at home all day.', strict: true, seed: 0 },
    // What is drawn at this temperature is a unit, one of many, and ends the reply once in a thousand.
    ...{ sampling: { temperature: 1 }, maxUnits: REPLY_UNITS },
  }
  return {
    replyWhole: async () => {
      const { units: said } = await usdm.respond(question, options)
      if (said.length !== REPLY_UNITS) throw new Error(`a reply of ${said.length} units: give another seed`)
    },
    replyFirst: async () => {
      for await (const event of usdm.stream(question, options)) {
        if (event.type === 'speech' && event.samples) return
      }
      throw new Error('a reply without sound')
    },
  }
}

/** Cases that are ours alone; `make` gives them, once. */
function alone(make, names) {
  let made
  const run = (name) => async (n) => {
    made ??= await make()
    for (let i = 0; i < n; i++) await made[name]()
  }
  return Object.fromEntries(names.map((name) => [name, run(name)]))
}

const blocks = timedBlocks({
  ...Object.fromEntries(Object.keys(makers).map((name) => [name, runs(name)])),
  ...alone(units, ['unitsBatched', 'unitsSingly']),
  ...alone(replies, ['replyWhole', 'replyFirst']),
  ...rates,
})

await serve(async (request) => {
  if (request.make === undefined) return blocks(request)
  await write(request.make, request.names)
  return {}
})
