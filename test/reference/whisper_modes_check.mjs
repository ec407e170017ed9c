// What the ways to transcribe a long recording differ in; after `npm run build` and `npx voxtorch weights NAME`:
//
//     node test/reference/whisper_modes_check.mjs [--data ../shared/data] [--minutes 60] [--default] [--output FILE] NAME
//
// The recording is that of test/models/long-speech.mjs. `plain` is the reference: windows one after the other,
// without the text before. Batched: 8 windows at once, with SileroVad and with energyVad. Windowed: without timestamps, so that
// each window begins 30 s behind the one before. --default adds plain as `transcribe` has it by default. All modes are streamed:
// what comes segment by segment must be the segments of the whole. --output writes clips and transcripts as JSON.
//
// The word error rate is against what transformers writes about each clip alone at its own level
// (test/fixtures/models/whisper-published.json). "missing" are clips that have neither a text nor a report.
// It printed, for 60 minutes and 365 clips:
//
//     plain: 5602 words; word error rate 37.0 %: 903 changed, 1496 left out, 166 put in; missing: 4 (two are reported in part, two have
//       one or two wrong words); reported: noText 831.0 s, vad 44.4 s, noSpeech 120.0 s
//     batched, SileroVad: 6749 words; word error rate 17.0 %: 686 changed, 338 left out, 155 put in; missing: 0; to plain 2413, of these
//       1838 in parts that are reported, 167 at borders of windows, 408 elsewhere; reported: vad 561.5 s, noText 255.7 s, noSpeech 7.7 s
//     windowed: 3327 words; word error rate 60.4 %: 499 changed, 3647 left out, 42 put in; missing: 2; to plain 3089, of these 2839 in
//       parts that are reported, 67 at borders of windows, 183 elsewhere; reported: noText 1819.7 s, noSpeech 90.0 s
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { energyVad, Generator, readClip, SileroVad, Whisper } from 'voxtorch'
import { differences, longSpeech, placesOfDifferences, untoldClips, wordsOf } from '../models/long-speech.mjs'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    data: { type: 'string', default: '../shared/data' },
    minutes: { type: 'string', default: '60' },
    modes: { type: 'string' },
    default: { type: 'boolean', default: false },
    output: { type: 'string' },
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
const results = {}
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
  const result = step.value
  results[mode] = result
  const { text, skipped } = result
  const words = wordsOf(text)
  console.log(`${mode}: ${words.length} words in ${took.toFixed(0)} s`)
  console.log(`  streamed: ${JSON.stringify(segments) === JSON.stringify(result.segments) ? 'the same' : 'DIFFERENT'}`)
  const counted = ({ changed, deleted, inserted, longestDeleted, longestInserted }) =>
    `${changed} changed, ${deleted} left out (at most ${longestDeleted} in a row), ${inserted} put in (${longestInserted})`
  if (clipWords) {
    const found = differences(clipWords, words)
    const rate = (found.changed + found.deleted + found.inserted) / clipWords.length
    console.log(`  word error rate ${(100 * rate).toFixed(1)} %: ${counted(found)}`)
    const missing = untoldClips(clips, texts, result)
    console.log(
      `  missing: ${missing.length}${missing.map((one) => ` ${one.name} at ${one.start.toFixed(1)} s`).join(',')}`,
    )
  }
  const { plain } = results
  if (plain && mode !== 'plain') {
    const { skipped, border, elsewhere } = placesOfDifferences(plain, result)
    const { changed, deleted, inserted } = elsewhere
    console.log(`  to plain: ${counted(differences(wordsOf(plain.text), words))}`)
    console.log(
      `  of these ${skipped} in parts that are reported, ${border} at borders of windows; elsewhere ${changed} changed, ${deleted} left out, ${inserted} put in`,
    )
  }
  const reasons = {}
  for (const { start, end, reason } of skipped) reasons[reason] = (reasons[reason] ?? 0) + end - start
  const parts = Object.entries(reasons).map(([reason, sum]) => `${reason} ${sum.toFixed(1)} s`)
  const late = segments.filter(({ end }) => end > seconds).length
  console.log(`  reported as skipped: ${parts.join(', ') || 'nothing'}; ${late} segments end late`)
  if (values.output) writeFileSync(values.output, JSON.stringify({ clips, results }))
}
