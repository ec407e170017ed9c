import { defined, misuse, requireNumber, requireObject, requireOneOf, requireWhole } from '../base/check.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import { didYouMean, shortened, snakeCase, toSnake } from '../base/words.js'
import { isStart, type LoraStart } from './start.js'
import { requireTokenIndices } from './tokens.js'

/**
 * A low-rank adapter (LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685): which layers get one, and what it is. The
 * names and defaults are those of Python's peft. A plain object with these keys does as well; `new LoraConfig(object)` checks
 * it at once, and has the defaults.
 */
export class LoraConfig {
  /** Rank of the adapter [8]. */
  declare r?: number
  /** The adapter's output is scaled by `loraAlpha / r` [8]. */
  declare loraAlpha?: number
  /** Dropout of the adapter's input [0]. An embedding's adapter has none. */
  declare loraDropout?: number
  /**
   * Which layers: a list of names, each the full path or its end (`'query'`), a regular expression (as a string, in the
   * syntax that JavaScript and Python share) that matches the whole path, or `'all-linear'`.
   */
  declare targetModules: string[] | string
  /** Layers that get none although `targetModules` names them. */
  declare excludeModules?: string[] | string | null
  /** Which biases of the network train too ['none']. With others than 'none' a network has one adapter only. */
  declare bias?: 'none' | 'all' | 'lora_only'
  /** Scale by `loraAlpha / √r` (rsLoRA, https://arxiv.org/abs/2312.03732) [false]. */
  declare useRslora?: boolean
  /** Train the magnitude of the weight apart from its direction (DoRA, https://arxiv.org/abs/2402.09353) [false]. */
  declare useDora?: boolean
  /** Modules, by the end of their path, that train as a whole and are saved with the adapter. */
  declare modulesToSave?: string[] | null
  /**
   * Ids of tokens whose embeddings train, each row for itself, as new tokens need it: of the input embeddings, or lists
   * by the end of an embedding's (or linear layer's) path. The values take the rows' place, and only they are saved. An
   * output layer that is tied to the embeddings follows; it has a copy of their weight until the adapters are removed.
   */
  declare trainableTokenIndices?: number[] | Record<string, number[]> | null
  /**
   * true: A uniform as a linear layer's weight, B zeros; 'gaussian': A normal with deviation 1/r; false: both random [true].
   *
   * With 'pissa' (https://arxiv.org/abs/2404.02948), 'pissa_niter_16' (the same, approximately, by so many iterations) and
   * 'olora' (https://arxiv.org/abs/2406.01775) A and B begin as the principal part of a linear layer's weight, which
   * loses it: the network computes the same at first, and something else while the adapter is disabled. As in peft the
   * weight loses it again wherever the adapter is loaded; removing the adapter gives it back, within rounding.
   */
  declare initLoraWeights?: LoraStart
  /** Only layers with these numbers, where `targetModules` is a list of ends of paths. */
  declare layersToTransform?: number | number[] | null
  /** The name before the layer's number in a path; by default the first number counts. */
  declare layersPattern?: string | string[] | null
  /** Ranks of single layers, by the end of their path or a regular expression. */
  declare rankPattern?: Record<string, number>
  /** `loraAlpha` of single layers, as `rankPattern`. */
  declare alphaPattern?: Record<string, number>
  /** Made for use, not for training [false]. */
  declare inferenceMode?: boolean
  declare taskType?: string | null
  declare baseModelNameOrPath?: string | null
  declare revision?: string | null

  /** @throws ConfigError for an unknown key or a value that makes no adapter */
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

/** The configuration with its defaults. @throws ConfigError for an unknown key or a value that makes no adapter */
export function resolveConfig(given: LoraConfig): ResolvedLoraConfig {
  const where = 'LoraConfig'
  requireObject(where, 'the configuration', given)
  for (const key of Object.keys(given)) {
    if (keys.includes(key)) continue
    throw new ConfigError(`${where} has no '${shortened(key)}'${didYouMean(key, keys)}`, { key })
  }
  const config = { ...defaults, ...defined(given) } as ResolvedLoraConfig
  requireWhole(where, 'r', config.r, 1)
  requireNumber(where, 'loraAlpha', config.loraAlpha)
  requireNumber(where, 'loraDropout', config.loraDropout, { least: 0, below: 1 })
  requireOneOf(where, 'bias', config.bias, ['none', 'all', 'lora_only'])
  for (const key of ['useRslora', 'useDora', 'inferenceMode'] as const) {
    if (typeof config[key] !== 'boolean') throw misuse(where, key, 'true or false', config[key])
  }
  if (!isStart(config.initLoraWeights)) {
    const words = "true, false, 'gaussian', 'pissa', 'pissa_niter_[number]' or 'olora'"
    throw misuse(where, 'initLoraWeights', words, config.initLoraWeights)
  }
  requireNames(where, 'targetModules', config.targetModules, false)
  requireNames(where, 'excludeModules', config.excludeModules, true)
  requireNames(where, 'layersPattern', config.layersPattern, true)
  if (config.modulesToSave !== null && !isNames(config.modulesToSave)) {
    throw misuse(where, 'modulesToSave', 'a list of names', config.modulesToSave)
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
  throw misuse(where, key, 'a list of names or a regular expression as a string', value)
}

/** What adapter_config.json holds, for peft to read. */
export function toFile(config: ResolvedLoraConfig): Record<string, unknown> {
  return { peft_type: 'LORA', auto_mapping: null, fan_in_fan_out: false, ...toSnake(config), inference_mode: true }
}

// Keys of peft that do not change what a LoRA adapter computes once its weights are there.
const ignored = new Set([
  'peft_type',
  'peft_version',
  'auto_mapping',
  'megatron_config',
  'megatron_core',
  'loftq_config',
])
const alsoIgnored = new Set(['qalora_group_size', 'runtime_config'])

/** Reads the object of an adapter_config.json. @throws CheckpointError naming file and key, for what voxtorch lacks */
export function fromFile(object: unknown, file: string): ResolvedLoraConfig {
  const fail = (what: string, fields: object = {}) => new CheckpointError(`${file}: ${what}`, { file, ...fields })
  if (typeof object !== 'object' || object === null || Array.isArray(object)) throw fail('it is not an object')
  const given = object as Record<string, unknown>
  if (given.peft_type !== 'LORA') {
    throw fail(`peft_type is ${JSON.stringify(given.peft_type)}; only 'LORA' adapters can be loaded`)
  }
  const known = new Map(keys.map((key) => [snakeCase(key), key]))
  const config: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(given)) {
    const name = known.get(key)
    if (name !== undefined) config[name] = value
    else if (!ignored.has(key) && !alsoIgnored.has(key) && !isNothing(value)) {
      throw fail(`'${key}' is ${JSON.stringify(value)}, which voxtorch does not have`, { key })
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
