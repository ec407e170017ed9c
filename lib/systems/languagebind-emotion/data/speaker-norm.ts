import { createHash } from 'node:crypto'
import { misuse, requireOptions } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { type Tensor, tensor } from '../../../tensor/index.js'
import type { EmotionTower } from '../network/towers.js'
import { FeatureCache, type FeatureCacheOptions } from './features.js'

/** Below it, a feature that hardly changes with a speaker is taken as one that does not. */
const LEAST_SPREAD = 1e-3

export interface SpeakerNormOptions extends FeatureCacheOptions {
  /** Where the tower's own vectors are kept. */
  cache: FeatureCache
}

/**
 * A tower of these dialogs whose vectors say how an utterance differs from what is usual for its speaker: each feature less
 * its mean over all that the speaker says in them, over its standard deviation. So voices that differ are compared by what
 * they do, and not by whose they are. No emotion is looked at, but a speaker's other utterances are: new speakers come with
 * several of theirs, in a tower made of their dialogs.
 *
 * The tower runs frozen. Speakers are known by their names, over all dialogs.
 * @throws DataError for an utterance of nobody, and a speaker of whom there is one utterance alone
 */
export async function speakerNormalized(
  tower: EmotionTower,
  dialogs: readonly EmotionDialog[],
  options: SpeakerNormOptions,
): Promise<EmotionTower<Float32Array>> {
  const where = 'speakerNormalized'
  requireOptions(where, options, ['cache', 'batchSize', 'onProgress', 'signal'])
  const { cache, ...rest } = options
  if (!(cache instanceof FeatureCache)) throw misuse(where, 'cache', 'a FeatureCache', cache)
  const vectors = await cache.vectors(tower, dialogs, rest)
  const own = new Map<string, { key: string; vector: Float32Array }[]>()
  for (const [row, dialog] of dialogs.entries()) {
    for (const [place, { id, speaker }] of dialog.utterances.entries()) {
      const vector = vectors[row]?.[place]
      if (vector === undefined) continue
      const { source } = dialog
      if (speaker === '') throw new DataError(`${source}, utterance ${id}: nobody is said to speak`, { source })
      const key = (await keyOf(tower, dialog, place)) as string
      if (!own.has(speaker)) own.set(speaker, [])
      own.get(speaker)?.push({ key, vector })
    }
  }
  const normalized = new Map<string, Float32Array>()
  for (const [speaker, said] of own) {
    if (said.length === 1) {
      throw new DataError(`${where}: what is usual for ${speaker} is not known from one utterance`, { speaker })
    }
    for (const { key } of said) normalized.set(key, new Float32Array(tower.size))
    for (let k = 0; k < tower.size; k += 1) {
      const mean = said.reduce((sum, { vector }) => sum + (vector[k] as number), 0) / said.length
      const square = said.reduce((sum, { vector }) => sum + ((vector[k] as number) - mean) ** 2, 0) / said.length
      const spread = Math.max(LEAST_SPREAD, Math.sqrt(square))
      for (const { key, vector } of said) {
        ;(normalized.get(key) as Float32Array)[k] = ((vector[k] as number) - mean) / spread
      }
    }
  }
  const hash = createHash('sha256')
  for (const [key, vector] of [...normalized].sort(([a], [b]) => (a < b ? -1 : 1))) hash.update(key).update(vector)
  const { modality, size, steps } = tower
  const find = async (dialog: EmotionDialog, place: number) => {
    const key = await keyOf(tower, dialog, place)
    const found = key === undefined ? undefined : normalized.get(key)
    if (key === undefined || found !== undefined) return found
    const { source, utterances } = dialog
    throw new DataError(`${source}, utterance ${utterances[place]?.id}: the tower was made of other dialogs`, {
      source,
    })
  }
  return {
    ...{ modality, size, network: null, ...(steps !== undefined && { steps }) },
    recipe: { tower: 'speaker-normalized', of: tower.recipe, vectors: hash.digest('hex') },
    source: (dialog, place) => keyOf(tower, dialog, place),
    read: find,
    async encode(inputs): Promise<Tensor> {
      const flat = new Float32Array(inputs.length * size)
      for (const [i, input] of inputs.entries()) flat.set(input, i * size)
      return tensor(flat, { shape: [inputs.length, size] })
    },
  }
}

/** Who says it, and what. */
async function keyOf(tower: EmotionTower, dialog: EmotionDialog, place: number): Promise<string | undefined> {
  const source = await tower.source(dialog, place)
  return source === undefined ? undefined : `${dialog.utterances[place]?.speaker} ${source}`
}
