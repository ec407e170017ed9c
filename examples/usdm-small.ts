/**
 * Build a small USDM from published parts: Whisper base's encoder and k-means for units, SmolLM2-135M-Instruct with K + 3 new
 * tokens for transcripts, replies and units, and a Voicebox with Griffin-Lim for speech.
 *
 * `npx tsx examples/usdm-small.ts --dailytalk DIR --voices DIR [--out DIR] [--config FILE] [--bf16]`
 *
 * Downloads whisper-base (150 MB) and smollm2-135m-instruct (93 MB), see `voxtorch weights`. DIR of --dailytalk has the
 * corpus's `train_phone.txt` and `val_phone.txt`; its clips are not needed: two voices of espeak-ng speak the texts. DIR of --voices is
 * a cache for the recordings of Debian's fillets-ng-data-cs and -nl, which are downloaded to it.
 *
 * --bf16: the language model's trainings compute in bfloat16, which is faster where the processor has it (`voxtorch doctor`).
 *
 * Stages, each of which writes a file in OUT and is not repeated: dialogs and voices, units, examples, pre-training, rehearsal and
 * fine-tuning of the language model, tests, memorization, Voicebox, replies. OUT/small.json has the numbers, OUT/report.html clips,
 * replies and losses, OUT/usdm the model for `voxtorch serve usdm --model OUT/usdm`. The same command continues a killed run.
 */
import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'
import * as usdm from 'voxtorch/usdm'
import { realVoices, type SpeechSettings, speakDialogs, type VoicesSettings } from './usdm-small-data.js'
import {
  converse,
  findUnits,
  learnByHeart,
  listening,
  openUnits,
  type PretrainingSettings,
  pretrain,
  type RehearsalSettings,
  recite,
  rehearse,
  trainedModel,
  trainMain,
  type UnitSettings,
} from './usdm-small-model.js'
import { type Figures, reportOf } from './usdm-small-report.js'
import { melErrors, trainVoicebox, type VoiceboxSettings } from './usdm-small-voice.js'

const here = dirname(fileURLToPath(import.meta.url))
const { values: options } = parseArgs({
  options: {
    dailytalk: { type: 'string' },
    voices: { type: 'string' },
    out: { type: 'string', default: 'usdm-small' },
    bf16: { type: 'boolean', default: false },
    config: { type: 'string', default: join(here, 'usdm-small.json') },
  },
})
const { out, bf16 } = options
const place = (name: 'dailytalk' | 'voices') => {
  const given = options[name]
  if (given === undefined) throw new Error(`say where it is: --${name}`)
  return given
}
const [dailytalk, cache] = [place('dailytalk'), place('voices')]
const config = (await vt.readJson(options.config)) as {
  /** By name, or folders or files. */
  parts: { whisper: string; llm: string }
  speech: SpeechSettings
  voices: VoicesSettings
  units: UnitSettings
  pretraining: PretrainingSettings
  rehearsal: RehearsalSettings
  main: Partial<usdm.UsdmRecipe>
  byHeart: Partial<usdm.UsdmRecipe>
  checkEpochs: number
  test: { listening: number; replies: number; maxUnits: number }
  voicebox: VoiceboxSettings
}
const { parts, speech, voices, units, checkEpochs, test } = config
mkdirSync(out, { recursive: true })

