import { existsSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { defined, requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import type { ChangesOf } from '../../../base/settings.js'
import { EMOTIONS, type EmotionData, type EmotionDialog, type ReadDialogsOptions } from '../../../kit/emotion/dialog.js'
import { readEcf } from '../../../kit/emotion/ecf.js'
import { readEmotionJsonl } from '../../../kit/emotion/jsonl.js'
import { readMeld } from '../../../kit/emotion/meld.js'
import { type Part, split } from '../../../kit/split.js'
import { type EmotionFormat, OPEN_SETTINGS } from '../configuration/settings.js'

export type { EmotionFormat } from '../configuration/settings.js'

/** Options of `openEmotionData`. @interface */
export type OpenEmotionOptions = ChangesOf<typeof OPEN_SETTINGS.table>

/** Dialogs for training, validation and test. */
export interface EmotionParts extends Record<Part, EmotionDialog[]> {
  labels: readonly string[]
  /** Notes about the data, one line each. */
  notes: string[]
}

/**
 * Open dialogs with emotions: a folder of MELD or ECF, a file of either, or JSONL, whose lines may name their part.
 * @throws DataError as the readers of the formats; ConfigError for an unknown format
 */
export async function openEmotionData(path: string, given: OpenEmotionOptions = {}): Promise<EmotionParts> {
  const where = 'openEmotionData'
  requireString(where, 'path', path)
  const options = OPEN_SETTINGS.read(where, given)
  const { validShare, testShare, trainShare, seed, splitBy } = options
  if (!existsSync(path))
    throw new DataError(`${path}: expected a file or folder, got a path that does not exist. Check the path.`, {
      file: path,
    })
  const format = options.format ?? formatOf(path)
  const found = await filesOf(path, format, options)
  const notes: string[] = []
  const parts: Record<Part, EmotionDialog[]> = { train: [], valid: [], test: [] }
  for (const { file, part } of found) {
    const data = await read(file, part, format, options)
    notes.push(...noted(file, data))
    if (part === 'train' && data.dialogs.some((dialog) => dialog.part !== undefined && format === 'jsonl')) {
      const own = split(data.dialogs, { partOf: (dialog) => dialog.part, source: file })
      for (const name of ['train', 'valid', 'test'] as const) parts[name].push(...own[name])
    } else parts[part].push(...data.dialogs)
  }
  if (parts.train.length === 0)
    throw new DataError(
      `${path}: expected training data, got ${parts.valid.length} dialogs for validation and ${parts.test.length} for test. Add a training file.`,
      { file: path },
    )
  const shares = { valid: parts.valid.length > 0 ? 0 : validShare, test: parts.test.length > 0 ? 0 : testShare }
  if (shares.valid + shares.test > 0) {
    const whole = splitBy === 'conversation' ? parts.train : parts.train.flatMap(alone)
    const drawn = split(whole, { ...shares, seed, keysOf: ({ source }) => [source], source: path })
    if (drawn.train.length === 0)
      throw new DataError(
        `${path}: expected dialogs to train on after the draws for validation and test, got none. Lower validShare and testShare.`,
        { file: path },
      )
    const what = splitBy === 'conversation' ? 'conversations' : 'utterances'
    for (const name of ['valid', 'test'] as const) {
      if (shares[name] === 0) continue
      parts[name] = drawn[name]
      notes.push(`${drawn[name].length} of ${whole.length} ${what} were drawn for ${name} (seed ${seed})`)
    }
    parts.train = drawn.train
  }
  if (trainShare < 1) {
    const all = parts.train.length
    parts.train = split(parts.train, { valid: trainShare, seed, keysOf: ({ source }) => [source], source: path }).valid
    notes.push(`${parts.train.length} of ${all} dialogs for training were drawn (seed ${seed})`)
  }
  return { ...parts, labels: labelsOf(parts, format, options.labels), notes }
}

/** Split a dialog into dialogs of one utterance each, without history. */
export const alone = (dialog: EmotionDialog): EmotionDialog[] =>
  dialog.utterances.map((utterance) => ({
    ...{
      id: `${dialog.id}/${utterance.id}`,
      utterances: [utterance],
      source: `${dialog.source}, utterance ${utterance.id}`,
    },
    ...(dialog.part && { part: dialog.part }),
  }))

function formatOf(path: string): EmotionFormat {
  if (statSync(path).isDirectory()) {
    if (existsSync(join(path, 'train_sent_emo.csv'))) return 'meld'
    if (existsSync(join(path, 'Subtask_1_train.json')) || existsSync(join(path, 'Subtask_2_train.json'))) return 'ecf'
    if (existsSync(join(path, 'train.jsonl'))) return 'jsonl'
  }
  const name = basename(path)
  if (name.endsWith('.csv')) return 'meld'
  if (name.endsWith('.json')) return 'ecf'
  if (name.endsWith('.jsonl')) return 'jsonl'
  throw new ConfigError(
    `${path}: format: expected train_sent_emo.csv (MELD), Subtask_1_train.json (ECF) or train.jsonl, or a .csv, .json or .jsonl file, got neither. Set \`format\`.`,
    { argument: 'format' },
  )
}

async function filesOf(path: string, format: EmotionFormat, { valid, test }: OpenEmotionOptions) {
  const given = [
    ...(valid === undefined ? [] : [{ file: valid, part: 'valid' as const }]),
    ...(test === undefined ? [] : [{ file: test, part: 'test' as const }]),
  ]
  if (!statSync(path).isDirectory()) return [{ file: path, part: 'train' as const }, ...given]
  const names: Record<EmotionFormat, Record<Part, string[]>> = {
    meld: { train: ['train_sent_emo.csv'], valid: ['dev_sent_emo.csv'], test: ['test_sent_emo.csv'] },
    ecf: {
      train: ['Subtask_2_train.json', 'Subtask_1_train.json'],
      valid: [],
      test: ['Subtask_2_test.json', 'Subtask_1_test.json'],
    },
    jsonl: { train: ['train.jsonl'], valid: ['valid.jsonl'], test: ['test.jsonl'] },
  }
  const found = (['train', 'valid', 'test'] as const).flatMap((part) => {
    if (given.some((one) => one.part === part)) return []
    const name = names[format][part].find((candidate) => existsSync(join(path, candidate)))
    return name === undefined ? [] : [{ file: join(path, name), part }]
  })
  return [...found, ...given]
}

/** Read the dialogs of one file. */
export function readDialogs(
  file: string,
  options: Pick<OpenEmotionOptions, 'format' | 'clips' | 'onBadRecord' | 'labels'> = {},
): Promise<EmotionData> {
  return read(file, undefined, options.format ?? formatOf(file), options)
}

function read(
  file: string,
  part: Part | undefined,
  format: EmotionFormat,
  options: OpenEmotionOptions,
): Promise<EmotionData> {
  const { onBadRecord, clips, labels } = options
  const reading: ReadDialogsOptions = defined({ onBadRecord, clips, emotions: labels })
  if (format === 'meld') return readMeld(file, { ...reading, ...defined({ part }) })
  return format === 'ecf' ? readEcf(file, reading) : readEmotionJsonl(file, reading)
}

function noted(file: string, data: EmotionData): string[] {
  const { dialogs, utterances, causes, badRecords, badRecordErrors, missingClips } = data
  const notes = [`${file}: ${dialogs.length} dialogs, ${utterances} utterances, ${causes} causes`]
  if (missingClips > 0) notes.push(`${file}: ${missingClips} utterances have no clip`)
  if (badRecords > 0)
    notes.push(`${file}: ${badRecords} bad records left out, the first: ${badRecordErrors[0]?.message}`)
  return notes
}

function labelsOf(parts: Record<Part, EmotionDialog[]>, format: EmotionFormat, given?: readonly string[]) {
  if (given) return given
  if (format !== 'jsonl') return EMOTIONS
  const found = [...parts.train, ...parts.valid, ...parts.test].flatMap(({ utterances }) =>
    utterances.flatMap(({ emotion }) => emotion ?? []),
  )
  const names = [...new Set(found)].sort()
  // If only the seven emotions occur, use their usual order.
  return names.every((name) => (EMOTIONS as readonly string[]).includes(name)) ? EMOTIONS : names
}
