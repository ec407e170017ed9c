import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { readConfig } from '../../../files/yaml/yaml.js'
import { PUBLISHED_SECTIONS } from '../published/configuration.js'
import { salmonnRecipe } from '../training/recipe.js'
import type { SalmonnConfiguration } from './configuration.js'
import { OWN_SECTIONS } from './own.js'
import { readSections } from './sections.js'

/**
 * Read a configuration: the published YAML (`model`, `datasets`, `run`, `generate`), or voxtorch's (`model`, `data`, `training`,
 * `generation`). `overrides` are `key=value`, with dots in nested keys: `run.optims.init_lr=1e-5`.
 *
 * @throws ConfigError for an unknown key, naming the nearest, and for invalid values; DataError for a broken file
 */
export async function readSalmonnConfiguration(
  file: string,
  overrides: readonly string[] = [],
): Promise<SalmonnConfiguration> {
  return salmonnConfiguration(await readConfig(file), overrides, file)
}

/** Convert a parsed configuration file, as {@link readSalmonnConfiguration} does. */
export async function salmonnConfiguration(
  value: unknown,
  overrides: readonly string[] = [],
  file = 'the configuration',
): Promise<SalmonnConfiguration> {
  requireForm('salmonnConfiguration', 'overrides', overrides, ['string'])
  const whole = await overridden(value ?? {}, overrides, file)
  const keys = typeof whole === 'object' && whole !== null ? Object.keys(whole) : []
  const published = keys.some((key) => ['datasets', 'run', 'generate'].includes(key)) || isPublishedModel(whole)
  const read = readSections(whole, published ? PUBLISHED_SECTIONS : OWN_SECTIONS, file)
  salmonnRecipe(read.recipe)
  return read
}

const isPublishedModel = (value: unknown): boolean =>
  Object.keys((value as { model?: object } | null)?.model ?? {}).some((key) => key.includes('_') || key === 'ckpt')

async function overridden(value: unknown, overrides: readonly string[], file: string): Promise<unknown> {
  if (overrides.length === 0) return value
  // Loaded on first use, with the package that reads YAML.
  const { plainScalar } = await import('../../../files/yaml/scalar.js')
  const whole = structuredClone(value) as Record<string, unknown>
  for (const override of overrides) {
    const at = override.indexOf('=')
    const path = at > 0 ? override.slice(0, at).split('.') : []
    if (path.length === 0 || path.includes('')) {
      throw new ConfigError(`--options: expected key=value, such as run.seed=7, got ${JSON.stringify(override)}.`, {
        argument: override,
      })
    }
    const last = path.pop() as string
    let place = whole
    for (const key of path) {
      const next = Object.hasOwn(place, key) ? (place[key] ?? {}) : {}
      if (typeof next !== 'object' || Array.isArray(next)) {
        throw new ConfigError(`${file}: expected ${key} to be a section for ${override}, got a value.`, {
          argument: override,
        })
      }
      define(place, key, next)
      place = next as Record<string, unknown>
    }
    define(place, last, overrideValue(override.slice(at + 1), plainScalar))
  }
  return whole
}

/** Parse a JSON list, object or string, or otherwise a YAML scalar. */
function overrideValue(text: string, scalar: (text: string) => unknown): unknown {
  if (/^[[{"]/.test(text)) {
    try {
      return JSON.parse(text)
    } catch {
      // Not JSON: a YAML scalar.
    }
  }
  return scalar(text)
}

/** A plain assignment of __proto__ would change what the object inherits. */
const define = (place: object, key: string, value: unknown) =>
  Object.defineProperty(place, key, { value, writable: true, enumerable: true, configurable: true })
