/** Right calls of USDM: units of speech, its tokenizer and data, what it says, and the networks that hear and speak. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Tokenizer } from '../../lib/index.js'
import * as system from '../../lib/systems/usdm/index.js'
import { type Args, add, DATA, type Loose, lib, many, of, options } from './define.js'
import { dense, indices, list, made, type Spec } from './values.js'

// A text may be the name of a repository; the fuzzer makes no requests.
process.env.HF_HUB_OFFLINE = '1'

const usdm = system as unknown as Record<string, Loose>
const exported = (name: string, ...right: Args[]): void => add(name, (...args) => usdm[name](...args), ...right)
const floats = made('new Float32Array(3000)', () => new Float32Array(3000))
const integers = (...items: number[]): Spec => made(`Int32Array.of(${items})`, () => Int32Array.of(...items))

// ---- a tokenizer of bytes, which is on no disk

const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173)
let next = 256
const letters = Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++))
const bytes = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false }
const words = JSON.stringify({
  version: '1.0',
  added_tokens: [{ id: 0, content: '</s>', special: true, normalized: false }],
  pre_tokenizer: bytes,
  decoder: bytes,
  model: { type: 'BPE', vocab: Object.fromEntries(['</s>', ...letters].map((one, id) => [one, id])), merges: [] },
})
const settings = '{"eos_token": "</s>"}'
function writeTokenizer(folder: string): void {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'tokenizer.json'), words)
  writeFileSync(join(folder, 'tokenizer_config.json'), settings)
}
const scratch = mkdtempSync(join(tmpdir(), 'voxtorch-fuzz-usdm-'))
writeTokenizer(scratch)
const UNITS = 3
const shared = system.UsdmTokenizer.extend(await Tokenizer.fromPretrained(scratch), { units: UNITS })
rmSync(scratch, { recursive: true })
const tokenizer = made('a UsdmTokenizer', () => shared)

add(
  'UsdmTokenizer.fromPretrained',
  async (folder, ...rest) => {
    if (folder === 'tokens') writeTokenizer(folder)
    return (await usdm.UsdmTokenizer.fromPretrained(folder, ...rest)).vocabSize
  },
  of('tokens'),
  of('tokens', options({ units: 4 })),
)
for (const [name, ...right] of [
  [
    'encode',
    of('hi'),
    of(many(options({ units: list([0, 2]) }), options({ token: 'correspond' })), options({ addBos: false })),
  ],
  ['unitsOf', of(list([5, 259, 260]))],
  ['unitId', of(2)],
  ['isUnit', of(259)],
  ['harmless', of('<|unit0|>')],
  ['decode', of(list([5, 6, 259]))],
] as const) {
  add(`UsdmTokenizer.${name}`, (...args) => (shared as Loose)[name](...args), ...right)
}

// ---- examples

const said = (text: string): Spec => options({ text, units: list([0, 1]) })
const turn = options({ user: said('hi'), agent: said('yes') })
const { inputIds, labels } = system.usdmExample(shared, [
  { user: { text: 'hi', units: [0, 1] }, agent: { text: 'yes', units: [2] } },
])
const example = options({ inputIds: list(inputIds), labels: list(labels) })
// Their last argument is a record, and not options.
for (const name of ['usdmLabels', 'usdmPrompt', 'previewParts', 'usdmExamples']) DATA.add(name)

exported('unitFrames', of(50), of(50, options({ samplesPerUnit: 300, hopLength: 200 })))
exported('frameUnits', of(list([1, 2, 2])), of(integers(1, 2), options({ samplesPerUnit: 300, hopLength: 200 })))
exported('usdmExample', of(tokenizer, many(turn)))
exported('usdmLabels', of(list(inputIds), options({ ...shared.ids })))
exported(
  'usdmPrompt',
  of(tokenizer, options({ units: list([0, 1]), transcript: 'hi', reply: 'yes', history: many(turn) })),
)
exported('previewParts', of(tokenizer, example))
exported('previewText', of(tokenizer, example, true))
exported('previewPage', of(tokenizer, example, options({ title: 'x', clips: list([]) })))
add('writeUsdmExamples', (path, all) => usdm.writeUsdmExamples(path, all), of('examples.txt', many(example)))
const spoken = (who: number): Spec =>
  options({
    ...{ dialog: 'd', turn: who, speaker: String(who), text: 'hi', clip: String(who), file: 'f', line: who + 1 },
    audio: options({ path: 'a.wav' }),
  })
const dialogs = options({
  dialogs: many(options({ dialog: 'd', turns: many(spoken(0), spoken(1)) })),
  turns: 2,
  dropped: list([]),
})
const source = made('units that are there', () => ({ read: async () => [0, 1] }))
exported(
  'usdmExamples',
  of(dialogs, options({ tokenizer, units: source, template: 'multi', maxLength: 1000, seed: 1 })),
)

// ---- predictions

const prediction = options({ id: 'a', user: 'hi', agent: 'yes', transcript: 'hi', reply: 'no', heard: 'no' })
exported('usdmScores', of(many(prediction)))
exported('scoreUsdm', of(many(prediction)), of(many(prediction), options({ language: null, onHeard: made('() => {}', () => () => {}) }))) // biome-ignore format: one line
add('writeUsdmPredictions', (path, all) => usdm.writeUsdmPredictions(path, all), of('said.jsonl', many(prediction)))
add(
  'predictUsdm',
  async (model, asked, given) => {
    rmSync('answers.jsonl', { force: true })
    return usdm.predictUsdm(model, asked, given)
  },
  of(
    made('a model', () => ({ respond: async () => ({ transcript: 'hi', text: 'yes' }) })),
    dialogs,
    options({ output: 'answers.jsonl', fingerprint: 'x', limit: 1 }),
  ),
)

// ---- pre-training

const word = (text: string, from: number): Spec => options({ text, start: from, end: from + 1 })
const spelt = many(word('a', 0), word('b', 1), word('c', 2))
const draws = made('new Random(1)', () => new lib.Random(1))
const interval = (text: string, from: number): Spec => options({ text, minTime: from, maxTime: from + 1 })
const tier = options({ kind: 'interval', name: 'words', minTime: 0, maxTime: 2, intervals: many(interval('a', 0), interval('b', 1)) }) // biome-ignore format: one line
const grid = options({ minTime: 0, maxTime: 2, tiers: many(tier) })
exported('ustmTranscript', of('Hi, there!'))
exported('wordsOfTextGrid', of(grid, options({ tier: 'words' })))
exported('wordsOfTimes', of(many(options({ word: ' a', start: 0, end: 1 })), 2))
exported('unitWords', of(spelt, 6))
exported('ustmSegments', of(spelt, list([0, 1, 2]), draws), of(spelt, integers(0, 1, 2), draws, options({ segmentUnits: 2, compat: 'published' }))) // biome-ignore format: one line
exported('ustmSequence', of(tokenizer, many(options({ text: 'a', units: list([0]) })), draws))
exported('ustmPacks', of(list([3, 2, 1]), 4))
exported(
  'ustmSequences',
  of(
    many(options({ name: 'x', words: spelt, units: list([0, 1, 2, 0, 1, 2]) })),
    options({ tokenizer, epochs: 2, seed: 1, onBadRecord: 'skip', segmentUnits: 2 }),
  ),
)
add(
  'packUstm',
  (files, ...rest) => {
    writeFileSync('rows.txt', '1 2 3\n4 5')
    return usdm.packUstm(files, ...rest)
  },
  of(list(['rows.txt']), 'packed.txt', options({ capacity: 4, seed: 1 })),
)
exported('usdmRecipe', of(options({ epochs: 2, betas: list([0.9, 0.95]) })))

// ---- what a Voicebox is trained on

exported('parseVoiceboxLine', of('a.wav|1 2|1 1', 'list.txt', 1))
exported('voiceboxRecipe', of(options({ epochs: 2, dropShare: 0.5 })))
const clip = options({ audio: 'a.wav', units: integers(1, 2) })
add('writeVoiceboxFilelist', (path, all) => usdm.writeVoiceboxFilelist(path, all), of('list.txt', many(clip)))
const sample = options({
  ...{ units: integers(1, 2), mel: made('new Float32Array(8)', () => new Float32Array(8)), bands: 4 },
  ...{ visible: list([0, 1]), time: 0.5, noiseSeed: 3 },
})
add('voiceboxCollate', (count, samples) => Object.values(usdm.voiceboxCollate(count)(samples)), of(5, many(sample)))

// ---- networks

const size = { hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 12 }
const wave = { convDim: [8], convKernel: [10], convStride: [5], numConvPosEmbeddings: 8, numConvPosEmbeddingGroups: 2 }
const encoder = made('a Wav2Vec2', () => lib.Wav2Vec2.fromConfig({ ...size, ...wave }, { seed: 1 }).eval())
const centroids = dense([UNITS, 8])

/** An extractor for one call. */
async function extracting<T>(given: Loose, work: (extractor: Loose) => Promise<T>): Promise<T> {
  const extractor = await lib.UnitExtractor.fromPretrained(given)
  try {
    return await work(extractor)
  } finally {
    extractor.dispose()
  }
}
add(
  'UnitExtractor.fromPretrained',
  (given) => extracting(given, async ({ units, layer }) => units + layer),
  of(options({ encoder, kmeans: centroids, layer: 1 })),
  of(options({ encoder, kmeans: centroids, layer: 1, windowSeconds: 0.1, overlapSeconds: 0.01 })),
)
for (const [name, ...right] of [
  ['extract', of(floats), of(floats, options({ maxUnits: 1000 }))],
  ['extractBatch', of(many(floats, floats)), of(many(floats), options({ batchSeconds: 0.1, maxUnits: 1000 }))],
  ['unitCount', of(3000)],
] as const) {
  add(
    `UnitExtractor.${name}`,
    async (network, ...args) => {
      const kmeans = lib.ones([UNITS, 8])
      try {
        return await extracting({ encoder: network, kmeans, layer: 1 }, async (own) => own[name](...args))
      } finally {
        kmeans.dispose()
      }
    },
    ...right.map((args): Args => [encoder, ...args]),
  )
}
/** A few passes: as many as are asked for would not end. */
const brief = (given: Loose): Loose => (given?.epochs > 100 ? { ...given, epochs: 1 } : given)
const disposed =
  (call: (...args: Loose[]) => Promise<Loose>) =>
  async (...args: Loose[]) => {
    const found = await call(...args)
    found.dispose()
  }
