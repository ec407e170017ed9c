import { dirname, join, resolve } from 'node:path'
import { SPEECH_RATE } from '../../../audio/clip.js'
import { writeWav } from '../../../audio/index.js'
import { makeDirectory } from '../../../base/atomic.js'
import { defined, misuse, requireFunction, requireOneOf, requireOptions, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { writeJson } from '../../../files/json/json.js'
import { readJsonl, writeJsonl } from '../../../files/json/jsonl.js'
import { BadRecords, type OnBadRecord, onBadRecordOf } from '../../../kit/records.js'
import { scope } from '../../../tensor/index.js'
import { Tokenizer } from '../../../text/index.js'
import { SpectraDialogText } from '../data/text.js'
import { type SpectraEntry, withSoundWords } from './entry.js'
import { type SpectraSpokenWord, sliceWords, type UnitWord } from './slices.js'
import { SourceAudio } from './source-audio.js'

/**
 * A line of the public form: a turn of a dialog, and when its words are spoken.
 *
 * ```json
 * {"dialog":"d1","turn":0,"speaker":"A","wav":"d1.wav","words":[{"word":"Hello","start":0.31,"end":0.62}]}
 * ```
 */
export interface SpectraDialogTurn {
  dialog: string
  /** Its place in the dialog; grows from line to line. */
  turn: number
  speaker?: string
  /** Any file that `readAudio` reads, with one turn or the whole dialog. */
  wav: string
  /** Where second 0 of `wav` lies in the dialog. Without it, turns with files of their own follow without a pause. */
  offset?: number
  words: readonly SpectraSpokenWord[]
}

/** The ids of one word alone, without a space before it and without special tokens. */
export type EncodeWord = (word: string) => readonly number[]

export interface PrepareSpectraOptions {
  /** Where `entries.jsonl`, `info.json` and `audio/` go. */
  output: string
  /** RoBERTa's, or a function that encodes a word. */
  tokenizer: Tokenizer | EncodeWord
  /** What `wav` is relative to. Default: the folder of the JSONL file, or the current one. */
  audioRoot?: string
  /** What turns, words and slices do that cannot be used: they are left out and counted, by default, or stop it. */
  onBadRecord?: OnBadRecord
  /** The same under its older name, where 'stop' is 'error'. */
  onProblem?: 'skip' | 'error'
  /** Of the slices. Default 'pcm16'. */
  format?: 'pcm16' | 'float32'
  /** What `info.json` says of where the word times come from. */
  wordTimes?: string
}

export interface SpectraPreparation {
  dialogs: number
  turns: number
  entries: number
  /** Entries with a turn before them: the training examples. */
  examples: number
  hours: number
  /** What was left out, by reason. */
  skipped: Record<string, number>
  /** What the first hundred of it were. */
  badRecordErrors: DataError[]
  wordTimes: string
}

/**
 * Cuts dialogs into SPECTRA's training form: slices of less than ten seconds with the sub-words of each word and its
 * samples, and a link to the slice before where at most five seconds lie between them. Writes one WAV file for each slice,
 * and `entries.jsonl` last, so that a folder that has it is whole. Memory holds one slice, and a compressed recording.
 *
 * Left out, counted by reason (or a DataError with `onBadRecord: 'stop'`): turns without words (`noWords`); words without a
 * sub-word (`wordTokens`), with times that are no times (`wordTimes`), or that start after the audio's end (`wordPastEnd`);
 * slices of which nothing is left (`emptySlice`).
 *
 * @param turns a JSONL file of {@link SpectraDialogTurn}, or the turns; turns of a dialog in their order
 * @throws DataError with `line` for a turn of another form, and for audio that cannot be read
 */
export async function prepareSpectraPretraining(
  turns: string | Iterable<SpectraDialogTurn> | AsyncIterable<SpectraDialogTurn>,
  options: PrepareSpectraOptions,
): Promise<SpectraPreparation> {
  const where = 'prepareSpectraPretraining'
  requireOptions(where, options, [
    'output',
    'tokenizer',
    'audioRoot',
    'onBadRecord',
    'onProblem',
    'format',
    'wordTimes',
  ])
  const { output, tokenizer, format = 'pcm16', wordTimes = 'as given' } = options
  requireString(where, 'output', output)
  requireOneOf(where, 'format', format, ['pcm16', 'float32'])
  requireString(where, 'wordTimes', wordTimes)
  const iterable = turns as Partial<Iterable<unknown> & AsyncIterable<unknown>> | null | undefined
  if (typeof turns !== 'string' && !(iterable?.[Symbol.asyncIterator] ?? iterable?.[Symbol.iterator])) {
    throw misuse(where, 'turns', 'the path of a JSONL file, or an iterable of turns', turns)
  }
  const audioRoot = options.audioRoot ?? (typeof turns === 'string' ? dirname(turns) : '.')
  requireString(where, 'audioRoot', audioRoot)
  const bad = new BadRecords(onBadRecordOf(where, options, 'skip'))
  const preparation = new Preparation(output, audioRoot, encoderOf(where, tokenizer), format, bad)
  makeDirectory(join(output, 'audio'), DataError)
  const rows = typeof turns === 'string' ? readJsonl(turns, { skipBlank: true }) : turns
  await writeJsonl(join(output, 'entries.jsonl'), preparation.entriesOf(rows, typeof turns === 'string' ? turns : ''))
  const summary = preparation.summary(wordTimes)
  await writeJson(join(output, 'info.json'), { form: 'spectra-pretraining-1', sampleRate: SPEECH_RATE, ...summary })
  return { ...summary, badRecordErrors: bad.errors }
}

/** The function that encodes a word alone. */
export function encoderOf(where: string, tokenizer: Tokenizer | EncodeWord): EncodeWord {
  if (tokenizer instanceof Tokenizer) {
    const text = new SpectraDialogText(tokenizer, { lowercase: false })
    return (word) => text.words([word]).inputIds
  }
  requireFunction(where, 'tokenizer', tokenizer)
  return tokenizer
}

interface LastSlice {
  index: number
  turn: number
  wav: string
  hasOffset: boolean
  /** Tenths of a second after which it ends. */
  end: number
}

/** Slices with less between them follow each other, in tenths of a second. */
const LONGEST_GAP = 50

class Preparation {
  readonly #audio = new SourceAudio()
  readonly #last = new Map<string, LastSlice>()
  readonly #dialogs = new Map<string, number>()
  #turns = 0
  #entries = 0
  #examples = 0
  #samples = 0

  constructor(
    readonly output: string,
    readonly audioRoot: string,
    readonly encode: EncodeWord,
    readonly format: 'pcm16' | 'float32',
    readonly bad: BadRecords,
  ) {}

  summary(wordTimes: string): Omit<SpectraPreparation, 'badRecordErrors'> {
    return {
      dialogs: this.#dialogs.size,
      turns: this.#turns,
      entries: this.#entries,
      examples: this.#examples,
      hours: this.#samples / SPEECH_RATE / 3600,
      skipped: this.bad.reasons,
      wordTimes,
    }
  }

  async *entriesOf(rows: Iterable<unknown> | AsyncIterable<unknown>, file: string): AsyncGenerator<SpectraEntry> {
    let line = 0
    using _held = this.#audio
    for await (const row of rows) {
      const place = file ? `${file}, turn ${++line}` : `turn ${++line}`
      const turn = checkedTurn(row, place)
      this.#turns++
      if (!this.#dialogs.has(turn.dialog)) this.#dialogs.set(turn.dialog, this.#dialogs.size)
      const before = this.#last.get(turn.dialog)
      if (before && turn.turn <= before.turn) {
        throw new DataError(
          `${place}: turn ${turn.turn} of dialog ${turn.dialog} comes after ${before.turn}: sort them`,
          {
            dialog: turn.dialog,
            line,
          },
        )
      }
      if (turn.words.length === 0) {
        this.bad.note('noWords', `${place}: the turn has no words: leave it out`, { line })
        continue
      }
      for (const slice of sliceWords(turn.words, place, this.bad)) {
        const entry = await this.#entryOf(turn, slice, place)
        if (entry) yield entry
      }
    }
  }

  #entryOf(turn: SpectraDialogTurn, slice: UnitWord[], place: string): Promise<SpectraEntry | undefined> {
    return scope(() => this.#written(turn, slice, place))
  }

  async #written(turn: SpectraDialogTurn, slice: UnitWord[], place: string): Promise<SpectraEntry | undefined> {
    const begin = (slice[0] as UnitWord).start
    const end = Math.max(...slice.map((word) => word.end))
    const samples = await this.#audio.piece(resolve(this.audioRoot, turn.wav), begin / 10, (end - begin) / 10)
    const whole = this.#encoded(turn, slice, begin)
    const count = samples.size(0)
    const entry = withSoundWords(whole, count, place, this.bad)
    if (entry.words.length === 0) {
      this.bad.note('emptySlice', `${place}: nothing is left of the slice at ${begin / 10} s: leave it out`, {})
      return undefined
    }
    const dialog = this.#dialogs.get(turn.dialog) as number
    const audio = `audio/${String(dialog).padStart(6, '0')}/${String(this.#entries).padStart(7, '0')}.wav`
    makeDirectory(dirname(join(this.output, audio)), DataError)
    await writeWav(join(this.output, audio), samples, { sampleRate: SPEECH_RATE, format: this.format })
    const previous = this.#link(turn, begin, end)
    this.#entries++
    this.#samples += count
    if (previous >= 0) this.#examples++
    return { ...entry, audio, samples: count, previous }
  }

  /** `<s>`, the sub-words of each word, `</s>`. */
  #encoded(turn: SpectraDialogTurn, slice: UnitWord[], begin: number): SpectraEntry {
    const inputIds = [0]
    const words = slice.map(({ word, start, end }) => {
      const first = inputIds.length
      inputIds.push(...this.encode(word))
      return [word, first, inputIds.length, (start - begin) * 1600, (end - begin) * 1600] as const
    })
    inputIds.push(2)
    const { dialog, turn: number, speaker } = turn
    return { audio: '', inputIds, words, previous: -1, dialog, turn: number, ...defined({ speaker }) }
  }

  /** The slice before, if it is near; and this one is the slice before the next. */
  #link(turn: SpectraDialogTurn, begin: number, end: number): number {
    const before = this.#last.get(turn.dialog)
    const hasOffset = turn.offset !== undefined
    const shift = (turn.offset ?? 0) * 10
    this.#last.set(turn.dialog, { index: this.#entries, turn: turn.turn, wav: turn.wav, hasOffset, end: end + shift })
    if (!before) return -1
    const sameClock = before.wav === turn.wav || (before.hasOffset && hasOffset)
    return !sameClock || begin + shift - before.end < LONGEST_GAP ? before.index : -1
  }
}

