import { requireNumber, requireObject, requireOneOf, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { indicesBelow, Random } from '../data/random.js'
import { getRank as ownRank, getWorldSize as ownWorld } from './process-group.js'

export interface DistributedSamplerOptions {
  /** Shuffle in a new order each epoch, the same on all ranks. Default true. */
  shuffle?: boolean
  /** Seed of the order; must be equal on all ranks. Default 0. */
  seed?: number
  /** Drop the last samples, so that every rank has equally many; otherwise the first ones repeat. Default false. */
  dropLast?: boolean
  /** Rank whose part to return. Default: this process's rank. */
  rank?: number
  /** Number of ranks. Default: the number of processes. */
  worldSize?: number
}

const KEYS = ['shuffle', 'seed', 'dropLast', 'rank', 'worldSize'] as const

/**
 * This rank's part of a dataset: every `worldSize`-th index of the epoch's order, divided like PyTorch's `DistributedSampler`
 * (equally many for all, padded from the front or truncated). The order within an epoch comes from voxtorch's generator. A
 * DataLoader sets the epoch itself; in your own loop call `setEpoch`.
 */
export class DistributedSampler implements Iterable<number> {
  /** Number of indices in an epoch for this rank. */
  readonly length: number
  readonly #size: number
  readonly #options: Required<DistributedSamplerOptions>
  #epoch = 0

  /** @param size number of samples in the dataset */
  constructor(size: number, options: DistributedSamplerOptions = {}) {
    requireWhole(WHERE, 'size', size)
    requireNumber(WHERE, 'size', size, { below: 2 ** 32 })
    requireObject(WHERE, 'its options', options)
    for (const key of Object.keys(options)) requireOneOf(WHERE, 'an option', key, KEYS)
    const { shuffle = true, seed = 0, dropLast = false, rank = ownRank(), worldSize = ownWorld() } = options
    requireWhole(WHERE, 'seed', seed)
    requireWhole(WHERE, 'worldSize', worldSize, 1)
    requireWhole(WHERE, 'rank', rank)
    if (rank >= worldSize)
      throw new ConfigError(`${WHERE}: expected a rank below ${worldSize}, the number of processes, got ${rank}`, {})
    this.#size = size
    this.#options = { shuffle, seed, dropLast, rank, worldSize }
    this.length = dropLast ? Math.floor(size / worldSize) : Math.ceil(size / worldSize)
  }

  setEpoch(epoch: number): void {
    requireWhole(`${WHERE}.setEpoch`, 'epoch', epoch)
    this.#epoch = epoch
  }

  *[Symbol.iterator](): Generator<number> {
    const { shuffle, seed, rank, worldSize } = this.#options
    const order = indicesBelow('DistributedSampler', this.#size)
    if (shuffle) new Random(seed, this.#epoch).shuffle(order)
    // Past the end, start over as often as necessary.
    for (let i = 0; i < this.length; i++) yield order[(rank + i * worldSize) % this.#size] as number
  }
}

const WHERE = 'DistributedSampler'
