import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { dirname, extname, join } from 'node:path'
import { openClip, SPEECH_RATE } from '../../../audio/clip.js'
import { makeDirectory } from '../../../base/atomic.js'
import { defined, misuse, requireOneOf, requireOptions, requireSignal, requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { withoutEnd } from '../../../base/words.js'
import { ProgressBar, type ProgressStream } from '../../../data/progress.js'
import { utf8 } from '../../../files/text.js'
import { type TextGrid, writeTextGrid } from '../../../files/textgrid.js'
import { BadRecords, type OnBadRecord } from '../../../kit/records.js'
import { soundFiles } from '../../../models/units/unit-folder.js'
import { Whisper } from '../../../models/whisper/whisper.js'
import { scope } from '../../../tensor/index.js'
import { type AlignedWord, ustmTranscript, wordsOfTimes } from './words.js'

export interface AlignUstmOptions {
  /** With a tokenizer. */
  whisper: Whisper
  /** The folder of sound files, of any depth. */
  data: string
  /** Where `<name>.TextGrid` of each is written; what is there stays. Default: `data` with `-textgrid` at its end. */
  output?: string
  /**
   * The folder of transcripts, `<name>.txt` each, whose words are found in the clip. Where a clip has none, the words are those
   * that Whisper hears. Default: `data`.
   */
  transcripts?: string
  /** A code or an English name. Default 'en', where the network knows others. */
  language?: string
  /** What a clip that cannot be aligned does: 'stop' (default) throws; 'skip' leaves it out and counts it. */
  onBadRecord?: OnBadRecord
  /** A bar on stderr, or on the stream given. Default false. */
  progress?: boolean | ProgressStream
  /** Gives up between two clips; what was written stays, and the next call goes on from it. */
  signal?: AbortSignal
}

export interface AlignedUstm {
  /** Sound files, and of how many there are TextGrids now. */
  clips: number
  files: number
  /** How many of them were made by this call, and of these, how many by their transcripts. */
  aligned: number
  byTranscript: number
  badRecords: number
  badRecordErrors: DataError[]
}

/**
 * Finds when each word of clips is said, by the attention of a Whisper, so that no outside aligner is needed: writes TextGrids with
 * a tier `words`, which `prepareUstm` reads. Words are as `ustmTranscript` has them; clips with a transcript last 30 seconds at
 * most, the others as long as they like. A run that was ended goes on.
 *
 * ```ts
 * const whisper = await Whisper.fromPretrained('whisper-base')
 * await alignUstm({ whisper, data: 'LibriTTS/dev-clean' })
 * await prepareUstm({ textGrids: 'LibriTTS/dev-clean-textgrid', output: 'ustm', tokenizer })
 * ```
 * @throws DataError naming the clip that cannot be used; ConfigError where there is no sound file, and where two differ in their
 * endings only
 */
export async function alignUstm(options: AlignUstmOptions): Promise<AlignedUstm> {
  const where = 'alignUstm'
  requireOptions(where, options, ['whisper', 'data', 'output', 'transcripts', 'language', 'onBadRecord', 'progress', 'signal']) // biome-ignore format: one line
  const { whisper, data, transcripts = data, language, onBadRecord = 'stop', progress = false, signal } = options
  if (!(whisper instanceof Whisper)) throw misuse(where, 'whisper', 'a Whisper', whisper)
  requireString(where, 'data', data)
  const output = options.output ?? `${withoutEnd(data, /[/\\]/)}-textgrid`
  for (const [name, value] of Object.entries({ output, transcripts })) requireString(where, name, value)
  requireOneOf(where, 'onBadRecord', onBadRecord, ['stop', 'skip'])
  requireSignal(where, signal)
  const names = new Map<string, string>()
  for (const path of await soundFiles(where, data)) {
    const name = path.slice(0, path.length - extname(path).length)
    if (names.has(name)) throw new ConfigError(`${where}: ${data} holds ${name} twice, with other endings`, { name })
    names.set(name, path)
  }
  const bad = new BadRecords(onBadRecord)
  const missing = [...names].filter(([name]) => !existsSync(join(output, `${name}.TextGrid`)))
  using bar = progress
    ? new ProgressBar({ total: missing.length, label: 'align', unit: 'clip', ...(typeof progress === 'object' && { stream: progress }) }) // biome-ignore format: one line
    : undefined
  let [aligned, byTranscript] = [0, 0]
  for (const [name, path] of missing) {
    signal?.throwIfAborted()
    const audio = join(data, path)
    try {
      const file = join(transcripts, `${name}.txt`)
      const text = existsSync(file) ? utf8(await readFile(file), file, 1) : null
      const grid = await scope(() => gridOf(whisper, audio, text, defined({ language, signal })))
      const written = join(output, `${name}.TextGrid`)
      makeDirectory(dirname(written), DataError)
      await writeTextGrid(written, grid)
      aligned += 1
      if (text !== null) byTranscript += 1
    } catch (cause) {
      const isOurs = cause instanceof DataError && !cause.message.startsWith(audio)
      bad.add(isOurs ? new DataError(`${audio}: ${cause.message}`, { file: audio, cause }) : cause)
    }
    bar?.tick()
  }
  const files = names.size - missing.length + aligned
  return { clips: names.size, files, aligned, byTranscript, badRecords: bad.count, badRecordErrors: bad.errors }
}

async function gridOf(
  whisper: Whisper,
  audio: string,
  text: string | null,
  options: { language?: string; signal?: AbortSignal },
): Promise<TextGrid> {
  const { samples } = await openClip({ where: 'alignUstm' }, audio, {})
  const seconds = samples.size(0) / SPEECH_RATE
  const known = text === null ? undefined : ustmTranscript(text)
  const found =
    known === undefined ? await heard(whisper, samples, options) : await whisper.alignText(samples, known, options)
  // Times of two windows may lie across each other.
  let earliest = 0
  const words = found.flatMap(({ text: said, start, end }) => {
    const word = ustmTranscript(said)
    if (word === '') return []
    earliest = Math.min(seconds, Math.max(earliest, start))
    return [{ word, start: earliest, end: Math.max(earliest, end) }]
  })
  const intervals = withLengths(wordsOfTimes(words, seconds)).map(({ text: said, start, end }) => ({
    text: said,
    minTime: start,
    maxTime: end,
  }))
  return { minTime: 0, maxTime: seconds, tiers: [{ kind: 'interval', name: 'words', minTime: 0, maxTime: seconds, intervals }] } // biome-ignore format: one line
}

/** An interval lasts: a word that attention gives no time stands with the next one, or at the end with the one before. */
function withLengths(words: readonly AlignedWord[]): AlignedWord[] {
  const found: AlignedWord[] = []
  let waiting: string[] = []
  for (const word of words) {
    if (word.end <= word.start) {
      if (word.text !== '') waiting.push(word.text)
    } else if (word.text === '') found.push(word)
    else {
      found.push({ ...word, text: [...waiting, word.text].join(' ') })
      waiting = []
    }
  }
  if (waiting.length === 0) return found
  const last = [...found].reverse().find(({ text }) => text !== '') ?? found.at(-1)
  if (!last) throw new DataError('no word of it has a time', { text: waiting.join(' ') })
  last.text = [last.text, ...waiting].filter((part) => part !== '').join(' ')
  return found
}

async function heard(
  whisper: Whisper,
  samples: Parameters<Whisper['transcribe']>[0],
  options: { language?: string; signal?: AbortSignal },
) {
  // biome-ignore format: one line
  const knowsOthers = Object.keys(whisper.tokens.languages).length > 0
  const { segments } = await whisper.transcribe(samples, {
    ...(knowsOthers && { language: 'en' }),
    ...options,
    timestamps: 'word',
  })
  return segments.flatMap(({ words = [] }) => words)
}
