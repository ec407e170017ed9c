import {
  defined,
  misuse,
  requireNumber,
  requireObject,
  requireOneOf,
  requireOptions,
  requireWhole,
} from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { EMOTIONS } from '../../../kit/emotion/dialog.js'

/** What an utterance is known by. */
export type EmotionModality = 'text' | 'video' | 'audio'
/** In the order in which the published heads put their vectors side by side. */
export const MODALITIES: readonly EmotionModality[] = ['video', 'audio', 'text']

/**
 * How the vectors of an utterance become one:
 * - 'concat': side by side as they are, as the published heads have them;
 * - 'concat-ln': side by side after a layer norm each, so that none outweighs the others by its length;
 * - 'gated': their projections, weighted by what all of them say of each;
 * - 'cross-attention': their projections look at each other, and the mean of those that are there is taken;
 * - 'frames': of a film's frames and a text's tokens, all of which look at each other, as in experiments 7 and 8.
 */
export type EmotionFusion = 'concat' | 'concat-ln' | 'gated' | 'cross-attention' | 'frames'
export const FUSIONS: readonly EmotionFusion[] = ['concat', 'concat-ln', 'gated', 'cross-attention', 'frames']

/** A transformer over the utterances of a dialog, which knows how far apart they are, and whose they are. */
export interface EmotionContextConfig {
  /** [2] */
  layers?: number
  /** [4] */
  heads?: number
  /** Utterances further apart than these count as so far apart [8]. */
  maxDistance?: number
  /** Whether it matters if two utterances are of one speaker [true]. */
  speakers?: boolean
  /** Whether only what was said before is heard [false]. */
  causal?: boolean
}

export interface EmotionClassifierConfig {
  /** The classes, in the order of the logits [EMOTIONS]. */
  labels?: readonly string[]
  /** The modalities that there are, each with the size of its vectors. */
  sizes: Readonly<Partial<Record<EmotionModality, number>>>
  /** For 'frames': how many states the vector of a modality is, side by side [1]. */
  steps?: Readonly<Partial<Record<EmotionModality, number>>>
  /** ['concat-ln'] */
  fusion?: EmotionFusion
  /** Of an utterance's vector behind fusion, where there is context or vectors are projected [256]. */
  hiddenSize?: number
  /** null: each utterance stands alone [null]. */
  context?: EmotionContextConfig | null
  /** [0.1] */
  dropout?: number
  /** How often training drops a modality of an utterance that has another [0]. */
  modalityDropout?: number
  /** 'published': 'frames' has attention across the batch, and nothing of the film, as the original's code computes [null]. */
  compat?: 'published' | null
  /** Whether the last layer has a bias [true]. */
  headBias?: boolean
  /** What probabilities' logits are divided by; found on validation data after training [1]. */
  temperature?: number
}

export interface ResolvedEmotionConfig extends Required<EmotionClassifierConfig> {
  context: Required<EmotionContextConfig> | null
}

const KEYS = [
  ...['labels', 'sizes', 'fusion', 'hiddenSize', 'context', 'dropout', 'modalityDropout', 'headBias', 'temperature'],
  ...['steps', 'compat'],
]

/** The configuration with its defaults. @throws ConfigError for an unknown key, or one that makes no network */
export function emotionConfig(config: EmotionClassifierConfig): ResolvedEmotionConfig {
  const where = 'EmotionClassifier'
  requireOptions(where, config, KEYS)
  const { labels = EMOTIONS, sizes, fusion = 'concat-ln', hiddenSize = 256, context = null } = config
  const { dropout = 0.1, modalityDropout = 0, headBias = true, temperature = 1, steps = {}, compat = null } = config
  if (!Array.isArray(labels) || labels.length < 2 || new Set(labels).size < labels.length) {
    throw misuse(where, 'labels', 'at least two different names', labels)
  }
  requireObject(where, 'sizes', sizes)
  requireOptions(`${where}: sizes`, sizes, MODALITIES)
  for (const [name, size] of Object.entries(defined(sizes))) requireWhole(where, `sizes.${name}`, size, 1)
  if (Object.keys(defined(sizes)).length === 0) {
    throw new ConfigError(`${where}: sizes names no modality; there are ${MODALITIES.join(', ')}`, {
      argument: 'sizes',
    })
  }
  requireOneOf(where, 'fusion', fusion, FUSIONS)
  requireObject(where, 'steps', steps)
  requireOptions(`${where}: steps`, steps, MODALITIES)
  for (const [name, count] of Object.entries(defined(steps))) {
    requireWhole(where, `steps.${name}`, count, 1)
    const size = sizes[name as EmotionModality]
    if (size !== undefined && size % count === 0) continue
    throw new ConfigError(`${where}: vectors of ${name} have ${size} numbers, which are not ${count} states`, { steps })
  }
  if (compat !== null) requireOneOf(where, 'compat', compat, ['published'])
  if (compat !== null && fusion !== 'frames') {
    throw new ConfigError(`${where}: compat is for fusion 'frames', not '${fusion}'`, { argument: 'compat' })
  }
  if (fusion === 'frames') framesConfig(where, { ...config, modalityDropout })
  requireWhole(where, 'hiddenSize', hiddenSize, 1)
  requireNumber(where, 'dropout', dropout, { least: 0, below: 1 })
  requireNumber(where, 'modalityDropout', modalityDropout, { least: 0, below: 1 })
  requireNumber(where, 'temperature', temperature, { least: 1e-3 })
  if (typeof headBias !== 'boolean') throw misuse(where, 'headBias', 'true or false', headBias)
  const complete = { labels: [...labels], sizes: { ...defined(sizes) }, fusion, hiddenSize, dropout, modalityDropout }
  return {
    ...complete,
    ...{ steps: { ...defined(steps) }, compat },
    headBias,
    temperature,
    context: context === null ? null : contextConfig(where, context, hiddenSize),
  }
}

function framesConfig(where: string, { sizes, steps = {}, modalityDropout }: EmotionClassifierConfig): void {
  const named = Object.keys(defined(sizes)).sort().join()
  if (named !== 'text,video' || steps.video === undefined || steps.text === undefined) {
    throw new ConfigError(`${where}: fusion 'frames' is for states of video and of text, and sizes and steps say so`, {
      ...{ sizes, steps },
    })
  }
  if (modalityDropout !== 0) {
    throw new ConfigError(`${where}: modalityDropout is for the other ways of fusion`, { argument: 'modalityDropout' })
  }
}

export function contextConfig(
  where: string,
  context: EmotionContextConfig,
  hiddenSize: number,
): Required<EmotionContextConfig> {
  requireOptions(`${where}: context`, context, ['layers', 'heads', 'maxDistance', 'speakers', 'causal'])
  const { layers = 2, heads = 4, maxDistance = 8, speakers = true, causal = false } = context
  requireWhole(where, 'context.layers', layers, 1)
  requireWhole(where, 'context.heads', heads, 1)
  requireWhole(where, 'context.maxDistance', maxDistance, 1)
  for (const [name, value] of Object.entries({ speakers, causal })) {
    if (typeof value !== 'boolean') throw misuse(where, `context.${name}`, 'true or false', value)
  }
  if (hiddenSize % heads !== 0) {
    throw new ConfigError(`${where}: hiddenSize ${hiddenSize} is not a multiple of ${heads} heads`, {
      hiddenSize,
      heads,
    })
  }
  return { layers, heads, maxDistance, speakers, causal }
}
