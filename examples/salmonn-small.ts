/**
 * Train a small SALMONN from published parts: Whisper base's encoder, a window Q-Former, and SmolLM2-135M-Instruct with LoRA. Its
 * tasks are transcription, emotion and gender.
 *
 * `npx tsx examples/salmonn-small.ts --transcripts FILE --librispeech DIR --emodb DIR [--asterisk DIR] [--out DIR] [--config FILE]`
 *
 * Downloads whisper-base (150 MB) and smollm2-135m-instruct (93 MB), see `voxtorch weights`. You provide the recordings of
 * Debian's package `asterisk-core-sounds-en-wav` with their transcripts (lines of `name: text`), readings of LibriSpeech (a folder
 * per reader; Whisper base transcribes them), and Emo-DB with labels.csv.
 *
 * The encoder is frozen, so each clip is encoded once. Prompts, readers and actors are held out. The test runs again with other
 * clips, as a baseline. OUT/small.json has the numbers, OUT/report.html clips, answers and losses, OUT/model the model. The same
 * command continues a killed run.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'
import * as salmonn from 'voxtorch/salmonn'
import { type SmallDataSettings, withOthersAudio, writeSmallData } from './salmonn-small-data.js'
import { type Answer, measured, reportOf } from './salmonn-small-report.js'

const here = dirname(fileURLToPath(import.meta.url))
const { values: options } = parseArgs({
  options: {
    asterisk: { type: 'string', default: '/usr/share/asterisk/sounds/en_US_f_Allison' },
    transcripts: { type: 'string' },
    librispeech: { type: 'string' },
    emodb: { type: 'string' },
    out: { type: 'string', default: 'salmonn-small' },
    config: { type: 'string', default: join(here, 'salmonn-small.json') },
  },
})
const { out, asterisk } = options
const place = (name: 'transcripts' | 'librispeech' | 'emodb') => {
  const given = options[name]
  if (given === undefined) throw new Error(`say where it is: --${name}`)
  return given
}
const config = (await vt.readJson(options.config)) as {
  /** By name, or a folder or file; `language` is the tokenizer's too. */
  parts: { whisper: string; llm: string; labels: string }
  model: Partial<salmonn.SalmonnConfig>
  prompts: salmonn.SalmonnPromptTable
  data: SmallDataSettings
  recipe: Partial<salmonn.SalmonnRecipe>
}
const seed = config.recipe.seed ?? 0
const sources = {
  asterisk,
  transcripts: place('transcripts'),
  librispeech: place('librispeech'),
  emodb: place('emodb'),
}
const files = await writeSmallData(sources, join(out, 'data'), config.data, config.parts.labels)

vt.manualSeed(seed)
const { whisper, llm } = config.parts
const model = await vt.Salmonn.fromPretrained({ whisper, llm, beats: null }, { seed, config: config.model })
model.frames = new salmonn.SalmonnFrames()
startAsLoudAsWords(model)

const prompts = new salmonn.SalmonnPrompts(config.prompts)
const { template } = model.config
const read = await salmonn.openSalmonnData({ train: [files.train], valid: [files.valid], test: [files.test] }, { seed })
const asked = (entries: readonly salmonn.SalmonnEntry[]) =>
  new salmonn.SalmonnDataset(entries, { prompts, template, emotionSuffix: false, seed })
const [train, valid, test] = [read.train, read.valid, read.test].map(({ entries }) => asked(entries)) as [
  salmonn.SalmonnDataset,
  salmonn.SalmonnDataset,
  salmonn.SalmonnDataset,
]
console.log(`${train.length}, ${valid.length}, ${test.length} questions to learn from, to watch, to test on`)

const training = join(out, 'training')
const results = await salmonn.trainSalmonn(model, {
  ...{ train, valid, outputDir: training, stage: 2 },
  recipe: { ...config.recipe, seed },
  // What goes on is the last weights: those that were best on a few words of one reader are best by chance, and too early.
  args: { reportTo: ['jsonl', 'html'], loadBestModelAtEnd: false },
  callbacks: [{ onLog: ({ logs }) => console.log(told(logs)) }],
})
await model.save(join(out, 'model'))

const generation = { numBeams: 1, maxNewTokens: 32 }
const answersOf = async (dataset: salmonn.SalmonnDataset): Promise<Answer[]> =>
  (await salmonn.scoreSalmonn(model, dataset, { generation, batchSize: 16 })).answers.map((answer, i) => ({
    ...answer,
    speaker: dataset.entries[i]!.speaker!,
    audio: dataset.entries[i]!.audio[0]!,
  }))
const heard = await answersOf(test)
const others = await answersOf(asked(withOthersAudio(test.entries, seed)))
const figures = { ...measured(heard, others, train.entries), steps: results.globalStep }
await vt.writeJson(join(out, 'small.json'), figures, { indent: 2 })
await vt.writeJson(join(out, 'answers.json'), { heard, others }, { indent: 2 })
const metrics = (await readFile(join(training, 'metrics.jsonl'), 'utf8')).trimEnd().split('\n')
await writeFile(
  join(out, 'report.html'),
  await reportOf(
    figures,
    heard,
    others,
    metrics.map((line) => JSON.parse(line)),
  ),
)
console.log(JSON.stringify(figures, null, 2))
console.log(
  `${model.frames.misses} windows were heard, ${model.frames.hits} times one was there; see ${join(out, 'report.html')}`,
)
model.dispose()

/** Audio begins as loud as the language model's words are, and not many times as loud: its layers are frozen. */
function startAsLoudAsWords({ llm, speech_llama_proj: projection }: salmonn.Salmonn): void {
  vt.noGrad(() =>
    vt.scope(() => {
      const words = llm.stateDict()['model.embed_tokens.weight']!.to({ dtype: 'float32' }).square().mean().sqrt()
      projection.weight.mul_(words.div(projection.weight.square().sum([1]).mean().sqrt()))
      projection.bias!.zero_()
    }),
  )
}

function told({ step, loss, evalLoss, evalAccuracy }: Record<string, unknown>): string {
  const number = (value: unknown) => (value as number).toFixed(3)
  if (evalLoss === undefined) return `step ${step}: loss ${number(loss)}`
  return `step ${step}: validation loss ${number(evalLoss)}, token accuracy ${number(evalAccuracy)}`
}
