import { argumentError, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { type Device, scope, type Tensor, tensor } from '../../../tensor/index.js'
import { type EmotionModality, MODALITIES } from '../network/config.js'
import type { EmotionEncoder } from '../network/encoders.js'
import type { EmotionInputs } from '../network/network.js'
import { readUtterance } from './bad-clips.js'

/** A dialog as input of a classifier, for training or prediction. */
export interface EmotionSample {
  readonly dialog: EmotionDialog
  /** Class index of each utterance; -100 if it is unknown. */
  readonly labels: readonly number[]
  /** Vectors of the modalities that were encoded before: one per utterance, undefined if it lacks the modality. */
  readonly vectors: Readonly<Partial<Record<EmotionModality, readonly (Float32Array | undefined)[]>>>
}

/** A batch of dialogs. `labels` has one entry per utterance with a known emotion, in order. */
export interface EmotionBatch extends EmotionInputs {
  /** int64 [known utterances] */
  labels: Tensor
  /** int64 [known utterances]: their indices in [dialogs · utterances]. */
  known: Tensor
}

/** Make samples of dialogs. @param labels class names @throws DataError for an emotion that is not among them */
export function emotionSamples(
  dialogs: readonly EmotionDialog[],
  labels: readonly string[],
  vectors: (dialog: EmotionDialog) => EmotionSample['vectors'] = () => ({}),
): EmotionSample[] {
  return dialogs.map((dialog) => ({
    dialog,
    labels: dialog.utterances.map(({ emotion }) => (emotion === undefined ? -100 : classOf(emotion, labels, dialog))),
    vectors: vectors(dialog),
  }))
}

function classOf(emotion: string, labels: readonly string[], { source }: EmotionDialog): number {
  const found = labels.indexOf(emotion)
  if (found >= 0) return found
  throw new DataError(
    `${source}: emotion: expected one of ${labels.join(', ')}, got ${shown(emotion)}. Correct it, or change the labels.`,
    { emotion },
  )
}

/** Number the speakers of a dialog in order of appearance. An utterance without a speaker counts as a speaker of its own. */
export function speakersOf({ utterances }: EmotionDialog): number[] {
  const known = new Map<string, number>()
  return utterances.map(({ speaker }, place) => {
    const name = speaker === '' ? `\0${place}` : speaker
    if (!known.has(name)) known.set(name, known.size)
    return known.get(name) as number
  })
}

export type EmotionCollator = (samples: readonly EmotionSample[]) => Promise<EmotionBatch>

/**
 * Return a collate function for dialogs. If a sample lacks the vectors of a modality, the encoder in `encoders` reads its inputs.
 * @param sizes vector size of each modality of the network
 */
export function emotionCollate(
  sizes: Readonly<Partial<Record<EmotionModality, number>>>,
  encoders: Readonly<Partial<Record<EmotionModality, EmotionEncoder>>> = {},
): EmotionCollator {
  const modalities = MODALITIES.filter((name) => sizes[name] !== undefined)
  return (samples) =>
    scope(async () => {
      if (!Array.isArray(samples) || samples.length === 0) {
        throw argumentError('emotionCollate', 'samples', 'a list of at least one dialog', samples)
      }
      const time = Math.max(...samples.map(({ dialog }) => dialog.utterances.length))
      const at = (row: number, place: number) => row * time + place
      const shape = [samples.length, time]
      const [mask, speakers] = [new Uint8Array(samples.length * time), new BigInt64Array(samples.length * time)]
      const [labels, known]: [bigint[], bigint[]] = [[], []]
      for (const [row, { dialog, labels: own }] of samples.entries()) {
        for (const [place, speaker] of speakersOf(dialog).entries()) {
          mask[at(row, place)] = 1
          speakers[at(row, place)] = BigInt(speaker)
          const label = own[place] as number
          if (label === -100) continue
          labels.push(BigInt(label))
          known.push(BigInt(at(row, place)))
        }
      }
      const vectors: Partial<Record<EmotionModality, Tensor>> = {}
      const inputs: Partial<Record<EmotionModality, unknown[]>> = {}
      const present: Partial<Record<EmotionModality, Tensor>> = {}
      for (const name of modalities) {
        const there = new Uint8Array(samples.length * time)
        const size = sizes[name] as number
        const rowsOf = samples.map((sample) => sample.vectors[name])
        if (rowsOf.every((rows) => rows !== undefined)) {
          const flat = new Float32Array(samples.length * time * size)
          for (const [row, rows] of rowsOf.entries()) {
            for (const [place, vector] of (rows as readonly (Float32Array | undefined)[]).entries()) {
              if (vector === undefined) continue
              if (vector.length !== size) {
                const { source } = (samples[row] as EmotionSample).dialog
                throw new DataError(
                  `${source}: ${name}: expected vectors of size ${size}, got ${vector.length}. Compute them with the same encoder.`,
                  { source },
                )
              }
              flat.set(vector, at(row, place) * size)
              there[at(row, place)] = 1
            }
          }
          vectors[name] = tensor(flat, { shape: [...shape, size], device: 'cpu' })
        } else {
          const encoder = encoders[name]
          const read: unknown[] = []
          for (const [row, { dialog }] of samples.entries()) {
            for (const place of dialog.utterances.keys()) {
              const input = encoder && (await readUtterance(encoder, dialog, place))
              if (input === undefined) continue
              read.push(input)
              there[at(row, place)] = 1
            }
          }
          inputs[name] = read
        }
        present[name] = boolTensor(there, shape)
      }
      return {
        mask: boolTensor(mask, shape),
        speakers: tensor(speakers, { shape, device: 'cpu' }),
        ...{ present, vectors, inputs },
        labels: tensor(BigInt64Array.from(labels), { device: 'cpu' }),
        known: tensor(BigInt64Array.from(known), { device: 'cpu' }),
      }
    })
}

/** Move the tensors of a batch to a device, except labels and encoder inputs. */
export function batchOn(batch: EmotionBatch, device: Device): EmotionBatch {
  if (device === 'cpu') return batch
  const all = (tensors: Readonly<Partial<Record<EmotionModality, Tensor>>> = {}) =>
    Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, tensor.to({ device })]))
  const { mask, speakers, present, vectors } = batch
  return {
    ...batch,
    ...{ mask: mask.to({ device }), speakers: speakers.to({ device }) },
    ...{ present: all(present), vectors: all(vectors) },
  }
}

const boolTensor = (values: Uint8Array, shape: number[]): Tensor =>
  tensor(values, { shape, dtype: 'uint8', device: 'cpu' }).to({ dtype: 'bool' })