const spoken = await stage('dialogs', [speech], () => speakDialogs(dailytalk, out, speech))
const real = await stage('voices', [voices], () => realVoices(cache, out, voices))
await stage('units', [parts.whisper, speech, voices, units], () => {
  const some = (folder: string) =>
    new vt.Random(units.seed)
      .shuffle(readdirSync(join(out, folder)).sort())
      .slice(0, units.clips)
      .map((file) => join(out, folder, file))
  return findUnits(parts.whisper, out, [...some('clips'), ...some('real/train')], units)
})
using extractor = await openUnits(out, units.layer)
const llm = await vt.resolveModel(parts.llm)
const tokenizer = await usdm.UsdmTokenizer.fromPretrained(llm, { units: extractor.units })
const data = [parts, speech, voices, units]
await stage('examples', data, async () => {
  const counts: Record<string, number> = {}
  for (const part of ['train', 'valid', 'test', 'by-heart']) {
    const made = await usdm.preprocessUsdmJsonl({
      ...{ tokenizer, units: extractor, unitFolder: join(out, 'units'), extract: { progress: true } },
      ...{ data: join(out, `${part}.jsonl`), output: join(out, `${part}.txt`) },
    })
    counts[part] = made.examples
  }
  return counts
})
const told = [...data, config.pretraining, bf16]
const phrases = await stage('pre-training', told, () =>
  pretrain(llm, out, tokenizer, extractor, { ...config.pretraining, bf16 }),
)
const taught = [...told, config.rehearsal]
const rehearsed = await stage('rehearsal-training', taught, () =>
  rehearse(out, tokenizer, extractor, { ...config.rehearsal, bf16 }),
)
const asked = { recipe: config.byHeart, checkEpochs, bf16 }
const main = await stage('main-training', [...taught, config.main], () =>
  trainMain(out, tokenizer, { recipe: config.main, checkEpochs, bf16 }),
)
const heard = await stage('listening', [...taught, config.main, test.listening], async () => {
  using model = await trainedModel(out, 'main')
  return await listening(out, model.eval(), tokenizer, extractor, test.listening)
})
const trained = await stage('by-heart-training', [...taught, config.main, asked], () =>
  learnByHeart(out, tokenizer, asked),
)
const known = await stage('reciting', [...taught, config.main, asked], async () => {
  using model = await trainedModel(out, 'by-heart')
  return await recite(out, new usdm.Usdm({ llm: model.eval(), tokenizer, units: extractor }))
})
const voiced = await stage('voicebox', [...data, config.voicebox], async () => {
  const { steps, parameters } = await trainVoicebox(out, extractor, config.voicebox)
  const { error, clips } = await melErrors(out, extractor.units, config.voicebox, 2)
  return { steps, parameters, error, clips: clips.map(({ name }) => name) }
})
const model = await trainedModel(out, 'main')
using voicebox = await vt.UnitVoicebox.fromPretrained(join(out, 'voicebox', 'model'))
const vocoder = new usdm.GriffinLimVocoder()
using whole = new usdm.Usdm({ llm: model.eval(), tokenizer, units: extractor, voicebox: voicebox.eval(), vocoder })
if (!existsSync(join(out, 'usdm', 'config.json'))) await whole.save(join(out, 'usdm'))
const { scores, predictions } = await stage('replies', [config], () => converse(out, whole, parts.whisper, test))
model.dispose()

const figures: Figures = {
  hours: { synthetic: spoken.hours, real: real.hours },
  pairs: spoken.pairs,
  steps: {
    pretraining: phrases.steps,
    rehearsal: rehearsed.steps,
    main: main.steps,
    byHeart: trained.steps,
    voicebox: voiced.steps,
  },
  ...{ byHeart: known, listening: heard, scores, mel: voiced.error },
}
await vt.writeJson(join(out, 'small.json'), figures, { indent: 2 })
const { clips } = await melErrors(out, extractor.units, config.voicebox, 2, 2)
await writeFile(join(out, 'report.html'), await reportOf(out, figures, predictions, clips))
console.log(JSON.stringify(figures, null, 2))
console.log(`See ${join(out, 'report.html')}`)

/** Return the result of a stage: from its file if it exists, else by running it, continuing a killed run. */
async function stage<T>(name: string, settings: unknown, work: () => Promise<T>): Promise<T> {
  const file = join(out, `${name}.json`)
  const wanted = JSON.stringify(settings)
  if (existsSync(file)) {
    const found = JSON.parse(await readFile(file, 'utf8')) as { settings: unknown; result?: T }
    if (JSON.stringify(found.settings) !== wanted) {
      throw new Error(`${file} is of other settings: name another folder with --out, or remove what depends on them`)
    }
    if (found.result !== undefined) return found.result
  } else await vt.writeJson(file, { settings })
  console.log(`${name}: begun`)
  const begun = Date.now()
  const result = await work()
  console.log(`${name}: done, ${((Date.now() - begun) / 60_000).toFixed(1)} minutes`)
  await vt.writeJson(file, { settings, result }, { indent: 2 })
  return result
}
