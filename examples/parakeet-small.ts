/**
 * Train a small Parakeet (FastConformer with a TDT head) from scratch on the telephone prompts of one speaker, and compare its word
 * error rate with that of Whisper.
 *
 * `npx tsx examples/parakeet-small.ts --asterisk DIR --transcripts FILE [--out DIR] [--config FILE]`
 *
 * DIR of --asterisk is `en_US_f_Allison` of Debian's package `asterisk-core-sounds-en-wav`; FILE has lines of `name: text`.
 *
 * OUT/model is the model, for `npx voxtorch transcribe --model OUT/model FILE`; OUT/small.json has the word error rates,
 * OUT/answers.json the texts. The same command continues a killed run.
 */
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'
import { normalText, wordErrorRate } from './salmonn-small-words.js'

/** Sample rate of the recordings, and of the model's features. */
const RATE = 8000
const { values: options } = parseArgs({
  options: {
    asterisk: { type: 'string' },
    transcripts: { type: 'string' },
    out: { type: 'string', default: 'parakeet-small' },
    config: { type: 'string', default: join(dirname(fileURLToPath(import.meta.url)), 'parakeet-small.json') },
  },
})
const { asterisk, transcripts, out } = options
if (!asterisk || !transcripts) throw new Error('say where the recordings are: --asterisk DIR --transcripts FILE')
const config = (await vt.readJson(options.config)) as {
  seed: number
  /** Name or folder of the Whisper to compare with; null: none. */
  whisper: string | null
  model: vt.ParakeetTDTConfig
  /** Prompts that are held out, and those with fewer words that are not; sequences of digits and letters; seconds of a clip, at most. */
  data: { heldOut: number; heldOutWords: number; sequences: number; longest: number }
  training: Partial<vt.TrainingArguments> & { maxSteps: number; perDeviceTrainBatchSize: number }
}
const { seed, data, training } = config

