import { type AudioClip, LONG_AUDIO, type LongAudio, openClip, SPEECH_RATE } from '../../audio/clip.js'
import { requireNumber, requireOneOf, requireOptions, requireWhole } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { noGrad, scope, type Tensor } from '../../tensor/index.js'
import { type ClipPart, padded, partsOf } from './audio.js'
import type { Beats } from './beats.js'

export interface TagOptions {
  /** Number of classes, the most probable first. Default 5. */
  topK?: number
  /** Maximum seconds of audio that the network encodes at once. Default 30. */
  maxSeconds?: number
  /**
   * Handling of a longer clip. `'windows'` (default): equal parts, whose probabilities are averaged, weighted by length; `'cut'`: its
   * beginning, with a warning; `'error'`: DataError.
   */
  longAudio?: LongAudio
  /** Clips, or parts of clips, per batch. Default 8; it does not change the result. */
  batchSize?: number
}

export interface AudioTag {
  /** Name of the class in the checkpoint, for AudioSet an id such as '/m/09x0r'; 'class 7' without one. */
  label: string
  index: number
  /** From 0 to 1; several classes can be present at once. */
  probability: number
}

/** Return the most probable classes of each clip. */
export function tagClips(
  model: Beats,
  least: number,
  audio: readonly AudioClip[],
  options: TagOptions,
): Promise<AudioTag[][]> {
  const where = 'Beats.tag'
  requireOptions(where, options, ['topK', 'maxSeconds', 'longAudio', 'batchSize'])
  const { topK = 5, maxSeconds = 30, longAudio = 'windows', batchSize = 8 } = options
  requireWhole(where, 'topK', topK, 1)
  requireNumber(where, 'maxSeconds', maxSeconds, { least: 0.5, below: 3600 })
  requireOneOf(where, 'longAudio', longAudio, LONG_AUDIO)
  requireWhole(where, 'batchSize', batchSize, 1)
  return scope(() =>
    noGrad(async () => {
      const clips: Tensor[] = []
      for (const clip of audio) clips.push((await openClip({ where }, clip, { allowEmpty: true })).samples)
      checkSizes(where, clips, least)
      const most = Math.max(2 * least, Math.round(maxSeconds * SPEECH_RATE))
      const clipParts = clips.flatMap((clip, i) => partsOf(i, clip.size(0), most, longAudio))
      const probabilities = await probabilitiesOf(model, clips, clipParts, batchSize)
      return probabilities.map((values) => best(values, model.labels, topK))
    }),
  )
}

function checkSizes(where: string, clips: Tensor[], least: number): void {
  for (const [clip, tensor] of clips.entries()) {
    const samples = tensor.size(0)
    if (samples >= least) continue
    const found = `${where}: clip ${clip}: expected at least ${least} samples at 16 kHz, got ${samples}`
    throw new DataError(`${found}. Pad it with zeros.`, { clip, samples })
  }
}

const lengthOf = ({ from, to }: ClipPart): number => to - from

/** Return the probabilities of each clip: the mean over its parts, weighted by length. Parts of similar length share a batch. */
async function probabilitiesOf(
  model: Beats,
  clips: Tensor[],
  clipParts: ClipPart[],
  batchSize: number,
): Promise<Float64Array[]> {
  const device = model.parameters()[0]?.device ?? 'cpu'
  const lengths = clips.map(() => 0)
  for (const clipPart of clipParts) lengths[clipPart.clip] = (lengths[clipPart.clip] as number) + lengthOf(clipPart)
  const sums = clips.map(() => new Float64Array(model.config.predictorClass ?? 527))
  const sorted = [...clipParts].sort((a, b) => lengthOf(b) - lengthOf(a))
  for (let begin = 0; begin < sorted.length; begin += batchSize) {
    const part = sorted.slice(begin, begin + batchSize)
    const values = await scope(async () => {
      const inputValues = padded(clips, part).to({ device })
      const { probabilities } = await model.classify({ inputValues, lengths: part.map(lengthOf) })
      return (await probabilities.float().data()) as Float32Array
    })
    for (const [row, clipPart] of part.entries()) {
      const sum = sums[clipPart.clip] as Float64Array
      const weight = lengthOf(clipPart) / (lengths[clipPart.clip] as number)
      for (let i = 0; i < sum.length; i += 1) {
        sum[i] = (sum[i] as number) + weight * (values[row * sum.length + i] as number)
      }
    }
  }
  return sums
}

function best(probabilities: Float64Array, labels: string[] | null, topK: number): AudioTag[] {
  return [...probabilities]
    .map((probability, index) => ({ label: labels?.[index] ?? `class ${index}`, index, probability }))
    .sort((a, b) => b.probability - a.probability || a.index - b.index)
    .slice(0, topK)
}
