import { argumentError } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, settings } from '../../../base/settings.js'
import { lengthMask, lengthsTensor, padClips, padTokens } from '../../../kit/pad.js'
import { scope, Tensor, tensor } from '../../../tensor/index.js'
import type { DstFeatures } from './features.js'
import type { DstLabels } from './heads.js'
import type { DstEncoderInputs } from './network.js'

export type DstBatch = DstEncoderInputs & DstLabels

/** Far above any text: a wrong length must not fill the memory with padding. */
const MAX_TOKENS = 65_536

const COLLATE_SETTINGS = settings({
  /** Id of padding. */
  padId: { type: 'number', default: 1 },
  /** Pad texts to this length, as the original does with 512. Default: the longest text of the batch. */
  textLength: { type: 'integer', min: 1, below: MAX_TOKENS + 1 },
})

/** @interface */
export type DstCollateOptions = ChangesOf<typeof COLLATE_SETTINGS.table>

/** A turn whose clips may be tensors, which are copied only into the batch. */
export interface DstTurnSample {
  features: DstFeatures
  userSamples: Float32Array | Tensor | null
  systemSamples: Float32Array | Tensor | null
}

const LISTS = ['inputIds', 'classIds', 'startPositions', 'endPositions', 'referIds']
const SAMPLE = {
  features: { ...Object.fromEntries(LISTS.map((name) => [name, ['number'] as const])), userLength: 'number' },
} as const

function requireSamples(sample: DstTurnSample, index: number): void {
  for (const name of ['userSamples', 'systemSamples'] as const) {
    const clip = sample[name]
    if (clip === null || clip instanceof Float32Array || (clip instanceof Tensor && clip.ndim === 1)) continue
    throw argumentError('dstCollate', `samples[${index}].${name}`, 'a Float32Array, or a tensor [samples]', clip)
  }
}

/** Return a function that collates turns, padded at the end. */
export function dstCollate(options: DstCollateOptions = {}): (samples: readonly DstTurnSample[]) => DstBatch {
  const { padId, textLength } = COLLATE_SETTINGS.read('dstCollate', options)
  return (samples) => {
    requireForm('dstCollate', 'samples', samples, [SAMPLE])
    for (const [i, sample] of samples.entries()) requireSamples(sample, i)
    if (samples.length === 0) throw argumentError('dstCollate', 'samples', 'an array with at least one sample', samples)
    const turns = samples.map((sample) => sample.features)
    const longest = Math.max(...turns.map(({ inputIds }) => inputIds.length))
    const width = textLength ?? longest
    if (longest > width) {
      throw argumentError('dstCollate', 'textLength', `at least ${longest}, the longest text of the batch`, textLength)
    }
    const clips = samples.flatMap(({ userSamples, systemSamples }) => [userSamples, systemSamples])
    const perSlot = (name: 'classIds' | 'startPositions' | 'endPositions' | 'referIds') =>
      tensor(
        turns.map((turn) => turn[name]),
        { dtype: 'int64' },
      )
    const { inputValues, lengths } = padClips(clips, { leastLength: MIN_SAMPLES })
    return scope(() => ({
      inputIds: padTokens(
        turns.map(({ inputIds }) => inputIds),
        { value: padId, length: width },
      ),
      attentionMask: lengthMask(
        turns.map(({ inputIds }) => inputIds.length),
        width,
      ),
      tokenTypeIds: lengthMask(
        turns.map(({ userLength }) => userLength),
        width,
      )
        .logicalNot()
        .to({ dtype: 'int64' }),
      inputValues,
      audioLengths: lengthsTensor(lengths),
      audiosPerText: 2,
      classIds: perSlot('classIds'),
      startPositions: perSlot('startPositions'),
      endPositions: perSlot('endPositions'),
      referIds: perSlot('referIds'),
    }))
  }
}

/** Samples of one frame of the encoder: the width of batches without speech. */
const MIN_SAMPLES = 400
