import { listOf, misuse, requireOptions, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import { scope, Tensor, zeros } from '../tensor/index.js'
import { stackSamples } from './clip.js'
import { requireSamples } from './resample.js'

export interface NormalizeOptions {
  /** [batch, n], 1 for samples and 0 for padding after them. Without it all samples count. */
  attentionMask?: Tensor | null
  /** Added to the variance. Default 1e-7, as transformers; 1e-5 is torch's layer_norm over the clip (XLS-R units). */
  epsilon?: number
  /** What the padding becomes. Default 0. */
  paddingValue?: number
}

const normalizeOp = opAsync('voxtorch::normalize_audio')

/**
 * Each clip of [..., n] with mean 0 and variance 1: (x - mean) / sqrt(variance + epsilon), the variance with divisor n,
 * both over the clip's own samples. Equal to transformers' Wav2Vec2FeatureExtractor with do_normalize. SPECTRA's state
 * tracking uses it so; SPECTRA's pre-training and classification read the samples as they are.
 */
export async function normalizeWav2Vec2(samples: Tensor, options: NormalizeOptions = {}): Promise<Tensor> {
  requireSamples('normalizeWav2Vec2', samples)
  requireOptions('normalizeWav2Vec2', options, ['attentionMask', 'epsilon', 'paddingValue'])
  const { attentionMask, epsilon, paddingValue } = options
  return normalizeOp(samples, attentionMask ?? null, { epsilon, paddingValue })
}

export interface PadAudioOptions {
  /** Samples of each row: clips are cut at their end, or padded. Default: those of the longest clip. */
  length?: number
  /** Normalise each clip, before it is padded and after it is cut, as {@link normalizeWav2Vec2}. Default false. */
  normalize?: boolean
}

/**
 * Clips [n] as one batch: `inputValues` [batch, length], float32, with zeros after each clip, and `attentionMask`
 * [batch, length], int64, 1 for samples. SPECTRA's classification: `{ length: 160000 }`; its state tracking:
 * `{ normalize: true }`.
 * @throws ConfigError for clips that are no such tensors
 */
export async function padAudio(
  clips: Iterable<Tensor>,
  options: PadAudioOptions = {},
): Promise<{ inputValues: Tensor; attentionMask: Tensor }> {
  const where = 'padAudio'
  const list = listOf(where, 'clips', clips, 'tensors')
  requireOptions(where, options, ['length', 'normalize'])
  const { normalize = false, length = Math.max(0, ...list.map((clip) => sizeOf(where, clip))) } = options
  requireWhole(where, 'length', length)
  if (list.length === 0) throw new ConfigError('padAudio: there are no clips')
  const lengths = list.map((clip) => Math.min(length, sizeOf(where, clip)))
  return scope(async () => {
    const device = list[0]!.device
    const padded = stackSamples(list, length, device)
    // Filled row by row: numbers of the host would have to wait for a device.
    const attentionMask = zeros([list.length, length], { dtype: 'int64', device })
    for (const [i, own] of lengths.entries()) attentionMask.select(0, i).narrow(0, 0, own).fill_(1)
    const inputValues = normalize ? await normalizeWav2Vec2(padded, { attentionMask }) : padded
    return { inputValues, attentionMask }
  })
}

function sizeOf(where: string, clip: unknown): number {
  if (!(clip instanceof Tensor) || clip.ndim !== 1) throw misuse(where, 'clips', 'tensors of shape [samples]', clip)
  return clip.size(0)
}
