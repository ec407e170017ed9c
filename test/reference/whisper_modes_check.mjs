// What the ways to transcribe a long recording differ in; after `npm run build` and `npx voxtorch weights NAME`:
//
//     node test/reference/whisper_modes_check.mjs [--data ../shared/data] [--minutes 60] [--default] NAME
//
// The recording is that of test/models/long-speech.mjs. `plain` is the reference: windows one after the other,
// without the text before. Batched: 8 windows at once, with SileroVad and with energyVad. Windowed: without timestamps, so that
// each window begins 30 s behind the one before. --default adds plain as `transcribe` has it by default. "to the clips" counts
// against what transformers writes about each clip alone at its own level (test/fixtures/models/whisper-published.json).
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { energyVad, Generator, readClip, SileroVad, Whisper } from 'voxtorch'
import { differences, longSpeech, wordsOf } from '../models/long-speech.mjs'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    data: { type: 'string', default: '../shared/data' },
    minutes: { type: 'string', default: '60' },
    modes: { type: 'string' },
    default: { type: 'boolean', default: false },
  },
})
const [name = 'whisper-tiny.en'] = positionals
const seconds = 60 * Number(values.minutes)
const read = async (file) => Float32Array.from(await (await readClip(file)).data())
const { samples, clips } = await longSpeech(join(values.data, 'librispeech-other'), seconds, read)
const texts = JSON.parse(readFileSync(new URL('../fixtures/models/whisper-published.json', import.meta.url), 'utf8'))[
  name
]
const clipWords = texts && clips.flatMap((clip) => wordsOf(texts[clip.name]))

const whisper = await Whisper.fromPretrained(name, { offline: true })
whisper.freeze()
const silero = await SileroVad.fromPretrained('silero-vad', { offline: true })
const language = name.endsWith('.en') ? null : 'en'
const modes = {
  plain: { conditionOnPrevious: false },
  // The default where its weights are stored, which fromPretrained made sure of.
  'batched, SileroVad': { batchSize: 8 },
  'batched, energyVad': { batchSize: 8, vad: energyVad },
  windowed: { conditionOnPrevious: false, timestamps: false },
  ...(values.default && { default: {} }),
}
silero.dispose()
let plain
for (const [mode, options] of Object.entries(modes)) {
  if (values.modes && !values.modes.split(';').includes(mode)) continue
  const begin = performance.now()
  const segments = []
  const stream = whisper.transcribeStream(samples, {
    language,
    generator: new Generator({ seed: 1 }),
    ...options,
  })
  let step = await stream.next()
  for (; !step.done; step = await stream.next()) segments.push(step.value)
  const took = (performance.now() - begin) / 1000
  const { text, skipped } = step.value
  const words = wordsOf(text)
  plain ??= words
  const left = skipped.reduce((sum, { start, end }) => sum + end - start, 0)
  const late = segments.filter(({ end }) => end > seconds).length
  const to = (found) =>
    `${found.changed} changed, ${found.deleted} left out (at most ${found.longestDeleted} in a row), ${found.inserted} put in (${found.longestInserted})`
  console.log(
    `${mode}: ${words.length} words in ${took.toFixed(0)} s; to plain ${to(differences(plain, words))}; ` +
      `${clipWords ? `to the clips ${to(differences(clipWords, words))}; ` : ''}left out ${left.toFixed(1)} s in ${skipped.length} parts; ${late} segments end late`,
  )
}
