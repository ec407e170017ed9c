import { argumentError, defined, requireNumber, requireObject, requireOneOf, requireWhole } from '../base/check.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import { didYouMean, shortened, snakeCase, toSnake } from '../base/words.js'
import { isStart, type LoraStart } from './start.js'
import { requireTokenIndices } from './tokens.js'

/**
 * Configuration of a low-rank adapter (LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685): its layers and its settings.
 * Names and defaults are those of Python's peft. A plain object with these keys works too; `new LoraConfig(object)` checks it
 * at once, and fills in the defaults.
 */
export class LoraConfig {
  /** Rank of the adapter. Default 8. */
  declare r?: number
  /** Scale of the adapter: its output is multiplied by `loraAlpha / r`. Default 8. */
  declare loraAlpha?: number
  /** Dropout probability of the adapter's input. Default 0. Adapters of embeddings have none. */
  declare loraDropout?: number
  /**
   * Layers with an adapter: a list of names, each the full path or its end (`'query'`), a regular expression (as a string, in
   * the common syntax of JavaScript and Python) that matches the full path, or `'all-linear'`.
   */
  declare targetModules: string[] | string
  /** Layers to exclude although `targetModules` matches them. */
  declare excludeModules?: string[] | string | null
  /** Biases of the network that train too. Default 'none'. With another value a network can have only one adapter. */
  declare bias?: 'none' | 'all' | 'lora_only'
  /** Scale by `loraAlpha / √r` (rsLoRA, https://arxiv.org/abs/2312.03732). Default false. */
  declare useRslora?: boolean
  /** Train the magnitude of the weight separately from its direction (DoRA, https://arxiv.org/abs/2402.09353). Default false. */
  declare useDora?: boolean
  /** Modules, by the end of their path, that train in full and are saved with the adapter. */
  declare modulesToSave?: string[] | null
  /**
   * Ids of tokens whose embeddings train individually, as new tokens require: of the input embeddings, or lists by the end of
   * the path of an embedding (or linear layer). Trained rows replace the original ones, and only they are saved. An output
   * layer that is tied to the embeddings uses them too; it gets a copy of their weight until the adapters are removed.
   */
  declare trainableTokenIndices?: number[] | Record<string, number[]> | null
  /**
   * Initialization. true (default): A uniform like a linear layer's weight, B zeros; 'gaussian': A normal with deviation 1/r;
   * false: both random.
   *
   * With 'pissa' (https://arxiv.org/abs/2404.02948), 'pissa_niter_16' (approximate PiSSA with 16 iterations) and 'olora'
   * (https://arxiv.org/abs/2406.01775), A and B are initialized with the principal part of a linear layer's weight, which is
   * subtracted from the weight: the network initially computes the same, and something else while the adapter is disabled. As
   * in peft the principal part is subtracted again wherever the adapter is loaded; removing the adapter restores the weight,
   * within rounding.
   */
  declare initLoraWeights?: LoraStart
  /** Indices of the layers to adapt, if `targetModules` is a list of ends of paths. */
  declare layersToTransform?: number | number[] | null
  /** Name before the layer's index in a path; by default the first number is the index. */
  declare layersPattern?: string | string[] | null
  /** Ranks of individual layers, by the end of their path or a regular expression. */
  declare rankPattern?: Record<string, number>
  /** `loraAlpha` of individual layers, like `rankPattern`. */
  declare alphaPattern?: Record<string, number>
  /** Whether the adapter is for inference only. Default false. */
  declare inferenceMode?: boolean
  declare taskType?: string | null
  declare baseModelNameOrPath?: string | null
  declare revision?: string | null

  /** @throws ConfigError for an unknown key or an invalid value */
  constructor(config: LoraConfig) {
    Object.assign(this, resolveConfig(config))
  }
}

export type ResolvedLoraConfig = Required<LoraConfig>

const defaults: Omit<ResolvedLoraConfig, 'targetModules'> = {
  r: 8,
  loraAlpha: 8,
  loraDropout: 0,
  excludeModules: null,
  bias: 'none',
  useRslora: false,
  useDora: false,
  modulesToSave: null,
  trainableTokenIndices: null,
  initLoraWeights: true,
  layersToTransform: null,
  layersPattern: null,
  rankPattern: {},
  alphaPattern: {},
  inferenceMode: false,
  taskType: null,
  baseModelNameOrPath: null,
  revision: null,
}

const keys = ['targetModules', ...Object.keys(defaults)]

