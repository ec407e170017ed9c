import { stackSamples } from '../audio/clip.js'
import { argumentError } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { arange, type Device, scope, Tensor, tensor } from '../tensor/index.js'

export interface PadClipsOptions {
  /** Samples per row; longer clips lose their end. Default: the longest clip. */
  length?: number | undefined
  /** Minimum number of samples per row. Default 0. */
  leastLength?: number | undefined
  /** Device of the batch. Default: the device of the first tensor. */
  device?: Device | undefined
}

/** Clips as one batch. */
export interface PaddedClips {
  /** float32 [rows, length], padded with zeros at the end. */
  inputValues: Tensor
  /** Number of samples of each row without padding. */
  lengths: number[]
}

/**
 * Pad clips to one batch. A clip is float32 [samples], as a tensor or a Float32Array, or null for silence. Each one is copied once,
 * into the batch.
 */
export function padClips(
  clips: readonly (Tensor | Float32Array | null)[],
  { length, leastLength = 0, device }: PadClipsOptions = {},
): PaddedClips {
  const sizes = clips.map((clip) => (clip instanceof Tensor ? clip.size(0) : (clip?.length ?? 0)))
  const width = length ?? Math.max(leastLength, ...sizes)
  const inputValues = scope(() => {
    const rows = clips.map((clip) => (clip instanceof Float32Array ? tensor(clip, { device: 'cpu' }) : clip))
    return stackSamples(rows, width, device)
  })
  return { inputValues, lengths: sizes.map((size) => Math.min(width, size)) }
}

/** Return lengths as int64 [rows]. */
export const lengthsTensor = (lengths: readonly number[]): Tensor =>
  tensor(BigInt64Array.from(lengths, BigInt), { device: 'cpu' })

/** Return a mask, bool [rows, length]: true before the end of each row. */
export const lengthMask = (lengths: readonly number[], length: number, device: Device = 'cpu'): Tensor =>
  scope(() => arange(length, { device }).lt(tensor(lengths, { dtype: 'int64', device }).unsqueeze(1)))

export interface PadTokensOptions {
  /** Padding value. Default 0. */
  value?: number
  /** Tokens per row. Default: the longest row. */
  length?: number | undefined
  /** Side of the padding. Default 'right'; use 'left' for generation. */
  side?: 'left' | 'right'
}

/**
 * Pad rows of token ids or labels to int64 [rows, length].
 * @throws ConfigError for a row longer than `length`
 */
export function padTokens(rows: readonly ArrayLike<number>[], options: PadTokensOptions = {}): Tensor {
  const { value = 0, side = 'right' } = options
  const longest = Math.max(0, ...Array.from(rows, (row) => row.length))
  const { length = longest } = options
  if (longest > length) {
    throw new ConfigError(
      `padTokens: expected rows of at most ${length} tokens (length), got one of ${longest}. Cut it, or raise length.`,
      { length, longest },
    )
  }
  const ids = new BigInt64Array(rows.length * length).fill(BigInt(value))
  for (const [r, row] of rows.entries()) {
    const begin = r * length + (side === 'left' ? length - row.length : 0)
    for (let i = 0; i < row.length; i += 1) {
      const id = row[i] as number
      if (!Number.isSafeInteger(id)) throw argumentError('padTokens', `rows[${r}][${i}]`, 'an integer', id)
      ids[begin + i] = BigInt(id)
    }
  }
  return tensor(ids, { shape: [rows.length, length], device: 'cpu' })
}
