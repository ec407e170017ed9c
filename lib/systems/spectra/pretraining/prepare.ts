import { dirname, join, resolve } from 'node:path'
import { SPEECH_RATE } from '../../../audio/clip.js'
import { writeWav } from '../../../audio/index.js'
import { makeDirectory } from '../../../base/atomic.js'
import { argumentError, defined, requireFunction, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { type ChangesOf, settings, unchecked } from '../../../base/settings.js'
import { writeJson } from '../../../files/json/json.js'
import { readJsonl, writeJsonl } from '../../../files/json/jsonl.js'
import { BadRecords, onBadRecordOf } from '../../../kit/records.js'
import { scope } from '../../../tensor/index.js'
import { Tokenizer } from '../../../text/index.js'
import { SpectraDialogText } from '../data/text.js'
import { BAD_ITEM_SETTINGS, type SpectraEntry, withUsableWords } from './entry.js'
import { type SpectraSpokenWord, sliceWords, type UnitWord } from './slices.js'
import { SourceAudio } from './source-audio.js'

/**
 * A line of a JSONL file of dialogs: one turn, with the times of its words.
 *
 * ```json
 * {"dialog":"d1","turn":0,"speaker":"A","wav":"d1.wav","words":[{"word":"Hello","start":0.31,"end":0.62}]}
 * ```
 */
export interface SpectraDialogTurn {
  dialog: string
  /** Position in the dialog; increases from line to line. */
  turn: number
  speaker?: string
  /** Any file that `readAudio` supports, with one turn or the whole dialog. */
  wav: string
  /** Time of `wav`'s start in the dialog, in seconds. Default: turns with separate files follow each other without a pause. */
  offset?: number
  words: readonly SpectraSpokenWord[]
}

/** Encodes one word alone, without a leading space and without special tokens. */
export type EncodeWord = (word: string) => readonly number[]

const PREPARE_SETTINGS = settings({
  /** Folder for `entries.jsonl`, `info.json` and `audio/`. */
  output: { type: 'string', required: true },
  /** RoBERTa's tokenizer, or a function that encodes a word. */
  tokenizer: { type: unchecked<Tokenizer | EncodeWord>(), required: true },
  /** Folder that `wav` is relative to. Default: the folder of the JSONL file, or the working directory. */
  audioRoot: { type: 'string' },
  ...BAD_ITEM_SETTINGS.table,
  /** Sample format of the slices. */
  format: { type: ['pcm16', 'float32'], default: 'pcm16' },
  /** Description of the word times' origin, for `info.json`. */
  wordTimes: { type: 'string', default: 'as given' },
})

/** @interface */
export type PrepareSpectraOptions = ChangesOf<typeof PREPARE_SETTINGS.table>

export interface SpectraPreparation {
  dialogs: number
  turns: number
  entries: number
  /** Entries with a previous turn: the training examples. */
  examples: number
  hours: number
  /** Number of items left out, by reason. */
  skipped: Record<string, number>
  /** The first hundred errors. */
  badRecordErrors: DataError[]
  wordTimes: string
}

/**
 * Cut dialogs into SPECTRA's training data: slices of less than ten seconds with tokens and samples of each word, and a link to the
 * previous slice if at most five seconds lie between them. Writes one WAV file per slice, and `entries.jsonl` last, so that a folder with it
 * is complete. Memory use is one slice, and a compressed recording.
 *
 * Left out and counted by reason (or a DataError with `onBadRecord: 'stop'`): turns without words (`noWords`); words without tokens
 * (`wordTokens`), with invalid times (`wordTimes`), or that start after the end of the audio (`wordPastEnd`); slices without words
 * (`emptySlice`).
 *
 * @param turns a JSONL file of {@link SpectraDialogTurn}, or the turns, in order within each dialog
 * @throws DataError with `line` for a malformed turn, and for audio that cannot be read
 */
export async function prepareSpectraPretraining(
  turns: string | Iterable<SpectraDialogTurn> | AsyncIterable<SpectraDialogTurn>,
  options: PrepareSpectraOptions,
): Promise<SpectraPreparation> {
  const where = 'prepareSpectraPretraining'
  const read = PREPARE_SETTINGS.read(where, options)
  const { output, tokenizer, format, wordTimes } = read
  const iterable = turns as Partial<Iterable<unknown> & AsyncIterable<unknown>> | null | undefined
  if (typeof turns !== 'string' && !(iterable?.[Symbol.asyncIterator] ?? iterable?.[Symbol.iterator])) {
    throw argumentError(where, 'turns', 'the path of a JSONL file, or an iterable of turns', turns)
  }
  const { audioRoot = typeof turns === 'string' ? dirname(turns) : '.' } = read
  const bad = new BadRecords(onBadRecordOf(where, read, 'skip'))
  const preparation = new Preparation(output, audioRoot, encoderOf(where, tokenizer), format, bad)
  makeDirectory(join(output, 'audio'), DataError)
  const rows = typeof turns === 'string' ? readJsonl(turns, { skipBlank: true }) : turns
  await writeJsonl(join(output, 'entries.jsonl'), preparation.entriesOf(rows, typeof turns === 'string' ? turns : ''))
  const summary = preparation.summary(wordTimes)
  await writeJson(join(output, 'info.json'), { form: 'spectra-pretraining-1', sampleRate: SPEECH_RATE, ...summary })
  return { ...summary, badRecordErrors: bad.errors }
}

/** Return the function that encodes a word alone. */
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
  /** Its end, in tenths of a second. */
  end: number
}

