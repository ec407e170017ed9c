import { argumentError, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'

/**
 * Seeded random numbers for orders and splits: xoshiro128** (Blackman and Vigna 2018, https://prng.di.unimi.it), seeded through
 * SplitMix32 from a seed and a stream number. It is independent of libtorch's generators, needs no addon, and returns the same
 * numbers on every platform and in every release.
 */
export class Random {
  readonly #state = new Uint32Array(4)

  /** @param seed an integer, 0 … 2^53 - 1; @param stream another integer; each stream is an unrelated sequence */
  constructor(seed: number, stream = 0) {
    requireWhole('Random', 'seed', seed)
    requireWhole('Random', 'stream', stream)
    let hash = 0
    for (const word of [seed, Math.floor(seed / 2 ** 32), stream, Math.floor(stream / 2 ** 32)]) {
      hash = scramble((hash ^ word) + 0x9e3779b9)
    }
    for (let i = 0; i < 4; i++) {
      hash = (hash + 0x9e3779b9) | 0
      this.#state[i] = scramble(hash)
    }
    // The all-zero state is xoshiro's only fixed point.
    if (this.#state.every((word) => word === 0)) this.#state[0] = 1
  }

  /** Return the state, four integers that JSON can store; `setState` restores it. */
  getState(): number[] {
    return [...this.#state]
  }

  /** Restore a state. @throws ConfigError for a value that `getState` did not return */
  setState(state: readonly number[]): this {
    const good = Array.isArray(state) && state.length === 4 && state.every((word) => word === word >>> 0)
    if (!good || state.every((word) => word === 0))
      throw argumentError('Random', 'state', 'a state that getState() returned', state)
    this.#state.set(state)
    return this
  }

  /** Return 32 random bits as an integer, 0 … 2^32 - 1. */
  uint32(): number {
    const s = this.#state as Uint32Array & [number, number, number, number]
    const result = Math.imul(rotate(Math.imul(s[1], 5), 7), 9) >>> 0
    const shifted = s[1] << 9
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= shifted
    s[3] = rotate(s[3], 11)
    return result
  }

  /** Return a uniform number in [0, 1) with 32 random bits. */
  float(): number {
    return this.uint32() / 2 ** 32
  }

  /** Return a uniform integer in 0 … n - 1, for n up to 2^32, without bias. */
  below(n: number): number {
    requireWhole('Random.below', 'n', n, 1)
    if (n > 2 ** 32) throw argumentError('Random.below', 'n', 'at most 2^32', n)
    const limit = 2 ** 32 - (2 ** 32 % n)
    for (;;) {
      const value = this.uint32()
      if (value < limit) return value % n
    }
  }

  /** Shuffle an array in place (Fisher and Yates) and return it. */
  shuffle<A extends Uint32Array | unknown[]>(array: A): A {
    if (!Array.isArray(array) && !(array instanceof Uint32Array)) {
      throw argumentError('Random.shuffle', 'array', 'an array', array)
    }
    for (let i = array.length - 1; i > 0; i--) {
      const j = this.below(i + 1)
      const held = array[i]
      array[i] = array[j]
      array[j] = held
    }
    return array
  }
}

const rotate = (x: number, by: number): number => (x << by) | (x >>> (32 - by))

/** Apply the finalizer of SplitMix32 (MurmurHash3's). */
function scramble(x: number): number {
  let z = x | 0
  z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
  z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
  return z ^ (z >>> 16)
}

/**
 * Return the integers 0 … length - 1.
 * @throws ConfigError if they do not fit in memory
 */
export function indicesBelow(where: string, length: number): Uint32Array {
  try {
    if (length > 2 ** 32) throw new RangeError('indices of more than 32 bits')
    const indices = new Uint32Array(length)
    for (let i = 0; i < length; i++) indices[i] = i
    return indices
  } catch (cause) {
    throw new ConfigError(
      `${where}: expected an order that fits in memory, got ${length} samples: ${(cause as Error).message}. Read them in ` +
        'sequence, from a stream or without shuffling',
      { length, cause },
    )
  }
}
