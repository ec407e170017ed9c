import {
  argumentError,
  defined,
  requireNumber,
  requireObject,
  requireOneOf,
  requireOptions,
  requireWhole,
} from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { EMOTIONS } from '../../../kit/emotion/dialog.js'

/** An input of an utterance. */
export type EmotionModality = 'text' | 'video' | 'audio'
/** All modalities, in the order in which the published heads concatenate their vectors. */
export const MODALITIES: readonly EmotionModality[] = ['video', 'audio', 'text']

/**
 * Fusion of the vectors of an utterance:
 * - 'concat': concatenation without normalization, as in the published heads;
 * - 'concat-ln': concatenation after a layer norm per modality, so that vectors of all lengths weigh the same;
 * - 'gated': weighted sum of projected vectors, with weights computed from all of them;
 * - 'cross-attention': attention between projected vectors, then the mean over the modalities that are present;
 * - 'frames': attention over video frames and text tokens, as in experiments 7 and 8.
 */
export type EmotionFusion = 'concat' | 'concat-ln' | 'gated' | 'cross-attention' | 'frames'
export const FUSIONS: readonly EmotionFusion[] = ['concat', 'concat-ln', 'gated', 'cross-attention', 'frames']

/** Configuration of the transformer over the utterances of a dialog, with relative positions and speaker identity. */
export interface EmotionContextConfig {
  /** Number of layers. Default 2. */
  layers?: number
  /** Number of attention heads. Default 4. */
  heads?: number
  /** Largest distance between utterances with a position bias of its own; larger ones share it. Default 8. */
  maxDistance?: number
  /** Whether attention depends on whether two utterances have the same speaker. Default true. */
  speakers?: boolean
  /** Whether an utterance attends only to itself and to earlier ones. Default false. */
  causal?: boolean
}

export interface EmotionClassifierConfig {
  /** Class names, in the order of the logits. Default {@link EMOTIONS}. */
  labels?: readonly string[]
  /** Size of the vectors of each modality that the model uses. */
  sizes: Readonly<Partial<Record<EmotionModality, number>>>
  /** For 'frames': number of states that are concatenated in the vector of a modality. Default 1. */
  steps?: Readonly<Partial<Record<EmotionModality, number>>>
  /** Default 'concat-ln'. */
  fusion?: EmotionFusion
  /** Size of an utterance's vector in the context transformer, and of projections in 'gated' and 'cross-attention'. Default 256. */
  hiddenSize?: number
  /** Transformer over the dialog. Default null: each utterance is classified on its own. */
  context?: EmotionContextConfig | null
  /** Default 0.1. */
  dropout?: number
  /** Probability in [0, 1) that training drops a modality of an utterance that has another one. Default 0. */
  modalityDropout?: number
  /** 'published': 'frames' attends across the batch and ignores the video, as the original code does. Default null. */
  compat?: 'published' | null
  /** Whether the last layer has a bias. Default true. */
  headBias?: boolean
  /** Divisor of the logits before softmax; fitted on validation data after training. Default 1. */
  temperature?: number
}

export interface ResolvedEmotionConfig extends Required<EmotionClassifierConfig> {
  context: Required<EmotionContextConfig> | null
}

const KEYS = [
  ...['labels', 'sizes', 'fusion', 'hiddenSize', 'context', 'dropout', 'modalityDropout', 'headBias', 'temperature'],
  ...['steps', 'compat'],
]

/** Complete a configuration with its defaults and check it. @throws ConfigError for an unknown key or an invalid value */
export function emotionConfig(config: EmotionClassifierConfig): ResolvedEmotionConfig {
  const where = 'EmotionClassifier'
  requireOptions(where, config, KEYS)
  const { labels = EMOTIONS, sizes, fusion = 'concat-ln', hiddenSize = 256, context = null } = config
  const { dropout = 0.1, modalityDropout = 0, headBias = true, temperature = 1, steps = {}, compat = null } = config
  if (!Array.isArray(labels) || labels.length < 2 || new Set(labels).size < labels.length) {
    throw argumentError(where, 'labels', 'a list of at least two different names', labels)
  }
  requireObject(where, 'sizes', sizes)
  requireOptions(`${where}: sizes`, sizes, MODALITIES)
  for (const [name, size] of Object.entries(defined(sizes))) requireWhole(where, `sizes.${name}`, size, 1)
  if (Object.keys(defined(sizes)).length === 0) {
    throw new ConfigError(
      `${where}: sizes: expected the vector size of at least one modality, got {}. Modalities: ${MODALITIES.join(', ')}.`,
      { argument: 'sizes' },
    )
  }
  requireOneOf(where, 'fusion', fusion, FUSIONS)
  requireObject(where, 'steps', steps)
  requireOptions(`${where}: steps`, steps, MODALITIES)
  for (const [name, count] of Object.entries(defined(steps))) {
    requireWhole(where, `steps.${name}`, count, 1)
    const size = sizes[name as EmotionModality]
    if (size !== undefined && size % count === 0) continue
    throw new ConfigError(
      `${where}: sizes.${name}: expected a multiple of steps.${name} (${count}), got ${size}. Change one of them.`,
      { steps },
    )
  }
  if (compat !== null) requireOneOf(where, 'compat', compat, ['published'])
  if (compat !== null && fusion !== 'frames') {
    throw new ConfigError(
      `${where}: compat: expected null with fusion '${fusion}', got '${compat}'. Leave it out, or use fusion 'frames'.`,
      { argument: 'compat' },
    )
  }
  if (fusion === 'frames') framesConfig(where, { ...config, modalityDropout })
  requireWhole(where, 'hiddenSize', hiddenSize, 1)
  requireNumber(where, 'dropout', dropout, { least: 0, below: 1 })
  requireNumber(where, 'modalityDropout', modalityDropout, { least: 0, below: 1 })
  requireNumber(where, 'temperature', temperature, { least: 1e-3 })
  if (typeof headBias !== 'boolean') throw argumentError(where, 'headBias', 'true or false', headBias)
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
    throw new ConfigError(
      `${where}: fusion 'frames': expected sizes and steps of exactly video and text, got sizes of ${named.replaceAll(',', ', ')} and steps of ${Object.keys(defined(steps)).join(', ') || 'nothing'}. Set both for both.`,
      {
        ...{ sizes, steps },
      },
    )
  }
  if (modalityDropout !== 0) {
    throw new ConfigError(
      `${where}: modalityDropout: expected 0 with fusion 'frames', got ${modalityDropout}. Leave it out, or use another fusion.`,
      { argument: 'modalityDropout' },
    )
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
    if (typeof value !== 'boolean') throw argumentError(where, `context.${name}`, 'true or false', value)
  }
  if (hiddenSize % heads !== 0) {
    throw new ConfigError(
      `${where}: hiddenSize: expected a multiple of context.heads (${heads}), got ${hiddenSize}. Change one of them.`,
      {
        hiddenSize,
        heads,
      },
    )
  }
  return { layers, heads, maxDistance, speakers, causal }
}
