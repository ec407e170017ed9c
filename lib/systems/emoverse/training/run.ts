import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { makeDirectory } from '../../../base/atomic.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import { readJson, writeJson } from '../../../files/json/json.js'
import { contentHash } from '../../../kit/fingerprint.js'
import { SwiftDataset } from '../data/dataset.js'
import { keyOf } from '../data/media.js'
import { type EmoVerseRecords, invalidData } from '../data/open.js'

/** Data and settings that a stage's weights depend on. They identify the training of a folder. */
export type StageSettings = Readonly<Record<string, unknown>>

/** Settings of a stage, and the name of its folder. */
export interface NamedSettings {
  name: string
  settings: StageSettings
}

const [SETTINGS, RESULTS, STAGES] = ['settings.json', 'results.json', 'stages.json']

/** Return the hash of instruction data: of its files' bytes, or of its records. Media count only by their paths. */
export async function dataHash(given: EmoVerseRecords): Promise<string> {
  if (given instanceof SwiftDataset) return keyOf('opened', `${given.length}`, await dataHash(given.files))
  if (typeof given !== 'string' && !Array.isArray(given)) throw invalidData(given)
  const parts: string[] = []
  for (const one of typeof given === 'string' ? [given] : given) {
    parts.push(typeof one === 'string' ? await contentHash(one) : JSON.stringify(one))
  }
  return keyOf(...parts)
}

/**
 * Return the folder of a training: the given one, or with `versions` the first of `v1`, `v2`, … in it without another training.
 * @throws ConfigError if the folder holds another training and `versions` is false, naming what differs
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
        `${other.folder}: expected a stage with the same settings, got another one (${other.keys.join(', ')} differ). Choose another outputDir.`,
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

/** Read the settings of the stage in a folder. */
async function settingsIn(folder: string): Promise<StageSettings | undefined> {
  const [settings, results] = [join(folder, SETTINGS), join(folder, RESULTS)]
  if (existsSync(settings)) return (await readJson(settings)) as StageSettings
  return existsSync(results) ? (((await readJson(results)) as { settings?: StageSettings }).settings ?? {}) : undefined
}

/** Compare two values as JSON. */
const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)

/** Write the settings into a stage's folder before anything else. */
export async function claimFolder(folder: string, settings: StageSettings): Promise<void> {
  makeDirectory(folder, CheckpointError)
  await writeJson(join(folder, SETTINGS), settings)
}

/** Return whether a folder holds the model trained by these stages. */
export async function isMadeOf(folder: string, stages: readonly NamedSettings[]): Promise<boolean> {
  const file = join(folder, STAGES)
  return existsSync(file) && same(await readJson(file), stages)
}

/** Write into a model's folder which stages trained it. */
export const writeStages = (folder: string, stages: readonly NamedSettings[]): Promise<void> =>
  writeJson(join(folder, STAGES), stages)
