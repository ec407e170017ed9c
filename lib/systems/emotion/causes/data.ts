import { ConfigError } from '../../../base/errors.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { evaluateBatches } from '../../../kit/evaluate.js'
import { scope, type Tensor, tensor } from '../../../tensor/index.js'
import { BadClips, readUtterance } from '../data/bad-clips.js'
import { type EmotionSample, speakersOf } from '../data/collate.js'
import { MODALITIES } from '../network/config.js'
import type { EmotionClassifier } from '../network/network.js'
import type { CauseInputs } from './network.js'

/** A dialog with its emotions as class indices, and its pairs of effect and cause. */
export interface CauseSample {
  dialog: EmotionDialog
  /** Concatenated vectors of each utterance; zeros for missing modalities. */
  vectors: readonly Float32Array[]
  /** Class index of each emotion; -1 if it is unknown. */
  emotions: readonly number[]
  /** Class index of the neutral emotion, whose utterances are not effects. */
  neutral: number
  /** `effect,cause` of each pair. */
  pairs: ReadonlySet<string>
}

/** Utterances that an encoder processes at once. */
const BATCH = 16

/**
 * Complete the vectors of samples. A modality without vectors, because its encoder trained with the classifier, is encoded by
 * that encoder with its current weights.
 * @throws ConfigError if a sample lacks a modality for which the classifier has no encoder
 */
export async function completeVectors(
  where: string,
  classifier: EmotionClassifier,
  samples: readonly EmotionSample[],
  bad: BadClips = new BadClips('stop'),
): Promise<EmotionSample[]> {
  let complete = [...samples]
  for (const name of classifier.modalities) {
    if (complete.every(({ vectors }) => vectors[name])) continue
    const own = classifier.ownEncoders[name]
    if (own === undefined) {
      throw new ConfigError(
        `${where}: samples: expected vectors of ${name}, because the classifier has no ${name} encoder, got none. Add the vectors, or load the classifier with the encoder.`,
        { argument: 'samples', modality: name },
      )
    }
    const encoder = bad.reading(own)
    const rows = await evaluateBatches(
      classifier,
      complete.map((sample) => [sample]),
      async ([sample]) => {
        const { dialog, vectors } = sample as EmotionSample
        if (vectors[name]) return vectors[name]
        const found = new Array<Float32Array | undefined>(dialog.utterances.length).fill(undefined)
        for (let from = 0; from < found.length; from += BATCH) {
          await scope(async () => {
            const read: { place: number; input: unknown }[] = []
            for (let place = from; place < Math.min(found.length, from + BATCH); place += 1) {
              const input = await readUtterance(encoder, dialog, place)
              if (input !== undefined) read.push({ place, input })
            }
            if (read.length === 0) return
            const encoded = await encoder.encode(read.map(({ input }) => input))
            const flat = (await encoded.to({ device: 'cpu', dtype: 'float32' }).contiguous().data()) as Float32Array
            for (const [i, { place }] of read.entries())
              found[place] = flat.slice(i * encoder.size, (i + 1) * encoder.size)
          })
        }
        return found
      },
    )
    complete = complete.map((sample, i) => ({ ...sample, vectors: { ...sample.vectors, [name]: rows[i] } }))
  }
  return complete
}

/** Concatenate the vectors of all modalities, in the order of the published heads. */
export function joinedVectors(
  { dialog, vectors }: EmotionSample,
  sizes: Readonly<Record<string, number>>,
): Float32Array[] {
  // Zeros are only for modalities that an utterance lacks. If a modality was not encoded at all, the model would train on zeros.
  const names = MODALITIES.filter((name) => sizes[name] !== undefined)
  const size = names.reduce((sum, name) => sum + (sizes[name] as number), 0)
  return dialog.utterances.map((_, place) => {
    const row = new Float32Array(size)
    let at = 0
    for (const name of names) {
      const rows = vectors[name]
      if (rows === undefined)
        throw new ConfigError(
          `${dialog.source}: expected vectors of ${name}, got none. Encode the modality before the cause scorer runs.`,
          { modality: name },
        )
      const own = rows[place]
      if (own) row.set(own, at)
      at += sizes[name] as number
    }
    return row
  })
}

export interface CauseBatch extends CauseInputs {
  /** float32 [candidate pairs], 1 for a cause. */
  labels: Tensor
  /** int64 [candidate pairs]: their indices in [dialogs · effects · causes]. */
  candidates: Tensor
}

/** Make a batch of dialogs. Candidate pairs are each utterance with an emotion, with all utterances of its dialog as causes. */
export function causeCollate(samples: readonly CauseSample[]): CauseBatch {
  return scope(() => {
    const time = Math.max(...samples.map(({ dialog }) => dialog.utterances.length))
    const size = ((samples[0] as CauseSample).vectors[0] as Float32Array).length
    const count = samples.length * time
    const [flat, mask] = [new Float32Array(count * size), new Uint8Array(count)]
    const [speakers, emotions] = [new BigInt64Array(count), new BigInt64Array(count)]
    const [labels, candidates]: [number[], bigint[]] = [[], []]
    for (const [row, sample] of samples.entries()) {
      for (const [place, speaker] of speakersOf(sample.dialog).entries()) {
        const at = row * time + place
        flat.set(sample.vectors[place] as Float32Array, at * size)
        mask[at] = 1
        speakers[at] = BigInt(speaker)
        emotions[at] = BigInt(sample.emotions[place] as number)
      }
      for (const { effect, cause } of candidatePairs(sample)) {
        candidates.push(BigInt((row * time + effect) * time + cause))
        labels.push(sample.pairs.has(`${effect},${cause}`) ? 1 : 0)
      }
    }
    const shape = [samples.length, time]
    return {
      vectors: tensor(flat, { shape: [...shape, size], device: 'cpu' }),
      mask: tensor(mask, { shape, dtype: 'uint8', device: 'cpu' }).to({ dtype: 'bool' }),
      speakers: tensor(speakers, { shape, device: 'cpu' }),
      emotions: tensor(emotions, { shape, device: 'cpu' }),
      labels: tensor(Float32Array.from(labels), { device: 'cpu' }),
      candidates: tensor(BigInt64Array.from(candidates), { device: 'cpu' }),
    }
  })
}

export function candidatePairs({ dialog, emotions, neutral }: Pick<CauseSample, 'dialog' | 'emotions' | 'neutral'>) {
  const places = [...dialog.utterances.keys()]
  return places.flatMap((effect) =>
    emotions[effect] === neutral || (emotions[effect] as number) < 0 ? [] : places.map((cause) => ({ effect, cause })),
  )
}
