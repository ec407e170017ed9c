import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { makeDirectory } from '../../../base/atomic.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import { readJson, writeJson } from '../../../files/json/json.js'
import { contentHash } from '../../../kit/fingerprint.js'
import { SwiftDataset } from '../data/dataset.js'
import { keyOf } from '../data/media.js'
import { type EmoVerseRecords, noRecords } from '../data/open.js'

/** What a stage is trained on and with, as far as it makes its weights others: by it a folder knows whose it is. */
export type StageSettings = Readonly<Record<string, unknown>>

/** A stage that is to be trained, and its folder's name. */
export interface NamedSettings {
  name: string
  settings: StageSettings
}

const [SETTINGS, RESULTS, MADE_OF] = ['settings.json', 'results.json', 'stages.json']

/** The fingerprint of instruction data: of the bytes of its files, or of its records. Paths of media stand for these. */
export async function dataHash(given: EmoVerseRecords): Promise<string> {
  if (given instanceof SwiftDataset) return keyOf('opened', `${given.length}`, await dataHash(given.files))
  if (typeof given !== 'string' && !Array.isArray(given)) throw noRecords(given)
  const parts: string[] = []
  for (const one of typeof given === 'string' ? [given] : given) {
    parts.push(typeof one === 'string' ? await contentHash(one) : JSON.stringify(one))
  }
  return keyOf(...parts)
}

/**
 * The folder of a training: the one that is named, or with `versions` the first of `v1`, `v2`, … in it, where that one holds
 * another training.
 * @throws ConfigError where it does, naming what differs
 */
export async function runFolder(
  outputDir: string,
  stages: readonly NamedSettings[],
  versions: boolean,
): Promise<string> {
  for (let version = 0; ; version++) {
    const folder = version === 0 ? outputDir : join(outputDir, `v${version}`)
    const other = await otherIn(folder, stages)
    if (other === undefined) return folder
    if (!versions) {
      throw new ConfigError(
        `${other.folder} holds a stage that was trained with other settings (${other.keys.join(', ')}): give another outputDir`,
        { argument: 'outputDir', before: other.before, now: other.now },
      )
    }
  }
}

async function otherIn(outputDir: string, stages: readonly NamedSettings[]) {
  for (const { name, settings: now } of stages) {
    const folder = join(outputDir, name)
    const before = await settingsIn(folder)
    if (before === undefined || same(before, now)) continue
    const keys = [...new Set([...Object.keys(before), ...Object.keys(now)])].filter(
      (key) => !same(before[key], now[key]),
    )
    return { folder, before, now, keys }
  }
  return undefined
}

/** What the stage in a folder was begun, or trained, with. */
async function settingsIn(folder: string): Promise<StageSettings | undefined> {
  const [begun, ended] = [join(folder, SETTINGS), join(folder, RESULTS)]
  if (existsSync(begun)) return (await readJson(begun)) as StageSettings
  return existsSync(ended) ? (((await readJson(ended)) as { settings?: StageSettings }).settings ?? {}) : undefined
}

/** As JSON tells them apart. */
const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)

/** Says in a folder which training it is of, before anything else is written there. */
export async function claimFolder(folder: string, settings: StageSettings): Promise<void> {
  makeDirectory(folder, CheckpointError)
  await writeJson(join(folder, SETTINGS), settings)
}

/** Whether a folder holds the model that these stages have made. */
export async function isMadeOf(folder: string, stages: readonly NamedSettings[]): Promise<boolean> {
  const file = join(folder, MADE_OF)
  return existsSync(file) && same(await readJson(file), stages)
}

/** Says in the folder of a model which stages have made it. */
export const saysMadeOf = (folder: string, stages: readonly NamedSettings[]): Promise<void> =>
  writeJson(join(folder, MADE_OF), stages)
