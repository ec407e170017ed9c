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
/** For units of many clips: what a minute or two is enough for. */
const base = { ...xlsr, hiddenSize: 768, numHiddenLayers: 12, numAttentionHeads: 12, intermediateSize: 3072 }
const CLIPS = 1000
/** Hears the question of a reply: XLS-R 300M, whole. */
const smaller = { ...xlsr, hiddenSize: 1024, numHiddenLayers: 24, intermediateSize: 4096 }
/** Tokens of the question's transcript, and of the reply's text. */
const TEXT_TOKENS = 8
/** Units of a reply, 50 per second. */
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
/** Two seconds, with the evaluations of a published reply; the other side compares what the first few give. */
const WHOLE = { frames: 172, steps: 50, check: 4 }

const makers = {
  xlsr: () => [new Wav2Vec2(xlsr), { inputValues: randn([1, 160_000]) }],
  voicebox: () => [
    new UnitVoicebox(voicebox),
    { units: randint(0, 10_000, [1, FRAMES]), noise: randn([1, 80, FRAMES]) },
  ],
  voiceboxWhole: () => [
    networks.voicebox?.[0] ?? new UnitVoicebox(voicebox),
    { units: randint(0, 10_000, [1, WHOLE.frames]), noise: randn([1, 80, WHOLE.frames]) },
  ],
  bigvgan: () => [new BigVGAN({ ...bigvgan, weightNorm: false }), { mel: randn([1, 80, FRAMES]) }],
}
const calls = {
  xlsr: async (network, inputs) => (await network.forward(inputs)).lastHiddenState,
  voicebox: (network, inputs) => network.generate({ ...inputs, steps: STEPS, solver: 'euler', guidance: 1 }),
  voiceboxWhole: (network, inputs, steps = WHOLE.steps) =>
    network.generate({ ...inputs, steps, solver: 'heun', guidance: 1 }),
  bigvgan: async (network, inputs) => (await network.forward(inputs)).waveform,
}
const networks = {}

const runs = (name) => async (n) => {
  for (let i = 0; i < n; i++) await noGrad(() => scope(async () => void (await calls[name](...networks[name]))))
}

/** Clips of 1 to 5 seconds, in no order. */
async function units() {
  const encoder = new Wav2Vec2(base).eval().freeze()
  const kmeans = randn([1000, base.hiddenSize])
  const extractor = await UnitExtractor.fromPretrained({ encoder, kmeans, layer: base.numHiddenLayers })
  const clips = Array.from({ length: CLIPS }, (_, i) =>
    randn([16_000 + Math.floor((64_000 * ((i * 29) % CLIPS)) / CLIPS)]),
  )
  const [first, ...others] = await extractor.extractBatch(clips.slice(0, 8))
  const alone = await extractor.extract(clips[0])
  if (others.length !== 7 || alone.join() !== first.join()) throw new Error('units of a batch are others than alone')
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
    tensors[name] = await noGrad(() => calls[name](network, inputs, name === 'voiceboxWhole' ? WHOLE.check : undefined))
  }
  await saveSafetensors(join(folder, 'values.safetensors'), tensors)
}

/**
 * A question of 3 seconds and a reply of 6, through all three passes: complete audio, and time to first audio. These weights are not
 * trained to end, so all passes have a fixed number of tokens.
 */
async function replies() {
  const encoder = new Wav2Vec2(smaller).eval().freeze()
  const units = await UnitExtractor.fromPretrained({
    ...{ encoder, kmeans: randn([1000, smaller.hiddenSize]), layer: smaller.numHiddenLayers },
  })
  const tokenizer = await UsdmTokenizer.fromPretrained(LLM, { units: units.units })
  const llm = await DecoderLM.fromPretrained(LLM, { dtype: 'float32', quantize: false })
  llm.resizeTokenEmbeddings(tokenizer.vocabSize)
  const stream = llm.stream.bind(llm)
  llm.stream = (inputs, { eosTokenId: ends, suppressTokens, allowedTokens, ...more }, rest) => {
    const rule = allowedTokens
      ? { allowedTokens: allowedTokens.filter((id) => !ends.includes(id)) }
      : { suppressTokens: [...suppressTokens, ...ends] }
    return stream(inputs, { ...more, ...rule, eosTokenId: null }, rest)
  }
  const usdm = new Usdm({
    ...{ llm: llm.eval(), tokenizer, units },
    voicebox: new UnitVoicebox({ ...voicebox, nTokens: units.units }).eval(),
    vocoder: new BigVGAN({ ...bigvgan, weightNorm: false }).eval(),
  })
  const question = { samples: randn([48_000]), sampleRate: 16_000 }
  const options = {
    ...{ maxTextTokens: TEXT_TOKENS, strict: true, seed: 0 },
    ...{ sampling: { temperature: 1 }, maxUnits: REPLY_UNITS },
  }
  return {
    replyWhole: async () => {
      const { units: said, transcript, text, finish } = await usdm.respond(question, options)
      if (said.length !== REPLY_UNITS) throw new Error(`a reply of ${said.length} units`)
      const isWritten = finish.transcript === 'length' && finish.text === 'length'
      if (!isWritten || transcript === '' || text === '') throw new Error('not all passes have written')
    },
    replyFirst: async () => {
      for await (const event of usdm.stream(question, options)) {
        if (event.type === 'speech' && event.samples) return
      }
      throw new Error('a reply without audio')
    },
  }
}

/** Cases that are ours alone, each made once before it is measured. */
const sets = [
  { make: units, names: ['unitsBatched', 'unitsSingly'] },
  { make: replies, names: ['replyWhole', 'replyFirst'] },
]
const ours = {}
const ownCase = (name) => async (n) => {
  for (let i = 0; i < n; i++) await ours[name]()
}

const blocks = timedBlocks({
  ...Object.fromEntries(Object.keys(makers).map((name) => [name, runs(name)])),
  ...Object.fromEntries(sets.flatMap(({ names }) => names).map((name) => [name, ownCase(name)])),
  ...rates,
})

await serve(async (request) => {
  if (request.make === undefined) return blocks(request)
  await write(request.make, request.names)
  for (const { make, names } of sets) {
    if (names.some((name) => request.names.includes(name))) Object.assign(ours, await make())
  }
  return {}
})
