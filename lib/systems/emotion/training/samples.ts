import { join } from 'node:path'
import { argumentError, requireObject, requireOneOf } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { checkedBy, settings, unchecked, type ValuesOf } from '../../../base/settings.js'
import type { Part } from '../../../kit/split.js'
import { TRAINER_OPTIONS } from '../../../kit/training-settings.js'
import type { Device } from '../../../tensor/index.js'
import { BadClips } from '../data/bad-clips.js'
import { type EmotionSample, emotionSamples } from '../data/collate.js'
import { emotionVectors, FeatureCache, type FeatureCacheOptions } from '../data/features.js'
import type { EmotionParts } from '../data/open.js'
import type { EmotionModality } from '../network/config.js'
import type { EmotionEncoder } from '../network/encoders.js'
import type { EmotionLora } from './head.js'

type Encoders = Partial<Record<EmotionModality, EmotionEncoder>>

/**
 * Separate the encoders that train with a classifier from the frozen ones.
 * @throws ConfigError for two encoders of one modality, and with `train` if none has a network or one cannot be saved
 */
function splitEncoders(
  where: string,
  encoders: readonly EmotionEncoder[],
  train: boolean,
): { live: Encoders; frozen: EmotionEncoder[] } {
  const found: Encoders = {}
  for (const encoder of encoders) {
    if (found[encoder.modality])
      throw new ConfigError(
        `${where}: expected at most one encoder per modality, got two of ${encoder.modality}. Remove one of them.`,
        { argument: 'encoders' },
      )
    found[encoder.modality] = encoder
  }
  const live: Encoders = train ? Object.fromEntries(Object.entries(found).filter(([, encoder]) => encoder.network)) : {}
  if (train && Object.keys(live).length === 0) {
    throw new ConfigError(
      `${where}: tune: expected an encoder with a network to train, got none. Use tune 'head', or add an encoder with a network.`,
      { argument: 'tune' },
    )
  }
  for (const encoder of Object.values(live)) {
    if (encoder.save) continue
    throw new ConfigError(
      `${where}: expected a ${encoder.modality} encoder with a \`save\` method, because it trains, got one without. Use tune 'head'.`,
      {
        argument: 'encoders',
      },
    )
  }
  return { live, frozen: encoders.filter(({ modality }) => !Object.hasOwn(live, modality)) }
}

/** Options that the trainings on utterances share. */
export const TRAINING_SETTINGS = settings({
  data: { type: checkedBy<EmotionParts>(requireObject), required: true },
  /** Encoders of utterances, at most one per modality. */
  encoders: {
    type: checkedBy<readonly EmotionEncoder[]>((where, name, value) => {
      if (Array.isArray(value) && value.length > 0) return
      throw argumentError(where, name, 'a list of at least one encoder', value)
    }),
    required: true,
  },
  /** Folder for checkpoints, the best model (`best/`) and `results.json`. */
  outputDir: { type: 'string', required: true },
  /** Training of the encoders: frozen ('head', default), all weights ('full'), or LoRA adapters. Fusion, context and head always train. */
  tune: {
    type: checkedBy<'head' | 'full' | EmotionLora>((where, name, value) => {
      if (typeof value === 'string') requireOneOf(where, name, value, ['head', 'full'])
      else requireObject(where, name, value)
    }),
    default: 'head',
  },
  /**
   * Action for a clip that cannot be read: a missing or damaged file, or a video without audio. 'stop' (default) throws; 'skip'
   * treats the modality as missing and counts such clips by reason.
   */
  onBadRecord: { type: ['stop', 'skip'], default: 'stop' },
  /** Device of fusion, context and head. Default: the encoders' device, or the default device if they have no network. */
  device: { type: unchecked<Device>() },
  /** Folder for vectors of frozen encoders. Default: `features` in the output folder. */
  cache: { type: 'string' },
  /**
   * 'published': the recipe of the original. With adapters, the head then stays frozen and all biases train. By default the head
   * trains together with the adapters.
   */
  compat: { type: ['published'] },
  ...TRAINER_OPTIONS,
})

