import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { dirname, extname, join } from 'node:path'
import { openClip, SPEECH_RATE } from '../../../audio/clip.js'
import { makeDirectory } from '../../../base/atomic.js'
import { defined } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { type ChangesOf, instanceOf, SIGNAL, unchecked } from '../../../base/settings.js'
import { withoutEnd } from '../../../base/words.js'
import { ProgressBar, type ProgressStream } from '../../../data/progress.js'
import { utf8 } from '../../../files/text.js'
import { type TextGrid, writeTextGrid } from '../../../files/textgrid.js'
import { BadRecords } from '../../../kit/records.js'
import { audioFiles } from '../../../models/units/unit-folder.js'
import { Whisper } from '../../../models/whisper/whisper.js'
import { scope } from '../../../tensor/index.js'
import { ALIGN_SETTINGS } from '../configuration/settings.js'
import { type AlignedWord, ustmTranscript, wordsOfTimes } from './words.js'

const SETTINGS = ALIGN_SETTINGS.extend({
  /** With a tokenizer. */
  whisper: { type: instanceOf(Whisper), required: true },
  /** Show a progress bar on stderr, or on a stream. Default false. */
  progress: { type: unchecked<boolean | ProgressStream>(), default: false },
  /** Stops between two clips. Files written so far are kept, and the next call continues. */
  signal: { type: SIGNAL },
})

/** Options of `alignUstm`. @interface */
export type AlignUstmOptions = ChangesOf<typeof SETTINGS.table>

export interface AlignedUstm {
  /** Number of audio files, and of TextGrids that exist now. */
  clips: number
  files: number
  /** Number of TextGrids written by this call, and how many of them are aligned transcripts. */
  aligned: number
  byTranscript: number
  badRecords: number
  badRecordErrors: DataError[]
}

/**
 * Find the start and end time of each word in clips from the cross-attention of a Whisper, without an external aligner. Writes TextGrids
 * with a tier `words`, which `prepareUstm` reads. Words are normalized as in `ustmTranscript`. A clip with a transcript may last at most
 * 30 seconds; others have no limit. An interrupted run continues.
 *
 * ```ts
 * const whisper = await Whisper.fromPretrained('whisper-base')
 * await alignUstm({ whisper, data: 'LibriTTS/dev-clean' })
 * await prepareUstm({ textGrids: 'LibriTTS/dev-clean-textgrid', output: 'ustm', tokenizer })
 * ```
 * @throws DataError naming the clip that cannot be used; ConfigError if there are no audio files, or if two differ only in their
 * extension
 */
export async function alignUstm(options: AlignUstmOptions): Promise<AlignedUstm> {
  const where = 'alignUstm'
  const values = SETTINGS.read(where, options)
  const { whisper, data, transcripts = data, language, onBadRecord, progress, signal } = values
  const output = values.output ?? `${withoutEnd(data, /[/\\]/)}-textgrid`
  const names = new Map<string, string>()
  for (const path of await audioFiles(where, data)) {
    const name = path.slice(0, path.length - extname(path).length)
    if (names.has(name)) {
      throw new ConfigError(
        `${where}: expected audio files with different names, got ${join(data, name)} with two extensions. Rename one.`,
        { name },
      )
    }
    names.set(name, path)
  }
  const bad = new BadRecords(onBadRecord)
  const pending = [...names].filter(([name]) => !existsSync(join(output, `${name}.TextGrid`)))
  using bar = progress
    ? new ProgressBar({
        total: pending.length,
        label: 'align',
        unit: 'clip',
        ...(typeof progress === 'object' && { stream: progress }),
      })
    : undefined
  let [aligned, byTranscript] = [0, 0]
  for (const [name, path] of pending) {
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
  const files = names.size - pending.length + aligned
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
  const transcript = text === null ? undefined : ustmTranscript(text)
  const found =
    transcript === undefined
      ? await transcribedWords(whisper, samples, options)
      : await whisper.alignText(samples, transcript, options)
  // Words of neighboring windows may overlap.
  let earliest = 0
  const words = found.flatMap(({ text: said, start, end }) => {
    const word = ustmTranscript(said)
    if (word === '') return []
    earliest = Math.min(seconds, Math.max(earliest, start))
    return [{ word, start: earliest, end: Math.max(earliest, end) }]
  })
  const intervals = withDurations(wordsOfTimes(words, seconds)).map(({ text: said, start, end }) => ({
    text: said,
    minTime: start,
    maxTime: end,
  }))
  return {
    minTime: 0,
    maxTime: seconds,
    tiers: [{ kind: 'interval', name: 'words', minTime: 0, maxTime: seconds, intervals }],
  }
}

/** Remove empty intervals: a word without a duration is joined to the next word, or at the end to the last one. */
function withDurations(words: readonly AlignedWord[]): AlignedWord[] {
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
  if (!last) throw new DataError('expected at least one word with a duration, got none', { text: waiting.join(' ') })
  last.text = [last.text, ...waiting].filter((part) => part !== '').join(' ')
  return found
}

async function transcribedWords(
  whisper: Whisper,
  samples: Parameters<Whisper['transcribe']>[0],
  options: { language?: string; signal?: AbortSignal },
) {
  const isMultilingual = Object.keys(whisper.tokens.languages).length > 0
  const { segments } = await whisper.transcribe(samples, {
    ...(isMultilingual && { language: 'en' }),
    ...options,
    timestamps: 'word',
  })
  return segments.flatMap(({ words = [] }) => words)
}