/** Return the configuration with defaults filled in. @throws ConfigError for an unknown key or an invalid value */
export function resolveConfig(given: LoraConfig): ResolvedLoraConfig {
  const where = 'LoraConfig'
  requireObject(where, 'the configuration', given)
  for (const key of Object.keys(given)) {
    if (keys.includes(key)) continue
    throw new ConfigError(`${where}: expected a known key, got '${shortened(key)}'${didYouMean(key, keys)}`, { key })
  }
  const config = { ...defaults, ...defined(given) } as ResolvedLoraConfig
  requireWhole(where, 'r', config.r, 1)
  requireNumber(where, 'loraAlpha', config.loraAlpha)
  requireNumber(where, 'loraDropout', config.loraDropout, { least: 0, below: 1 })
  requireOneOf(where, 'bias', config.bias, ['none', 'all', 'lora_only'])
  for (const key of ['useRslora', 'useDora', 'inferenceMode'] as const) {
    if (typeof config[key] !== 'boolean') throw argumentError(where, key, 'true or false', config[key])
  }
  if (!isStart(config.initLoraWeights)) {
    const words = "true, false, 'gaussian', 'pissa', 'pissa_niter_[number]' or 'olora'"
    throw argumentError(where, 'initLoraWeights', words, config.initLoraWeights)
  }
  requireNames(where, 'targetModules', config.targetModules, false)
  requireNames(where, 'excludeModules', config.excludeModules, true)
  requireNames(where, 'layersPattern', config.layersPattern, true)
  if (config.modulesToSave !== null && !isNames(config.modulesToSave)) {
    throw argumentError(where, 'modulesToSave', 'a list of names', config.modulesToSave)
  }
  requireTokenIndices(where, config.trainableTokenIndices)
  for (const layer of [config.layersToTransform ?? []].flat()) requireWhole(where, 'layersToTransform', layer)
  for (const key of ['rankPattern', 'alphaPattern'] as const) {
    requireObject(where, key, config[key])
    for (const [name, value] of Object.entries(config[key])) {
      if (key === 'rankPattern') requireWhole(where, `rankPattern of '${name}'`, value, 1)
      else requireNumber(where, `alphaPattern of '${name}'`, value)
    }
  }
  return config
}

const isNames = (value: unknown): boolean => Array.isArray(value) && value.every((name) => typeof name === 'string')

function requireNames(where: string, key: string, value: unknown, optional: boolean): void {
  if (typeof value === 'string' || isNames(value) || (optional && value === null)) return
  throw argumentError(where, key, 'a list of names or a regular expression as a string', value)
}

/** Return the contents of adapter_config.json, which peft can read. */
export function toFile(config: ResolvedLoraConfig): Record<string, unknown> {
  return { peft_type: 'LORA', auto_mapping: null, fan_in_fan_out: false, ...toSnake(config), inference_mode: true }
}

// Keys of peft that do not affect what a LoRA adapter with weights computes.
const ignored = new Set([
  'peft_type',
  'peft_version',
  'auto_mapping',
  'megatron_config',
  'megatron_core',
  'loftq_config',
])
const alsoIgnored = new Set(['qalora_group_size', 'runtime_config'])

/**
 * Read the object of an adapter_config.json. @throws CheckpointError with file and key, for settings that voxtorch does not
 * support
 */
export function fromFile(object: unknown, file: string): ResolvedLoraConfig {
  const fail = (what: string, fields: object = {}) => new CheckpointError(`${file}: ${what}`, { file, ...fields })
  if (typeof object !== 'object' || object === null || Array.isArray(object)) throw fail('expected an object')
  const given = object as Record<string, unknown>
  if (given.peft_type !== 'LORA') {
    throw fail(`expected peft_type 'LORA', got ${JSON.stringify(given.peft_type)}`)
  }
  const known = new Map(keys.map((key) => [snakeCase(key), key]))
  const config: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(given)) {
    const name = known.get(key)
    if (name !== undefined) config[name] = value
    else if (!ignored.has(key) && !alsoIgnored.has(key) && !isNothing(value)) {
      throw fail(`expected a supported value of '${key}', got ${JSON.stringify(value)}`, { key })
    }
  }
  try {
    return resolveConfig(config as unknown as LoraConfig)
  } catch (cause) {
    throw fail((cause as Error).message, { cause })
  }
}

const isNothing = (value: unknown): boolean =>
  value === null || value === false || (typeof value === 'object' && Object.keys(value).length === 0)
