import { join } from 'node:path'
import { misuse } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import type { Part } from '../../../kit/split.js'
import type { Device } from '../../../tensor/index.js'
import type { BadClips } from '../data/bad-clips.js'
import { type EmotionSample, emotionSamples } from '../data/collate.js'
import { emotionVectors, FeatureCache, type FeatureCacheOptions } from '../data/features.js'
import type { EmotionParts } from '../data/open.js'
import type { EmotionModality } from '../network/config.js'
import type { EmotionTower } from '../network/towers.js'

type Towers = Partial<Record<EmotionModality, EmotionTower>>

/**
 * Towers that train with a classifier, and those that do not.
 * @throws ConfigError for two of one modality, and where none can train, or one could not be saved
 */
export function splitTowers(
  where: string,
  towers: readonly EmotionTower[],
  train: boolean,
): { live: Towers; frozen: EmotionTower[] } {
  const found: Towers = {}
  for (const tower of towers) {
    if (found[tower.modality])
      throw new ConfigError(`${where}: two towers of ${tower.modality}`, { argument: 'towers' })
    found[tower.modality] = tower
  }
  const live: Towers = train ? Object.fromEntries(Object.entries(found).filter(([, tower]) => tower.network)) : {}
  if (train && Object.keys(live).length === 0) {
    throw new ConfigError(`${where}: no tower has a network that could train`, { argument: 'tune' })
  }
  for (const tower of Object.values(live)) {
    if (tower.save) continue
    throw new ConfigError(`${where}: the tower of ${tower.modality} trains, and cannot be saved`, {
      argument: 'towers',
    })
  }
  return { live, frozen: towers.filter(({ modality }) => !Object.hasOwn(live, modality)) }
}

/** Towers that read what can be read, and count the rest. */
export function readingTowers(where: string, towers: readonly EmotionTower[], bad: BadClips): EmotionTower[] {
  if (!Array.isArray(towers) || towers.length === 0) {
    throw misuse(where, 'towers', 'a list of at least one tower', towers)
  }
  return towers.map((tower) => bad.reading(tower))
}

/**
 * Where the rest of a network belongs: beside its towers that train, or else where the frozen ones are, whose vectors a device
 * that is there reads faster. Undefined where no tower has weights.
 * @param wanted where the caller wants it, whatever the frozen ones do
 * @throws ConfigError for towers that train on several devices, or on another than `wanted`
 */
export function towersDevice(
  where: string,
  live: Towers,
  frozen: readonly EmotionTower[],
  wanted?: Device,
): Device | undefined {
  const found = (towers: readonly EmotionTower[]) => [
    ...new Set(towers.flatMap(({ network }) => network?.parameters().map(({ device }) => device) ?? [])),
  ]
  const training = found(Object.values(live))
  if (training.length > 1) {
    throw new ConfigError(`${where}: towers that train lie on ${training.join(' and ')}: put them on one device`, {
      ...{ argument: 'towers', devices: training },
    })
  }
  const [trained] = training
  if (wanted !== undefined) {
    // Without a number it is any of that kind.
    if (trained === undefined || trained === wanted || trained.startsWith(`${wanted}:`)) return trained ?? wanted
    throw new ConfigError(`${where}: towers that train lie on ${trained}, not on ${wanted}`, { argument: 'device' })
  }
  return trained ?? found(frozen).find((device) => device !== 'cpu') ?? found(frozen)[0]
}

/** Dialogs with their classes and the vectors of towers that do not train, from the cache or computed now. */
export async function samplesOf(
  data: EmotionParts,
  frozen: readonly EmotionTower[],
  options: { outputDir: string; cache?: string; onFeatures?: FeatureCacheOptions['onProgress'] },
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
