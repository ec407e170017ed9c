/**
 * Train a small Parakeet (FastConformer with a TDT head) from scratch on the telephone prompts of one speaker, and compare its word
 * error rate with that of Whisper.
 *
 * `npx tsx examples/parakeet-small.ts --asterisk DIR --transcripts FILE [--out DIR] [--config FILE]`
 *
 * DIR is the folder `en_US_f_Allison` of Debian's package `asterisk-core-sounds-en-wav`. FILE has lines of `name: text`: it is
 * `core-sounds-en.txt` of the package `asterisk-core-sounds-en`.
 *
 * OUT/model is the model, for `npx voxtorch transcribe --model OUT/model FILE`; OUT/small.json has error rates of words,
 * OUT/answers.json the texts. The same command continues a killed run.
 */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'
import { holdOut, type ParakeetDataSettings, PromptBatches, RATE, readPrompts, writeTokenizer } from './parakeet-small-data.js' // biome-ignore format: one line
import { wordErrorRate } from './salmonn-small-words.js'

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
  data: ParakeetDataSettings
  training: Partial<vt.TrainingArguments> & { maxSteps: number; perDeviceTrainBatchSize: number }
}
const used = join(out, 'config.json')
if (existsSync(used) && JSON.stringify(await vt.readJson(used)) !== JSON.stringify(config))
  throw new Error(`${out} is of other settings: name another folder with --out, or remove it`)
const { seed, data, training } = config

const prompts = await readPrompts(asterisk, transcripts, data.longest, RATE)
const random = new vt.Random(seed)
const heldOut = holdOut(prompts, data, random)
const known = prompts.filter(({ text }) => !heldOut.has(text))
const batches = new PromptBatches(known, data, seed)
const tests = {
  prompts: prompts.filter(({ text }) => heldOut.has(text)).map(({ path, text }) => ({ path, right: text })),
  sequences: await batches.writeSequences(join(out, 'sequences'), random),
}
await vt.writeJson(used, config, { indent: 2 })
await writeTokenizer(join(out, 'tokenizer'), new Set(known.map(({ text }) => text)), data.merges)
const tokenizer = await vt.Tokenizer.fromPretrained(join(out, 'tokenizer'))

const { vocabSize, padTokenId } = tokenizer
const ids = { vocabSize, blankTokenId: vocabSize - 1, padTokenId: padTokenId! }
const model = vt.ParakeetForTDT.fromConfig({ ...config.model, ...ids }, { seed })
model.tokenizer = tokenizer
model.features = { ...model.features, samplingRate: RATE, hopLength: RATE / 100, winLength: RATE / 40 }
const weights = model.parameters().reduce((sum, one) => sum + one.numel(), 0)
const minutes = known.reduce((sum, { samples }) => sum + samples.size(0), 0) / RATE / 60
console.log(
  `${weights} weights; ${known.length} prompts, ${minutes.toFixed(1)} minutes; held out: ${tests.prompts.length}`,
)

/** Return the input of a step. A band and a moment of the features are hidden. */
async function batchOf(step: number) {
  const { clips, texts, random } = await batches.batch(step, training.perDeviceTrainBatchSize)
  const { inputFeatures, attentionMask } = await model.extractFeatures(clips)
  for (const features of inputFeatures.unbind(0)) {
    for (const [dim, most] of [
      [0, 10],
      [1, 8],
    ] as const) {
      // biome-ignore format: one line
      const width = random.below(most)
      features.narrow(dim, random.below(features.size(dim) - width), width).zero_()
    }
  }
  const tokens = texts.map((text) => tokenizer.encode(text).inputIds.map(BigInt))
  const longest = Math.max(...tokens.map(({ length }) => length))
  const labels = vt.tensor(tokens.map((row) => [...row, ...Array<bigint>(longest - row.length).fill(-100n)]))
  return { inputFeatures, attentionMask, labels }
}
let first = 0
const trainer = new vt.Trainer({
  model,
  trainDataset: {
    length: training.maxSteps,
    setEpoch: (_: number, firstBatch = 0) => (first = firstBatch),
    async *[Symbol.asyncIterator]() {
      for (let step = first; step < training.maxSteps; step += 1) yield await batchOf(step)
    },
  },
  args: { ...training, outputDir: join(out, 'training'), seed },
  callbacks: [{ onLog: ({ logs: { step, loss } }) => console.log(`step ${step}: loss ${loss}`) }],
})
await trainer.train()
await model.eval().save(join(out, 'model'))

/** Whisper writes `B7`, `42` and `4mxq8` for letters and digits in a row. */
const spelled = (text: string) =>
  text.replace(/[A-Za-z0-9]+/g, (run) => (/\d|^[A-Z]{2,}$/.test(run) ? [...run].join(' ') : run))
const whisper = config.whisper === null ? null : await vt.Whisper.fromPretrained(config.whisper)
const figures: Record<string, number> = { steps: trainer.state.globalStep }
const answers: Record<string, Record<string, string>[]> = {}
for (const [name, files] of Object.entries(tests)) {
  const rows = (answers[name] = [] as Record<string, string>[])
  for (const { path, right } of files) {
    const row: Record<string, string> = { path, right, parakeet: (await model.transcribe(path)).text }
    if (whisper) {
      const { text } = await whisper.transcribe(path, { language: 'en' })
      row.whisper = name === 'sequences' ? spelled(text) : text
    }
    rows.push(row)
  }
  for (const who of whisper ? ['parakeet', 'whisper'] : ['parakeet'])
    figures[`${name}, ${who}`] = wordErrorRate(rows.map((row) => ({ said: row[who]!, right: row.right! })))
}
await vt.writeJson(join(out, 'answers.json'), answers, { indent: 2 })
await vt.writeJson(join(out, 'small.json'), figures, { indent: 2 })
console.log(JSON.stringify(figures, null, 2))