add(
  'fitUnits',
  disposed((given) => lib.fitUnits(brief(given))),
  of(options({ encoder, layer: 1, clips: many(floats), clusters: 2, epochs: 1, batchFrames: 50, maxFrames: 100, seed: 1 })), // biome-ignore format: one line
)
add(
  'fitKMeans',
  disposed((frames, given, ...rest) => lib.fitKMeans(frames, brief(given), ...rest)),
  of(dense([20, 3]), options({ clusters: 2, epochs: 1, batchFrames: 8, seed: 1 })),
)

function methods(name: string, network: Spec, right: Record<string, Args[]>): void {
  for (const [method, calls] of Object.entries(right)) {
    add(
      `${name}.${method}`,
      async (model, ...rest) => {
        if (!(model instanceof lib[name])) throw new lib.ConfigError('the fuzz spoiled the object itself')
        const found = await model[method](...rest)
        if (found?.[Symbol.asyncIterator] === undefined) return found
        const pieces: unknown[] = []
        for await (const piece of found) pieces.push(piece)
        return pieces
      },
      ...calls.map((args): Args => [network, ...args]),
    )
  }
}
const voicebox = made('a UnitVoicebox', () =>
  lib.UnitVoicebox.fromConfig(
    {
      ...{ ...size, numHiddenLayers: 2, nFeats: 4, nTokens: UNITS, embeddingDim: 4 },
      ...{ convposWidth: 3, convposGroups: 2, convposDepth: 1 },
    },
    { seed: 1 },
  ).eval(),
)
const [frames, mel] = [indices([1, 6]), dense([1, 4, 6])]
methods('UnitVoicebox', voicebox, {
  forward: [of(options({ units: frames, noisy: mel, condition: mel, time: dense([1], 'unit'), lengths: list([5]) }))],
  loss: [
    of(options({ units: frames, mel })),
    of(options({ units: frames, mel, visible: dense([1, 6], 'zeros', 'bool'), lengths: list([5]), time: dense([1], 'unit'), noise: mel })), // biome-ignore format: one line
  ],
  generate: [
    of(options({ units: frames, steps: 2, solver: 'euler', guidance: 0, seed: 1 })),
    of(options({ units: frames, steps: 3, prompt: dense([1, 4, 2]), promptLengths: list([2]), lengths: list([6]), promptNoise: 'fixed', noise: mel })), // biome-ignore format: one line
  ],
  normalize: [of(mel)],
  denormalize: [of(mel)],
})
const bigvgan = made('a BigVGAN', () =>
  lib.BigVGAN.fromConfig(
    {
      ...{ numMels: 4, upsampleInitialChannel: 8, upsampleRates: [2, 2], upsampleKernelSizes: [4, 4] },
      ...{ resblockKernelSizes: [3], resblockDilationSizes: [[1, 3]] },
    },
    { seed: 1 },
  ).eval(),
)
methods('BigVGAN', bigvgan, {
  forward: [of(options({ mel }))],
  stream: [of(dense([4, 6])), of(many(dense([4, 3]), dense([4, 3])), options({ chunkFrames: 2 }))],
})

