import { shown } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import type { SalmonnConfig } from './config.js'

/** A value of a configuration that contradicts the saved model. */
export interface SalmonnConflict {
  /** Key, such as `lora.r` or `qformer.queryLength`. */
  key: string
  given: unknown
  saved: unknown
  /** The file of the saved weights. */
  file: string
}

/** Keys that determine the shapes of the file's tensors, so that they cannot change. */
const SHAPES = [
  ...['lora', 'lora.r', 'lora.targetModules'],
  ...['hiddenSize', 'numHiddenLayers', 'intermediateSize', 'queryLength', 'crossAttentionFreq', 'encoderWidth'].map(
    (key) => `qformer.${key}`,
  ),
]

/** Keys that a training may change. */
const FREE = ['lora.loraDropout', 'qformer.hiddenDropoutProb', 'qformer.attentionProbsDropoutProb']

/**
 * Return the configuration of a saved model, completed or changed by `given`.
 *
 * @param file of the saved weights; undefined if there are none, so that `given` is used
 * @param onConflict called for each value of `given` that contradicts the saved model; the saved value is used
 * @throws ConfigError for a contradiction about shapes, without `onConflict`
 */
export function settledConfig(
  file: string | undefined,
  saved: Partial<SalmonnConfig>,
  given: Partial<SalmonnConfig>,
  onConflict?: (conflict: SalmonnConflict) => void,
): SalmonnConfig {
  if (file === undefined) return { ...saved, ...given }
  const holds = (key: string, value: unknown, own: unknown): boolean => {
    if (value === undefined) return false
    if (own === undefined || FREE.includes(key) || same(value, own)) return true
    if (onConflict) {
      onConflict({ key, given: value, saved: own, file })
      return false
    }
    if (!SHAPES.includes(key)) return true
    const [wanted, got] = key === 'lora' ? ['an adapter', 'null'] : [shown(own), shown(value)]
    throw new ConfigError(
      `Salmonn.fromPretrained: config.${key}: expected ${wanted}, as ${file} has it, got ${got}. Leave it out.`,
      { key: `config.${key}`, file },
    )
  }
  const part = <T extends object>(name: 'lora' | 'qformer', own: T | undefined, other: T | undefined): T => {
    const entries = Object.entries(other ?? {}).filter(([key, value]) =>
      holds(`${name}.${key}`, value, (own as Record<string, unknown> | undefined)?.[key]),
    )
    return { ...own, ...Object.fromEntries(entries) } as T
  }
  const { lora: adapter, qformer, ...rest } = given
  const lora = (): SalmonnConfig['lora'] => {
    if (adapter === undefined) return saved.lora
    if (adapter !== null) return part('lora', saved.lora ?? undefined, adapter)
    return saved.lora && !holds('lora', null, saved.lora) ? saved.lora : null
  }
  const settled = lora()
  return {
    ...{ ...saved, ...rest, qformer: part('qformer', saved.qformer, qformer) },
    ...(settled !== undefined && { lora: settled }),
  }
}

/** Compare values, ignoring the order of lists. */
const same = (a: unknown, b: unknown): boolean => plain(a) === plain(b)
const plain = (value: unknown): string => JSON.stringify(Array.isArray(value) ? [...value].sort() : value)