/** Maximum gap between linked slices, in tenths of a second. */
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
          `${place}: expected turns of dialog ${turn.dialog} in order, got ${turn.turn} after ${before.turn}. Sort them.`,
          { dialog: turn.dialog, line },
        )
      }
      if (turn.words.length === 0) {
        this.bad.note('noWords', `${place}: expected words, got none. Leave the turn out.`, { line })
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
    const entry = withUsableWords(whole, count, place, this.bad)
    if (entry.words.length === 0) {
      this.bad.note(
        'emptySlice',
        `${place}: expected words in the slice at ${begin / 10} s, got none. Leave it out.`,
        {},
      )
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

  /** Return the entry of a slice: `<s>`, the tokens of each word, `</s>`. */
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

  /** Return the index of the previous slice if it is near, else -1, and record this slice for the next one. */
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
      ? `expected an object, got ${shown(turn)}`
      : !isText(turn.dialog)
        ? `dialog: expected a non-empty string, got ${shown(turn.dialog)}`
        : !Number.isSafeInteger(turn.turn)
          ? `turn: expected an integer, got ${shown(turn.turn)}`
          : !isText(turn.wav)
            ? `wav: expected the path of a recording, got ${shown(turn.wav)}`
            : turn.offset !== undefined && !Number.isFinite(turn.offset)
              ? `offset: expected a number of seconds, got ${shown(turn.offset)}`
              : turn.speaker !== undefined && typeof turn.speaker !== 'string'
                ? `speaker: expected a string, got ${shown(turn.speaker)}`
                : !Array.isArray(turn.words)
                  ? `words: expected a list, got ${shown(turn.words)}`
                  : wrongWord(turn.words)
  if (wrong) throw new DataError(`${place}: ${wrong}`, { place })
  return turn as SpectraDialogTurn
}

function wrongWord(words: readonly unknown[]): string | undefined {
  const at = words.findIndex((value) => {
    const { word, start, end } = (value ?? {}) as Partial<SpectraSpokenWord>
    return typeof word !== 'string' || word === '' || !Number.isFinite(start) || !Number.isFinite(end)
  })
  return at < 0 ? undefined : `words[${at}]: expected { word, start, end } with seconds, got ${shown(words[at])}`
}