// ---- the whole

const tiny = { modelType: 'mistral', hiddenSize: 8, intermediateSize: 8, numHiddenLayers: 1, numAttentionHeads: 2 }
async function whole<T>(parts: Loose, work: (model: Loose) => Promise<T>): Promise<T> {
  const llm = lib.DecoderLM.fromConfig(
    { ...tiny, numKeyValueHeads: 1, vocabSize: shared.vocabSize, maxPositionEmbeddings: 400 },
    { seed: 1 },
  ).eval()
  const network = lib.Wav2Vec2.fromConfig({ ...size, ...wave }, { seed: 1 }).eval()
  const kmeans = lib.ones([UNITS, 8])
  try {
    return await extracting({ encoder: network, kmeans, layer: 1 }, (units) =>
      work(new usdm.Usdm({ llm, tokenizer: shared, units, ...parts })),
    )
  } finally {
    for (const one of [llm, network, kmeans]) one.dispose()
  }
}
const asked = options({
  ...{ maxUnits: 3, maxTextTokens: 2, strict: true, seed: 1, history: many(turn) },
  sampling: options({ temperature: 0.5, topP: 0.9, topK: 3 }),
})
add(
  'Usdm',
  (box, sound, off) => whole({ voicebox: box, vocoder: sound, offload: off }, async (model) => model.speaks),
  of(null, null, undefined),
)
for (const name of ['respond', 'stream'] as const) {
  add(
    `Usdm.${name}`,
    (...args) =>
      whole({}, async (model) => {
        const found = model[name](...args)
        if (name === 'respond') return (await found).units.length
        for await (const _ of found);
        return 0
      }),
    of(options({ units: list([0, 1]) }), asked),
    of(floats, options({ transcript: 'hi', reply: 'yes', maxUnits: 2 })),
  )
}
add('Usdm.hear', (...args) => whole({}, (model) => model.hear(...args)), of(floats), of(options({ units: list([0]) }), options({}))) // biome-ignore format: one line
