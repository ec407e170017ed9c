import { argumentError, defined, requireObject, requireOptions, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { type ChangesOf, checkedBy, settings, unchecked, type ValuesOf } from '../../../base/settings.js'
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
export type EmotionFusion = (typeof FUSIONS)[number]
export const FUSIONS = ['concat', 'concat-ln', 'gated', 'cross-attention', 'frames'] as const

export const CONTEXT_SETTINGS = settings({
  /** Number of layers. Default 2. */
  layers: { type: 'integer', min: 1, default: 2 },
  /** Number of attention heads. Default 4. */
  heads: {
    ...{ type: 'integer', min: 1, default: 4, help: 'attention heads of that transformer' },
    option: 'contextHeads',
  },
  /** Largest distance between utterances with a position bias of its own; larger ones share it. Default 8. */
  maxDistance: { type: 'integer', min: 1, default: 8 },
  /** Whether attention depends on whether two utterances have the same speaker. Default true. */
  speakers: { type: 'boolean', default: true },
  /** Whether an utterance attends only to itself and to earlier ones. Default false. */
  causal: { type: 'boolean', default: false, help: 'attend only to earlier utterances' },
})

/** Configuration of the transformer over the utterances of a dialog, with relative positions and speaker identity. @interface */
export type EmotionContextConfig = ChangesOf<typeof CONTEXT_SETTINGS.table>

type PerModality = Readonly<Partial<Record<EmotionModality, number>>>

/** An integer of at least 1 for some of the modalities. */
const PER_MODALITY = checkedBy<PerModality>((where, name, value) => {
  requireObject(where, name, value)
  requireOptions(`${where}: ${name}`, value, MODALITIES)
  for (const [key, count] of Object.entries(defined(value as object))) requireWhole(where, `${name}.${key}`, count, 1)
})

export const CLASSIFIER_SETTINGS = settings({
  /** Class names, in the order of the logits. Default {@link EMOTIONS}. */
  labels: {
    type: checkedBy<readonly string[]>((where, name, value) => {
      if (Array.isArray(value) && value.length > 1 && new Set(value).size === value.length) return
      throw argumentError(where, name, 'a list of at least two different names', value)
    }),
    default: EMOTIONS,
  },
  /** Size of the vectors of each modality that the model uses. */
  sizes: { type: PER_MODALITY, required: true },
  /** For 'frames': number of states that are concatenated in the vector of a modality. Default 1. */
  steps: { type: PER_MODALITY, default: {} },
  /** Default 'concat-ln'. */
  fusion: { type: FUSIONS, default: 'concat-ln', help: 'fusion of the embeddings of the modalities' },
  /** Size of an utterance's vector in the context transformer, and of projections in 'gated' and 'cross-attention'. Default 256. */
  hiddenSize: { type: 'integer', min: 1, default: 256, help: 'size of the fused embedding' },
  /** Transformer over the dialog. Default null: each utterance is classified on its own. */
  context: { type: unchecked<EmotionContextConfig | null>(), default: null },
  /** Default 0.1. */
  dropout: { type: 'fraction', default: 0.1, help: 'dropout of fusion, context and head' },
  /** Probability in [0, 1) that training drops a modality of an utterance that has another one. Default 0. */
  modalityDropout: { type: 'fraction', default: 0, help: 'probability that training drops a modality' },
  /** 'published': 'frames' attends across the batch and ignores the video, as the original code does. Default null. */
  compat: { type: ['published'], nullable: true, default: null },
  /** Whether the last layer has a bias. Default true. */
  headBias: { type: 'boolean', default: true, defaultText: 'yes', help: 'bias of the last layer' },
  /** Divisor of the logits before softmax; fitted on validation data after training. Default 1. */
  temperature: { type: 'number', min: 1e-3, default: 1 },
})

/** Configuration of an emotion classifier. @interface */
export type EmotionClassifierConfig = ChangesOf<typeof CLASSIFIER_SETTINGS.table>

export interface ResolvedEmotionConfig extends ValuesOf<typeof CLASSIFIER_SETTINGS.table> {
  context: Required<EmotionContextConfig> | null
}

/** Complete a configuration with its defaults and check it. @throws ConfigError for an unknown key or an invalid value */
export function emotionConfig(config: EmotionClassifierConfig): ResolvedEmotionConfig {
  const where = 'EmotionClassifier'
  const values = CLASSIFIER_SETTINGS.read(where, config)
  const { labels, fusion, compat, context } = values
  const [sizes, steps] = [defined(values.sizes), defined(values.steps)]
  if (Object.keys(sizes).length === 0) {
    throw new ConfigError(
      `${where}: sizes: expected the vector size of at least one modality, got {}. Modalities: ${MODALITIES.join(', ')}.`,
      { argument: 'sizes' },
    )
  }
  for (const [name, count] of Object.entries(steps)) {
    const size = sizes[name as EmotionModality]
    if (size === undefined || size % count === 0) continue
    throw new ConfigError(
      `${where}: sizes.${name}: expected a multiple of steps.${name} (${count}), got ${size}. Change one of them.`,
      { steps },
    )
  }
  if (compat !== null && fusion !== 'frames') {
    throw new ConfigError(
      `${where}: compat: expected null with fusion '${fusion}', got '${compat}'. Leave it out, or use fusion 'frames'.`,
      { argument: 'compat' },
    )
  }
  if (fusion === 'frames') framesConfig(where, values)
  return {
    ...{ ...values, labels: [...labels], sizes, steps },
    context: context === null ? null : contextConfig(where, context, values.hiddenSize),
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
  const values = CONTEXT_SETTINGS.read(`${where}: context`, context)
  const { heads } = values
  if (hiddenSize % heads !== 0) {
    throw new ConfigError(
      `${where}: hiddenSize: expected a multiple of context.heads (${heads}), got ${hiddenSize}. Change one of them.`,
      {
        hiddenSize,
        heads,
      },
    )
  }
  return values
}
