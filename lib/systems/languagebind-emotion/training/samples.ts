import { join } from 'node:path'
import { misuse } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import type { Part } from '../../../kit/split.js'
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
  if (!Array.isArray(towers) || towers.length === 0) {
    throw misuse(where, 'towers', 'a list of at least one tower', towers)
  }
  const found: Towers = {}
  for (const tower of towers as readonly EmotionTower[]) {
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