function checkedTurn(row: unknown, place: string): SpectraDialogTurn {
  const turn = row as Partial<SpectraDialogTurn> | null
  const isText = (value: unknown) => typeof value === 'string' && value !== ''
  const wrong =
    typeof turn !== 'object' || turn === null
      ? 'it is no object'
      : !isText(turn.dialog)
        ? 'dialog must be a text'
        : !Number.isSafeInteger(turn.turn)
          ? 'turn must be a whole number'
          : !isText(turn.wav)
            ? 'wav must be the path of a recording'
            : turn.offset !== undefined && !Number.isFinite(turn.offset)
              ? 'offset must be a number of seconds'
              : turn.speaker !== undefined && typeof turn.speaker !== 'string'
                ? 'speaker must be a text'
                : !Array.isArray(turn.words)
                  ? 'words must be a list'
                  : wrongWord(turn.words)
  if (wrong) throw new DataError(`${place}: ${wrong}`, { place })
  return turn as SpectraDialogTurn
}

function wrongWord(words: readonly unknown[]): string | undefined {
  const at = words.findIndex((value) => {
    const { word, start, end } = (value ?? {}) as Partial<SpectraSpokenWord>
    return typeof word !== 'string' || word === '' || !Number.isFinite(start) || !Number.isFinite(end)
  })
  return at < 0 ? undefined : `word ${at} must be { word, start, end } with seconds`
}
