import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { basename, dirname, join, relative } from 'node:path'
import { openClip } from '../../../audio/clip.js'
import { energyVad } from '../../../audio/silence.js'
import { defined, requireOptions, requireString, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { type CsvRow, readCsv } from '../../../files/csv/csv.js'
import { readJson } from '../../../files/json/json.js'
import { scope } from '../../../tensor/index.js'
import type { SpectraDialogTurn } from './prepare.js'
import type { SpectraSpokenWord } from './slices.js'

/**
 * Read the transcripts of the Spotify podcast corpus as dialogs, one per episode: the words of the first alternative of the last result.
 * `wav` is the transcript's path relative to `transcripts`, with the audio's extension.
 * @param transcripts a folder of .json files, searched recursively
 * @throws DataError naming a file that is not a transcript
 */
export async function* spotifyTurns(
  transcripts: string,
  options: { audioExtension?: string } = {},
): AsyncGenerator<SpectraDialogTurn, void, void> {
  requireString('spotifyTurns', 'transcripts', transcripts)
  requireOptions('spotifyTurns', options, ['audioExtension'])
  const { audioExtension = '.ogg' } = options
  requireString('spotifyTurns', 'audioExtension', audioExtension)
  for (const path of await filesBelow(transcripts, '.json')) {
    const episode = relative(transcripts, path).slice(0, -'.json'.length)
    yield { dialog: episode, turn: 0, wav: episode + audioExtension, words: spokenWords(await readJson(path), path) }
  }
}

interface SpotifyTranscript {
  results?: { alternatives?: { words?: { word?: unknown; startTime?: unknown; endTime?: unknown }[] }[] }[]
}

function spokenWords(value: unknown, file: string): SpectraSpokenWord[] {
  const words = (value as SpotifyTranscript | null)?.results?.at?.(-1)?.alternatives?.[0]?.words ?? []
  if (!Array.isArray((value as SpotifyTranscript | null)?.results) || !Array.isArray(words)) {
    throw new DataError(`${file}: expected a transcript with results[].alternatives[].words, got none`, { file })
  }
  return words.map(({ word, startTime, endTime }, i) => {
    const [start, end] = [seconds(startTime), seconds(endTime)]
    if (typeof word !== 'string' || word === '' || start === undefined || end === undefined) {
      throw new DataError(
        `${file}: word ${i}: expected word, and startTime and endTime such as "1.300s", got ${shown(word)}, ${shown(startTime)} and ${shown(endTime)}`,
        { file, word: i },
      )
    }
    return { word, start, end }
  })
}

function seconds(time: unknown): number | undefined {
  const digits = typeof time === 'string' ? /^(\d+(?:\.\d+)?)s$/.exec(time)?.[1] : undefined
  return digits === undefined ? undefined : Number(digits)
}

export interface ClipTurnsOptions {
  /** File with lines `clip-name the words of the clip`. Default: all `*.trans.txt` of the folder, else its `labels.csv`. */
  transcripts?: string
  /** Return the dialog of a clip. Default: its speaker (`speaker` or `actor` of labels.csv), or its folder. */
  dialogOf?: (clip: { file: string; speaker: string | undefined }) => string
}

/**
 * Make dialogs from clips with transcripts but without word times, as in LibriSpeech (`ID.flac` and `*.trans.txt`) or with a `labels.csv`
 * (columns `file`, `text`, and `speaker` or `actor`). The clips of a speaker follow each other as turns. **Word times are uniform**: the
 * words get equal parts of the speech in the clip. This is an estimate for testing the training, not for evaluating alignment. State it
 * where you report results ({@link UNIFORM_WORD_TIMES} is the text for `prepareSpectraPretraining`'s `wordTimes`).
 * @throws DataError if there are no transcripts
 */
export async function* clipTurns(
  directory: string,
  options: ClipTurnsOptions = {},
): AsyncGenerator<SpectraDialogTurn, void, void> {
  requireString('clipTurns', 'directory', directory)
  requireOptions('clipTurns', options, ['transcripts', 'dialogOf'])
  const clips = await transcribed(directory, options.transcripts)
  const { dialogOf = ({ file, speaker }) => speaker ?? dirname(file) } = options
  const byDialog = new Map<string, Clip[]>()
  for (const clip of clips) {
    const dialog = dialogOf(clip)
    byDialog.set(dialog, [...(byDialog.get(dialog) ?? []), clip])
  }
  for (const [dialog, dialogClips] of byDialog) {
    for (const [turn, { file, text, speaker }] of dialogClips.entries()) {
      const words = await uniformTimes(join(directory, file), text.split(/\s+/).filter(Boolean))
      yield { dialog, turn, wav: file, words, ...defined({ speaker }) }
    }
  }
}

export const UNIFORM_WORD_TIMES = 'uniform: the words of a clip share its sounding part equally, none was measured' // language: written to info.json

interface Clip {
  /** Path relative to the folder. */
  file: string
  text: string
  speaker: string | undefined
}

async function transcribed(directory: string, transcripts: string | undefined): Promise<Clip[]> {
  const lists = transcripts === undefined ? await filesBelow(directory, '.trans.txt') : [transcripts]
  if (lists.length > 0) {
    const clips = await fromLists(directory, lists)
    if (clips.length > 0) return clips
    throw new DataError(`${directory}: expected the clips that ${lists[0]} names, got none of them`, { file: lists[0] })
  }
  const table = join(directory, 'labels.csv')
  if (!existsSync(table)) {
    throw new DataError(
      `${directory}: expected *.trans.txt or labels.csv, got neither. Set transcripts to a file with lines of "clip words".`,
      { directory },
    )
  }
  return (await readCsv(table)).map((row, i) => {
    if (!row.file || !row.text) {
      throw new DataError(`${table}: row ${i + 1}: expected the columns file and text, got an empty one`, {
        file: table,
        row: i + 1,
      })
    }
    return { file: row.file, text: row.text, speaker: speakerOf(row) }
  })
}

function speakerOf(row: CsvRow): string | undefined {
  if ('speaker' in row) return row.speaker
  return 'actor' in row ? row.actor : undefined
}

/** Return the clips that the lists name, in their order. */
async function fromLists(directory: string, lists: string[]): Promise<Clip[]> {
  const files = new Map<string, string>()
  for (const path of await filesBelow(directory)) {
    if (/\.(flac|wav|mp3|ogg|opus|m4a)$/i.test(path)) files.set(basename(path).replace(/\.\w+$/, ''), path)
  }
  const clips: Clip[] = []
  for (const list of lists) {
    for (const line of (await readFile(list, 'utf8')).split('\n')) {
      const [, name = '', text = ''] = /^(\S+)\s+(.*)/s.exec(line.trim()) ?? []
      const path = files.get(name)
      // LibriSpeech is in upper case, which would change how long words are cut.
      const words = text === text.toUpperCase() ? text.toLowerCase() : text
      if (path !== undefined && words !== '')
        clips.push({ file: relative(directory, path), text: words, speaker: undefined })
    }
  }
  return clips
}

/** Return word times that divide the range from the first to the last speech equally. */
async function uniformTimes(file: string, words: readonly string[]): Promise<SpectraSpokenWord[]> {
  return scope(async () => {
    const { samples, sampleRate } = await openClip({ where: 'clipTurns' }, file, { sampleRate: null, allowEmpty: true })
    const speechSpans = await energyVad(samples, sampleRate)
    const [from, to] = [speechSpans[0]?.[0] ?? 0, speechSpans.at(-1)?.[1] ?? samples.numel() / sampleRate]
    const wordSeconds = (to - from) / words.length
    return words.map((word, i) => ({ word, start: from + i * wordSeconds, end: from + (i + 1) * wordSeconds }))
  })
}

/** Return the files of a folder and its subfolders, sorted by name. */
async function filesBelow(directory: string, ending = ''): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch((cause: Error) => {
    throw new DataError(`${directory}: expected a readable folder: ${cause.message}`, { directory, cause })
  })
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith(ending))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
}
