import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { makeDirectory } from '../../../base/atomic.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import { readJson, writeJson } from '../../../files/json/json.js'
import { contentHash } from '../../../kit/fingerprint.js'
import { SwiftDataset } from '../data/dataset.js'
import { keyOf } from '../data/media.js'
import { type EmoVerseRecords, invalidData } from '../data/open.js'
import { EMOVERSE_RECIPE } from './recipe.js'

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
        `${other.folder}: expected a stage with the same settings, got another one (${other.keys.join(', ')} ${other.keys.length === 1 ? 'differs' : 'differ'}). Choose another outputDir.`,
        { argument: 'outputDir', before: other.before, now: other.now },
      )
    }
  }
}

async function otherIn(outputDir: string, stages: readonly NamedSettings[]) {
  let base: string | undefined
  for (const { name, settings: now } of stages) {
    const folder = join(outputDir, name)
    const before = await settingsIn(folder)
    if (before === undefined) continue
    const [was, is] = [flat(completed(before)), flat({ ...now, base: base ?? now.base })]
    const keys = [...new Set([...Object.keys(was), ...Object.keys(is)])].filter((key) => !same(was[key], is[key]))
    if (keys.length > 0) return { folder, before, now, keys }
    // Settings that the file lacks are not part of the later stages' `base` either.
    base = keyOf(String(before.base), JSON.stringify(before))
  }
  return undefined
}

/** Read the settings of the stage in a folder. */
async function settingsIn(folder: string): Promise<StageSettings | undefined> {
  const [settings, results] = [join(folder, SETTINGS), join(folder, RESULTS)]
  if (existsSync(settings)) return (await readJson(settings)) as StageSettings
  return existsSync(results) ? (((await readJson(results)) as { settings?: StageSettings }).settings ?? {}) : undefined
}

/** Return the settings with the defaults of those of the recipe that did not exist when the file was written. */
const completed = (settings: StageSettings): StageSettings =>
  isRecord(settings.recipe) ? { ...settings, recipe: { ...EMOVERSE_RECIPE, ...settings.recipe } } : settings

/** Return the settings with those of the recipe as `recipe.NAME`. */
function flat({ recipe, ...others }: StageSettings): StageSettings {
  if (!isRecord(recipe)) return { recipe, ...others }
  return { ...Object.fromEntries(Object.entries(recipe).map(([name, value]) => [`recipe.${name}`, value])), ...others }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

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