type TrainingOptions = Omit<ValuesOf<typeof TRAINING_SETTINGS.table>, 'tune'> & {
  tune?: 'head' | 'full' | EmotionLora
  onFeatures?: FeatureCacheOptions['onProgress'] | undefined
}

/**
 * Separate the encoders that train from the frozen ones.
 * @returns the encoders, the sizes of their vectors, the device of the head, a function that returns the samples (see `samplesOf`),
 * and one that returns the report of unreadable clips and the notes for the results
 */
export function prepareEncoders(where: string, options: TrainingOptions) {
  const { data, tune = 'head', onBadRecord } = options
  const bad = new BadClips(onBadRecord)
  const encoders = options.encoders.map((encoder) => bad.reading(encoder))
  const { live, frozen } = splitEncoders(where, encoders, tune !== 'head')
  return {
    ...{ encoders, live, frozen, device: encodersDevice(where, live, frozen, options.device) },
    sizes: Object.fromEntries(encoders.map(({ modality, size }) => [modality, size])),
    samples: () => samplesOf(data, frozen, options),
    report: () => ({
      badClips: { ...bad.reasons },
      notes: [...data.notes, ...(bad.count > 0 ? [bad.note] : [])],
    }),
  }
}

/**
 * Return the device for the layers that are not part of an encoder: the device of the encoders that train; else the one on which
 * the frozen encoders leave their vectors; undefined if no encoder has weights.
 * @param wanted the device that the caller asked for; it takes precedence over frozen encoders
 * @throws ConfigError for encoders that train on several devices, or on another device than `wanted`
 */
export function encodersDevice(
  where: string,
  live: Encoders,
  frozen: readonly EmotionEncoder[],
  wanted?: Device,
): Device | undefined {
  const found = (encoders: readonly EmotionEncoder[]) => [
    ...new Set(encoders.flatMap(({ network }) => network?.parameters().map(({ device }) => device) ?? [])),
  ]
  const training = found(Object.values(live))
  if (training.length > 1) {
    throw new ConfigError(
      `${where}: expected encoders that train on one device, got ${training.join(' and ')}. Move them to one device.`,
      {
        ...{ argument: 'encoders', devices: training },
      },
    )
  }
  const [trained] = training
  if (wanted !== undefined) {
    // A device without an index, such as 'cuda', matches any index.
    if (trained === undefined || trained === wanted || trained.startsWith(`${wanted}:`)) return trained ?? wanted
    throw new ConfigError(
      `${where}: device: expected ${trained}, where the encoders that train are, got ${wanted}. Move them to ${wanted}, or change \`device\`.`,
      { argument: 'device' },
    )
  }
  return trained ?? found(frozen).find((device) => device !== 'cpu') ?? found(frozen)[0]
}

/** Return the samples of dialogs, with vectors of the frozen encoders from the cache or computed now. */
async function samplesOf(
  data: EmotionParts,
  frozen: readonly EmotionEncoder[],
  options: TrainingOptions,
): Promise<Record<Part, EmotionSample[]>> {
  const parts = ['train', 'valid', 'test'] as const
  let vectors: Awaited<ReturnType<typeof emotionVectors>> = () => ({})
  if (frozen.length > 0) {
    const { outputDir, cache = join(outputDir, 'features'), onFeatures } = options
    const opened = FeatureCache.open(cache)
    try {
      const all = parts.flatMap((part) => data[part])
      vectors = await emotionVectors(frozen, all, opened, onFeatures ? { onProgress: onFeatures } : {})
    } finally {
      await opened.close()
    }
  }
  return Object.fromEntries(parts.map((part) => [part, emotionSamples(data[part], data.labels, vectors)])) as Record<
    Part,
    EmotionSample[]
  >
}
