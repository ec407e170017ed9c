import { argumentError, listOf, requireOptions, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import { scope, Tensor, zeros } from '../tensor/index.js'
import { stackSamples } from './clip.js'
import { requireSamples } from './resample.js'

export interface NormalizeOptions {
  /** [batch, n]: 1 for samples, 0 for padding at the end. Default: all are samples. */
  attentionMask?: Tensor | null
  /** Added to the variance. Default 1e-7, as in transformers; 1e-5 equals torch's layer_norm over the clip (XLS-R units). */
  epsilon?: number
  /** Value of padding in the result. Default 0. */
  paddingValue?: number
}

const normalizeOp = opAsync('voxtorch::normalize_audio')

/**
 * Normalize each clip of [..., n] to mean 0 and variance 1: (x - mean) / sqrt(variance + epsilon), the variance with divisor n,
 * without padding. Equal to transformers' Wav2Vec2FeatureExtractor with do_normalize. SPECTRA's state tracking uses it;
 * SPECTRA's pre-training and classification do not normalize.
 */
export async function normalizeWav2Vec2(samples: Tensor, options: NormalizeOptions = {}): Promise<Tensor> {
  requireSamples('normalizeWav2Vec2', samples)
  requireOptions('normalizeWav2Vec2', options, ['attentionMask', 'epsilon', 'paddingValue'])
  const { attentionMask, epsilon, paddingValue } = options
  return normalizeOp(samples, attentionMask ?? null, { epsilon, paddingValue })
}

export interface PadAudioOptions {
  /** Length to cut or pad clips to, in samples. Default: that of the longest clip. */
  length?: number
  /** Whether to apply {@link normalizeWav2Vec2} after cutting and before padding. Default false. */
  normalize?: boolean
}

/**
 * Batch clips [n]: `inputValues` [batch, length], float32, zero-padded at the end, and `attentionMask` [batch, length], int64, 1
 * for samples. SPECTRA's classification uses `{ length: 160000 }`, its state tracking `{ normalize: true }`.
 * @throws ConfigError for an empty list, and clips that are not tensors [n]
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
  if (list.length === 0) throw new ConfigError('padAudio: clips: expected at least one clip, got none.')
  const lengths = list.map((clip) => Math.min(length, sizeOf(where, clip)))
  return scope(async () => {
    const device = list[0]!.device
    const padded = stackSamples(list, length, device)
    // Filled on the device, because a copy from the host would wait for it.
    const attentionMask = zeros([list.length, length], { dtype: 'int64', device })
    for (const [i, count] of lengths.entries()) attentionMask.select(0, i).narrow(0, 0, count).fill_(1)
    const inputValues = normalize ? await normalizeWav2Vec2(padded, { attentionMask }) : padded
    return { inputValues, attentionMask }
  })
}

function sizeOf(where: string, clip: unknown): number {
  if (!(clip instanceof Tensor) || clip.ndim !== 1)
    throw argumentError(where, 'clips', 'tensors of shape [samples]', clip)
  return clip.size(0)
}
