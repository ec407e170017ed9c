import { argumentError, isArrayLike, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { scope, type Tensor, tensor } from '../tensor/index.js'
import { requireSamples } from './resample.js'

/**
 * Channels to read: their mean as one signal, one channel by index (0 is left), or all of them.
 */
export type Channels = 'mean' | 'all' | number

export function requireChannels(where: string, value: unknown): void {
  if (value === 'mean' || value === 'all') return
  if (typeof value !== 'number')
    throw argumentError(where, 'channels', "'mean', 'all' or the index of a channel", value)
  requireWhole(where, 'channels', value)
}

/** Select or mix the channels of a block. */
export function pickChannels(
  planes: Float32Array[],
  channels: Channels,
  fail: (what: string) => Error,
): Float32Array[] {
  if (channels === 'all' || (channels === 'mean' && planes.length === 1)) return planes
  if (channels !== 'mean') {
    const plane = planes[channels]
    if (plane === undefined) throw fail(`channels: expected an index from 0 to ${planes.length - 1}, got ${channels}`)
    return [plane]
  }
  const mean = new Float32Array(planes[0]!.length)
  for (let i = 0; i < mean.length; i += 1) {
    let total = 0
    for (const plane of planes) total += plane[i]!
    mean[i] = total / planes.length
  }
  return [mean]
}

/**
 * Mix [..., channels, frames] to [..., frames]: the mean of the channels, or their weighted sum. Samples [frames] are copied.
 * @throws ConfigError if the number of weights differs from the number of channels
 */
export function mixChannels(samples: Tensor, weights?: readonly number[]): Tensor {
  requireSamples('mixChannels', samples)
  if (weights !== undefined && !isArrayLike(weights))
    throw argumentError('mixChannels', 'weights', 'an array of numbers', weights)
  if (samples.ndim === 1) return samples.clone()
  if (weights === undefined) return samples.mean(-2)
  const count = samples.size(-2)
  if (weights.length !== count) {
    throw new ConfigError(`mixChannels: weights: expected ${count} numbers, one per channel, got ${weights.length}`)
  }
  return scope(() => {
    const column = tensor(weights, { dtype: samples.dtype, device: samples.device, shape: [count, 1] })
    return samples.mul(column).sum(-2)
  })
}
