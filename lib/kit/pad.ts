import { stackSamples } from '../audio/clip.js'
import { misuse } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { arange, type Device, scope, Tensor, tensor } from '../tensor/index.js'

export interface PadClipsOptions {
  /** Samples of each row; what is longer loses its end. Default: those of the longest clip. */
  length?: number | undefined
  /** The fewest samples of a row. Default 0. */
  leastLength?: number | undefined
  /** Where the batch is. Default: the device of the first tensor. */
  device?: Device | undefined
}

/** Clips side by side. */
export interface PaddedClips {
  /** float32 [rows, length], with zeros behind each clip. */
  inputValues: Tensor
  /** Samples of each row that are no padding. */
  lengths: number[]
}

/**
 * Clips as one batch: float32 [samples], as a tensor or a Float32Array, or null for silence. Tensors are copied to where
 * they belong in the batch, and nowhere else.
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

/** int64 [rows] */
export const lengthsTensor = (lengths: readonly number[]): Tensor =>
  tensor(BigInt64Array.from(lengths, BigInt), { device: 'cpu' })

/** bool [rows, length]: true before the end of each row. */
export const lengthMask = (lengths: readonly number[], length: number, device: Device = 'cpu'): Tensor =>
  scope(() => arange(length, { device }).lt(tensor(lengths, { dtype: 'int64', device }).unsqueeze(1)))

export interface PadTokensOptions {
  /** What the padding is. Default 0. */
  value?: number
  /** Tokens of each row. Default: those of the longest. */
  length?: number | undefined
  /** The side that is padded. Default 'right'; 'left' for generation. */
  side?: 'left' | 'right'
}

/**
 * Rows of token ids, or of labels, as int64 [rows, length].
 * @throws ConfigError for a row that is longer than `length`
 */
export function padTokens(rows: readonly ArrayLike<number>[], options: PadTokensOptions = {}): Tensor {
  const { value = 0, side = 'right' } = options
  const longest = Math.max(0, ...Array.from(rows, (row) => row.length))
  const { length = longest } = options
  if (longest > length) {
    throw new ConfigError(`a row of ${longest} tokens does not fit into ${length}`, { length, longest })
  }
  const ids = new BigInt64Array(rows.length * length).fill(BigInt(value))
  for (const [r, row] of rows.entries()) {
    const begin = r * length + (side === 'left' ? length - row.length : 0)
    for (let i = 0; i < row.length; i += 1) {
      const id = row[i] as number
      if (!Number.isSafeInteger(id)) throw misuse('padTokens', `rows[${r}][${i}]`, 'an integer', id)
      ids[begin + i] = BigInt(id)
    }
  }
  return tensor(ids, { shape: [rows.length, length], device: 'cpu' })
}
