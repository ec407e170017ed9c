import { createHash } from 'node:crypto'
import { argumentError, requireOptions, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { type Tensor, tensor } from '../../../tensor/index.js'
import type { EmotionEncoder } from '../network/encoders.js'
import { FeatureCache, type FeatureCacheOptions } from './features.js'

/** Minimum standard deviation, so that almost constant features are not amplified. */
const LEAST_SPREAD = 1e-3

export interface SpeakerNormOptions extends FeatureCacheOptions {
  /** Cache of the encoder's own vectors. */
  cache: FeatureCache
}

/**
 * Return an encoder of these dialogs whose vectors are standardized per speaker: each feature minus its mean over the speaker's
 * utterances, divided by its standard deviation. This compares expression rather than voices. It uses no emotions, but it needs
 * several utterances of each speaker: for new speakers, call it with their dialogs.
 *
 * The encoder runs frozen. Speakers are identified by name, across all dialogs.
 * @throws DataError for an utterance without a speaker, and for a speaker with a single utterance
 */
export async function speakerNormalized(
  encoder: EmotionEncoder,
  dialogs: readonly EmotionDialog[],
  options: SpeakerNormOptions,
): Promise<EmotionEncoder<Float32Array>> {
  const where = 'speakerNormalized'
  requireOptions(where, options, ['cache', 'batchSize', 'onProgress', 'signal'])
  const { cache, ...rest } = options
  if (!(cache instanceof FeatureCache)) throw argumentError(where, 'cache', 'a FeatureCache', cache)
  const vectors = await cache.vectors(encoder, dialogs, rest)
  const own = new Map<string, { key: string; vector: Float32Array }[]>()
  for (const [row, dialog] of dialogs.entries()) {
    for (const [place, { id, speaker }] of dialog.utterances.entries()) {
      const vector = vectors[row]?.[place]
      if (vector === undefined) continue
      const { source } = dialog
      if (speaker === '')
        throw new DataError(`${source}, utterance ${id}: speaker: expected a name, got "". Add the speaker.`, {
          source,
        })
      const key = (await keyOf(encoder, dialog, place)) as string
      if (!own.has(speaker)) own.set(speaker, [])
      own.get(speaker)?.push({ key, vector })
    }
  }
  const normalized = new Map<string, Float32Array>()
  for (const [speaker, said] of own) {
    if (said.length === 1) {
      throw new DataError(
        `${where}: expected at least 2 utterances of speaker ${shown(speaker)}, got 1. Add utterances, or leave the speaker out.`,
        { speaker },
      )
    }
    for (const { key } of said) normalized.set(key, new Float32Array(encoder.size))
    for (let k = 0; k < encoder.size; k += 1) {
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
  const { modality, size, steps } = encoder
  const find = async (dialog: EmotionDialog, place: number) => {
    const key = await keyOf(encoder, dialog, place)
    const found = key === undefined ? undefined : normalized.get(key)
    if (key === undefined || found !== undefined) return found
    const { source, utterances } = dialog
    throw new DataError(
      `${source}, utterance ${utterances[place]?.id}: expected one of the dialogs that the encoder was created with, got another. Create it again with all dialogs.`,
      { source },
    )
  }
  return {
    ...{ modality, size, network: null, ...(steps !== undefined && { steps }) },
    recipe: { encoder: 'speaker-normalized', of: encoder.recipe, vectors: hash.digest('hex') },
    source: (dialog, place) => keyOf(encoder, dialog, place),
    read: find,
    async encode(inputs): Promise<Tensor> {
      const flat = new Float32Array(inputs.length * size)
      for (const [i, input] of inputs.entries()) flat.set(input, i * size)
      return tensor(flat, { shape: [inputs.length, size] })
    },
  }
}

/** Return a key of the speaker and the input. */
async function keyOf(encoder: EmotionEncoder, dialog: EmotionDialog, place: number): Promise<string | undefined> {
  const source = await encoder.source(dialog, place)
  return source === undefined ? undefined : `${dialog.utterances[place]?.speaker} ${source}`
}
