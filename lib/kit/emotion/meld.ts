import { existsSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { requireOneOf, requireString } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { readCsvStream } from '../../files/csv/csv.js'
import { BadRecords } from '../records.js'
import type { Part } from '../split.js'
import { clipFinder } from './clips.js'
import {
  checkReadOptions,
  EMOTIONS,
  type EmotionData,
  type EmotionDialog,
  type EmotionUtterance,
  emotionData,
  knownEmotion,
  type ReadDialogsOptions,
} from './dialog.js'
import { clockSeconds } from './ecf.js'

/**
 * Clips of MELD that cannot be used: a damaged one, a missing one, and two that are minutes long. Their utterances have text and
 * emotion, but no clip.
 */
export const MELD_BAD_CLIPS: Readonly<Record<Part, Readonly<Record<string, string>>>> = {
  train: { dia125_utt3: 'damaged' },
  valid: { dia110_utt7: 'missing' },
  test: { dia38_utt4: 'minutes long', dia220_utt0: 'minutes long' },
}

const FILES: Record<Part, string> = {
  train: 'train_sent_emo.csv',
  valid: 'dev_sent_emo.csv',
  test: 'test_sent_emo.csv',
}

export interface ReadMeldOptions extends ReadDialogsOptions {
  /** Part of the file, which decides about its unusable clips; or the part to read from a folder. Default: by the file name. */
  part?: Part
}

/**
 * Read a CSV file of MELD (Poria et al. 2019, https://arxiv.org/abs/1810.02508), such as `train_sent_emo.csv`, or the one of `part`
 * in a folder. Utterances are sorted by number; numbers start at 0 and have gaps. A byte order mark and windows-1252 characters are
 * decoded. Clips are searched as `dia{dialog}_utt{utterance}`, except {@link MELD_BAD_CLIPS}.
 *
 * @throws DataError for a file without a column, and for a bad row, with file, row and reason, unless it is skipped
 */
export async function readMeld(path: string, options: ReadMeldOptions = {}): Promise<EmotionData> {
  const where = 'readMeld'
  requireString(where, 'path', path)
  checkReadOptions(where, options, ['part'])
  const { onBadRecord = 'stop', clips, emotions = EMOTIONS } = options
  requireOneOf(where, 'onBadRecord', onBadRecord, ['stop', 'skip'])
  if (options.part !== undefined) requireOneOf(where, 'part', options.part, ['train', 'valid', 'test'])
  const { file, part } = tableOf(path, options.part)
  const find = clips === undefined ? undefined : clipFinder(where, clips, 'meld')
  const unusable = part === undefined ? {} : MELD_BAD_CLIPS[part]
  const bad = new BadRecords(onBadRecord)
  const found = new Map<number, Map<number, EmotionUtterance>>()
  let number = 0
  for await (const row of readCsvStream(file, { encoding: 'mixed' })) {
    number += 1
    const at = `${file}, row ${number}`
    const [dialog, id] = [integerOf(row.Dialogue_ID), integerOf(row.Utterance_ID)]
    if (dialog === undefined || id === undefined) {
      const ids = `${row.Dialogue_ID} and ${row.Utterance_ID}`
      bad.note('number', `${at}: Dialogue_ID and Utterance_ID: expected integers, got ${ids}`, { file, row: number })
      continue
    }
    const utterances = found.get(dialog) ?? new Map<number, EmotionUtterance>()
    if (utterances.has(id)) {
      bad.note('number', `${at}: Utterance_ID: expected unique numbers in dialog ${dialog}, got ${id} twice`, {
        file,
        row: number,
      })
      continue
    }
    const clipName = `dia${dialog}_utt${id}`
    const emotion = knownEmotion(row.Emotion, emotions, at, bad)
    const clip = Object.hasOwn(unusable, clipName)
      ? undefined
      : find?.({ dialog: String(dialog), utterance: id, name: clipName })
    const [start, end] = [clockSeconds(row.StartTime), clockSeconds(row.EndTime)]
    const two = (text: string | undefined) => String(text).padStart(2, '0')
    found.set(dialog, utterances)
    utterances.set(id, {
      ...{
        id,
        text: withoutControls(row.Utterance as string),
        speaker: withoutControls(row.Speaker as string),
        clipName,
      },
      ...(emotion !== undefined && { emotion }),
      ...(row.Sentiment && { sentiment: row.Sentiment }),
      ...(clip && { clip }),
      ...(start !== undefined &&
        end !== undefined && { broadcast: { episode: `S${two(row.Season)}E${two(row.Episode)}`, start, end } }),
    })
  }
  if (found.size === 0)
    throw new DataError(
      `${file}: expected at least one usable row, got none (${bad.count} bad records). Check the file.`,
      {
        ...{ file, badRecords: bad.count },
      },
    )
  const dialogs = [...found].map(([dialog, utterances]): EmotionDialog => {
    const inOrder = [...utterances.values()].sort((a, b) => a.id - b.id)
    return {
      ...{ id: String(dialog), utterances: inOrder, source: `${file}, dialog ${dialog}` },
      ...(part && { part }),
    }
  })
  return emotionData(dialogs, bad, clips)
}

function tableOf(path: string, given: Part | undefined): { file: string; part: Part | undefined } {
  if (!existsSync(path))
    throw new DataError(`${path}: expected a file or folder, got a path that does not exist. Check the path.`, {
      file: path,
    })
  if (statSync(path).isDirectory()) {
    if (given === undefined) {
      throw new DataError(
        `${path}: expected a file, or a folder with \`part\`, got a folder. Set part: 'train', 'valid' or 'test'.`,
        {
          file: path,
        },
      )
    }
    return { file: join(path, FILES[given]), part: given }
  }
  const named = (Object.keys(FILES) as Part[]).find((part) => FILES[part] === basename(path))
  return { file: path, part: given ?? named }
}

const integerOf = (text: string | undefined): number | undefined =>
  text !== undefined && /^\s*\d+\s*$/.test(text) ? Number(text) : undefined

// Characters of windows-1252 at the codes of Unicode's control characters: some of MELD's texts were decoded as ISO 8859-1.
const HIGH: Record<string, string> = {
  ...{ '\x85': '…', '\x91': '‘', '\x92': '’', '\x93': '“', '\x94': '”', '\x96': '–', '\x97': '—', '\x99': '™' },
}
const withoutControls = (text: string): string =>
  text.replace(/[\x85\x91-\x94\x96\x97\x99]/g, (letter) => HIGH[letter] as string).trim()