interface Prompt {
  name: string
  path: string
  text: string
  samples: vt.Tensor
}
const prompts: Prompt[] = []
for (const line of readFileSync(transcripts, 'utf8').split('\n')) {
  const [, name = '', written = ''] = /^([^:\s]+?)(?:\.wav)?:\s*(\S.*)$/.exec(line) ?? []
  const path = resolve(asterisk, `${name}.wav`)
  const text = normalText(written)
  // Tones and silence stand in brackets. Numbers above 99 are not in words.
  if (/[[\](]/.test(written) || /^$|[^a-z' ]/.test(text) || name === '' || !existsSync(path)) continue
  const samples = await vt.readClip(path, { sampleRate: RATE })
  if (samples.size(0) <= data.longest * RATE) prompts.push({ name, path, text, samples })
}

// Held out: prompts whose words all occur in other prompts, and sequences of digits and letters.
const random = new vt.Random(seed)
const counts = new Map<string, number>()
const wordsOf = (text: string) => new Set(text.split(' '))
const texts = random.shuffle([...new Set(prompts.map(({ text }) => text))])
for (const word of texts.flatMap((text) => [...wordsOf(text)])) counts.set(word, (counts.get(word) ?? 0) + 1)
const heldOut = new Set<string>()
for (const text of texts) {
  const words = [...wordsOf(text)]
  const isKnown = words.every((word) => counts.get(word)! > 1)
  if (heldOut.size === data.heldOut || text.split(' ').length < data.heldOutWords || !isKnown) continue
  heldOut.add(text)
  for (const word of words) counts.set(word, counts.get(word)! - 1)
}
const known = prompts.filter(({ text }) => !heldOut.has(text))
const short = known.filter(({ samples }) => samples.size(0) < 2 * RATE)
const symbols = known.filter(({ name }) => /^(digits\/\d|letters\/[a-z])$/.test(name))
const pick = <T>(from: readonly T[], random: vt.Random): T => from[random.below(from.length)]!
const textOf = (parts: readonly Prompt[]) => parts.map(({ text }) => text).join(' ')

/** Join prompts with pauses between them. */
function joined(parts: readonly Prompt[], random: vt.Random, gain = () => 1): vt.Tensor {
  const pieces = parts.flatMap(({ samples }, i) => {
    const pause = i === 0 ? [] : [vt.zeros([Math.floor((0.05 + 0.35 * random.float()) * RATE)])]
    return [...pause, samples.mul(gain())]
  })
  return vt.cat(pieces)
}

interface Test {
  path: string
  right: string
}
const tests: Record<'prompts' | 'sequences', Test[]> = {
  prompts: prompts.filter(({ text }) => heldOut.has(text)).map(({ path, text }) => ({ path, right: text })),
  sequences: [],
}
mkdirSync(join(out, 'sequences'), { recursive: true })
while (tests.sequences.length < data.sequences) {
  const parts = Array.from({ length: 3 + random.below(3) }, () => pick(symbols, random))
  const path = resolve(out, 'sequences', `${tests.sequences.length}.wav`)
  tests.sequences.push({ path, right: textOf(parts) })
  await vt.scope(() => vt.writeWav(path, joined(parts, random), { sampleRate: RATE }))
}
const reserved = new Set(tests.sequences.map(({ right }) => right))

/** Prompts of a sample: a single one, or 2 to 5 short ones. It depends on nothing but the seed and the number of the sample. */
function partsOf(index: number): { parts: Prompt[]; random: vt.Random } {
  const random = new vt.Random(seed, 1 + index)
  if (random.float() < 0.5) return { parts: [pick(known, random)], random }
  for (;;) {
    const from = random.float() < 0.3 ? symbols : short
    const parts = Array.from({ length: 2 + random.below(4) }, () => pick(from, random))
    if (!reserved.has(textOf(parts))) return { parts, random }
  }
}
const trainDataset = {
  length: training.maxSteps * training.perDeviceTrainBatchSize,
  get: partsOf,
  lengthOf: (index: number) => partsOf(index).parts.reduce((sum, { samples }) => sum + samples.size(0), 0),
}

/** Join and augment: levels, speed and noise of the clips; bands and times of the features that are hidden. */
async function collate(rows: ReturnType<typeof partsOf>[]) {
  const clips: vt.Tensor[] = []
  const labels: bigint[][] = []
  for (const { parts, random } of rows) {
    const sound = joined(parts, random, () => 10 ** (0.6 * random.float() - 0.3))
    const clip = await vt.resample(sound, 16 + random.below(9), 20)
    const generator = new vt.Generator(random.uint32())
    const noise = clip.square().mean().sqrt().mul(10 ** (-0.5 - 2 * random.float())) // 10 to 50 dB below the speech
    clips.push(clip.add(vt.randn(clip.shape, { generator }).mul(noise)))
    labels.push(tokenizer.encode(textOf(parts)).inputIds.map(BigInt))
  }
  const { inputFeatures, attentionMask } = await model.extractFeatures(clips)
  for (const [row, { random }] of rows.entries()) {
    const features = inputFeatures.select(0, row)
    for (const [dim, most] of [[0, 15], [0, 15], [1, 8], [1, 8]] as const) { // biome-ignore format: one line
      const width = random.below(Math.min(most, features.size(dim)))
      features.narrow(dim, random.below(features.size(dim) - width), width).zero_()
    }
  }
  const longest = Math.max(...labels.map(({ length }) => length))
  const padded = labels.map((row) => [...row, ...Array<bigint>(longest - row.length).fill(-100n)])
  return { inputFeatures, attentionMask, labels: vt.tensor(padded) }
}

// One token for each letter; ▁ is a space.
const vocab = Object.fromEntries([...['<unk>', '<pad>'], ..."▁'abcdefghijklmnopqrstuvwxyz", '<blank>'].map((token, id) => [token, id])) // biome-ignore format: one line
const spaces = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: false }
const special = ['<unk>', '<pad>', '<blank>'].map((content) => ({ id: vocab[content], content, special: true }))
const letters = { model: { type: 'BPE', unk_token: '<unk>', vocab, merges: [] }, pre_tokenizer: spaces, decoder: spaces }
mkdirSync(join(out, 'tokenizer'), { recursive: true })
await vt.writeJson(join(out, 'tokenizer/tokenizer.json'), { ...letters, added_tokens: special })
const names = { tokenizer_class: 'ParakeetTokenizer', unk_token: '<unk>', pad_token: '<pad>' }
await vt.writeJson(join(out, 'tokenizer/tokenizer_config.json'), names)
const tokenizer = await vt.Tokenizer.fromPretrained(join(out, 'tokenizer'))

const vocabSize = tokenizer.vocabSize
const ids = { vocabSize, blankTokenId: vocabSize - 1, padTokenId: 1 }
const model = vt.ParakeetForTDT.fromConfig({ ...config.model, ...ids }, { seed })
model.tokenizer = tokenizer
model.features = { ...model.features, samplingRate: RATE, hopLength: RATE / 100, winLength: RATE / 40 }
const minutes = known.reduce((sum, { samples }) => sum + samples.size(0), 0) / RATE / 60
console.log(
  `${model.parameters().reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)} weights, ${known.length} prompts of ${minutes.toFixed(1)} minutes to learn from, ${tests.prompts.length} held out`,
)

const trainer = new vt.Trainer({
  ...{ model, trainDataset, collate, lengthOf: undefined },
  args: { ...training, outputDir: join(out, 'training'), seed },
  callbacks: [{ onLog: ({ logs: { step, loss } }) => console.log(`step ${step}: loss ${loss}`) }],
})
await trainer.train()
await model.eval().save(join(out, 'model'))

/** Whisper writes `B7` and `42` for letters and digits in a row. */
const spelled = (text: string) => text.replace(/\b[A-Z0-9]{2,}\b/g, (run) => [...run].join(' '))
const whisper = config.whisper === null ? null : await vt.Whisper.fromPretrained(config.whisper)
const figures: Record<string, number> = { steps: trainer.state.globalStep }
const answers: Record<string, Record<string, string>[]> = {}
for (const [name, files] of Object.entries(tests)) {
  answers[name] = []
  for (const { path, right } of files) {
    const { text: parakeet } = await model.transcribe(path)
    const heard = whisper ? (await whisper.transcribe(path, { language: 'en' })).text : ''
    answers[name].push({ path, right, parakeet, whisper: name === 'sequences' ? spelled(heard) : heard })
  }
  for (const who of whisper ? ['parakeet', 'whisper'] : ['parakeet']) {
    figures[`${name}, ${who}`] = wordErrorRate(answers[name].map((one) => ({ said: one[who]!, right: one.right! })))
  }
}
await vt.writeJson(join(out, 'answers.json'), answers, { indent: 2 })
await vt.writeJson(join(out, 'small.json'), figures, { indent: 2 })
console.log(JSON.stringify(figures, null, 2))
