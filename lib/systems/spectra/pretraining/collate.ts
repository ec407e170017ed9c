import { shown } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { type ChangesOf, functionOf, settings } from '../../../base/settings.js'
import { lengthsTensor, padClips } from '../../../kit/pad.js'
import { type Tensor, tensor } from '../../../tensor/index.js'
import type { SpectraPretrainingInputs } from '../network/network.js'
import type { FramesOf, SpectraMaskedText, SpectraPretrainingSample } from './dataset.js'
import { type SpectraWord, timeLabel } from './entry.js'

/**
 * Inputs of `SpectraForPreTraining`: B examples with texts of L tokens (history, previous and current turn; history, previous turn and
 * wrong response), clips of S samples and F frames.
 */
export interface SpectraPretrainingBatch extends SpectraPretrainingInputs {
  /** int64 [2B, L]: 0 for history and previous turn, 1 for the response. */
  tokenTypeIds: Tensor
}

const COLLATE_SETTINGS = settings({
  frames: { type: functionOf<FramesOf>(), required: true },
  /** Maximum number of tokens; the oldest history is truncated first, with its words and their labels. */
  maxLength: { type: 'integer', min: 2, default: 512 },
  /** Pad all audio to this length, like the original (160000). Default: the longest clip of the batch. */
  padToSamples: { type: 'integer', min: 1 },
})

/** @interface */
export type SpectraPretrainingCollateOptions = ChangesOf<typeof COLLATE_SETTINGS.table>

/** Return a function that collates samples of a `SpectraPretrainingDataset`. */
export function spectraPretrainingCollate(
  options: SpectraPretrainingCollateOptions,
): (samples: readonly SpectraPretrainingSample[]) => SpectraPretrainingBatch {
  const where = 'spectraPretrainingCollate'
  const { frames, maxLength, padToSamples } = COLLATE_SETTINGS.read(where, options)
  return (samples) => {
    if (!Array.isArray(samples) || samples.length === 0) {
      throw new DataError(`${where}: expected an array of samples, got ${shown(samples)}`)
    }
    return { ...textsOf(samples, maxLength), ...clipsOf(samples, frames, padToSamples) }
  }
}

function textsOf(samples: readonly SpectraPretrainingSample[], maxLength: number) {
  const texts = samples.map((sample) => [joined(sample, sample.current), joined(sample, sample.negative)] as const)
  const longest = Math.max(...texts.flat().map(({ inputIds }) => inputIds.length))
  const length = Math.min(maxLength, longest)
  const [count, cells] = [samples.length, samples.length * length]
  const inputIds = new BigInt64Array(2 * cells)
  const attentionMask = new Uint8Array(2 * cells)
  const tokenTypeIds = new BigInt64Array(2 * cells)
  const mlmLabels = new BigInt64Array(cells).fill(-100n)
  const [startMask, endMask] = [new Uint8Array(cells), new Uint8Array(cells)]
  const [starts, ends]: [number[], number[]] = [[], []]
  texts.forEach((pair, b) => {
    pair.forEach((text, which) => {
      const row = (2 * b + which) * length
      const place = placesOf(text.inputIds.length, length)
      text.inputIds.forEach((id, i) => {
        const at = place(i)
        if (at === undefined) return
        inputIds[row + at] = BigInt(id)
        attentionMask[row + at] = 1
        if (which === 0) mlmLabels[b * length + at] = BigInt(text.labels[i] as number)
      })
      // If the response alone fills the row, only <s> is left of the context.
      tokenTypeIds.fill(1n, row + (place(text.currentOffset) ?? 0) + 1, row + length)
    })
    const [text] = pair
    const { previousWords, currentWords } = samples[b] as SpectraPretrainingSample
    const place = placesOf(text.inputIds.length, length)
    const label = (words: readonly SpectraWord[], offset: number) => {
      for (const [, first, end, start, stop] of words) {
        const [from, to] = [place(offset + first), place(offset + end - 1)]
        if (from === undefined || to === undefined) continue
        startMask[b * length + from] = 1
        endMask[b * length + to] = 1
        starts.push(timeLabel(start))
        ends.push(timeLabel(stop))
      }
    }
    label(previousWords, text.previousOffset)
    label(currentWords, text.currentOffset)
  })
  const [pairs, rows] = [
    [2 * count, length],
    [count, length],
  ]
  return {
    inputIds: tensor(inputIds, { shape: pairs }),
    attentionMask: tensor(attentionMask, { shape: pairs, dtype: 'bool' }),
    tokenTypeIds: tensor(tokenTypeIds, { shape: pairs }),
    mlmLabels: tensor(mlmLabels, { shape: rows }),
    startMask: tensor(startMask, { shape: rows, dtype: 'bool' }),
    endMask: tensor(endMask, { shape: rows, dtype: 'bool' }),
    starts: tensor(Float32Array.from(starts)),
    ends: tensor(Float32Array.from(ends)),
  }
}

/** Join history, previous turn and response, without the `<s>` of the latter two. Token k of a turn is at its offset + k. */
function joined({ history, previous }: SpectraPretrainingSample, answer: SpectraMaskedText) {
  const join = (key: keyof SpectraMaskedText) => [...history[key], ...previous[key].slice(1), ...answer[key].slice(1)]
  const previousOffset = history.inputIds.length - 1
  const currentOffset = previousOffset + previous.inputIds.length - 1
  return { inputIds: join('inputIds'), labels: join('labels'), previousOffset, currentOffset }
}

/** Return a function from a token's index to its index after truncation to the first token and the last ones; undefined if it is cut. */
function placesOf(tokens: number, length: number): (token: number) => number | undefined {
  const cut = Math.max(0, tokens - length)
  return (token) => (token === 0 ? 0 : token - cut >= 1 ? token - cut : undefined)
}

function clipsOf(samples: readonly SpectraPretrainingSample[], frames: FramesOf, padToSamples: number | undefined) {
  const clips = samples.flatMap((sample) => sample.clips)
  const longest = Math.max(1, ...clips.map((clip) => clip.samples.length))
  if (padToSamples !== undefined && longest > padToSamples) {
    throw new ConfigError(
      `spectraPretrainingCollate: expected clips of at most padToSamples, ${padToSamples} samples, got ${longest}. Raise padToSamples.`,
      { longest },
    )
  }
  const size = padToSamples ?? longest
  const count = frames(size)
  const { inputValues, lengths } = padClips(
    clips.map((clip) => clip.samples),
    { length: size },
  )
  const mamMask = new Int8Array(clips.length * count)
  const mamSource = new BigInt64Array(clips.length * count)
  clips.forEach((clip, i) => {
    for (let f = 0; f < count; f++) {
      mamMask[i * count + f] = clip.mask[f] ?? 0
      mamSource[i * count + f] = BigInt(clip.source[f] ?? f)
    }
  })
  return {
    inputValues,
    audioLengths: lengthsTensor(lengths),
    mamMask: tensor(mamMask, { shape: [clips.length, count] }),
    mamSource: tensor(mamSource, { shape: [clips.length, count] }),
  }
}
