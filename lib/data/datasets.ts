import {
  argumentError,
  elementsOf,
  isArrayLike,
  isList,
  present,
  requireFunction,
  requireNumber,
  requireObject,
  requireOneOf,
  requireOptions,
  requireWhole,
  shown,
} from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'
import { LONGEST_LIST, listMayGrow } from '../base/heap.js'
import type { Dataset, IterableDataset, StreamContext } from './dataset.js'
import { indicesBelow, Random } from './random.js'
import { asDataset } from './source.js'

/** Samples by index: a dataset or an array. */
export type Samples<T> = Dataset<T> | readonly T[]

function samplesOf<T>(where: string, argument: string, value: Samples<T>): Dataset<T> {
  let dataset: unknown
  try {
    dataset = asDataset(value, argument)
  } catch {}
  if (!dataset || !('get' in (dataset as Dataset<T>))) {
    throw argumentError(where, argument, 'an array, or an object with length and get(index)', value)
  }
  return dataset as Dataset<T>
}

function requireIndex(where: string, index: number, length: number): void {
  if (Number.isInteger(index) && index >= 0 && index < length) return
  throw new DataError(`${where}: expected an index from 0 to ${length - 1}, got ${shown(index)}`, { index, length })
}

/** Concatenation of datasets. */
export class ConcatDataset<T> implements Dataset<T> {
  readonly length: number
  readonly #parts: { dataset: Dataset<T>; start: number }[]

  constructor(datasets: readonly Samples<T>[]) {
    if (!isList(datasets)) throw argumentError('ConcatDataset', 'datasets', 'an array of datasets', datasets)
    let start = 0
    this.#parts = elementsOf('ConcatDataset', 'datasets', datasets, (given, i) => {
      const dataset = samplesOf<T>('ConcatDataset', `datasets[${i}]`, given as Samples<T>)
      const part = { dataset, start }
      start += dataset.length
      return part
    })
    this.length = start
  }

  get(index: number, epoch = 0): T | Promise<T> {
    requireIndex('ConcatDataset.get', index, this.length)
    const { dataset, start } = this.#parts.find((part) => index < part.start + part.dataset.length)!
    return dataset.get(index - start, epoch)
  }
}

/** Subset of a dataset: the samples at `indices`, in that order. */
export class Subset<T> implements Dataset<T> {
  readonly #dataset: Dataset<T>
  readonly indices: Uint32Array

  constructor(dataset: Samples<T>, indices: ArrayLike<number>) {
    this.#dataset = samplesOf<T>('Subset', 'dataset', dataset)
    if (!isArrayLike(indices)) throw argumentError('Subset', 'indices', 'a list of indices', indices)
    const list = elementsOf('Subset', 'indices', indices, (index) => {
      requireIndex('Subset.indices', index as number, this.#dataset.length)
      return index as number
    })
    this.indices = Uint32Array.from(list)
  }

  get length(): number {
    return this.indices.length
  }

  get(index: number, epoch = 0): T | Promise<T> {
    requireIndex('Subset.get', index, this.length)
    return this.#dataset.get(this.indices[index] as number, epoch)
  }
}

/**
 * Split a dataset randomly into disjoint parts.
 *
 * @param sizes number of samples of each part, which add up to all; or fractions that add up to 1: counts are rounded down, and
 *   the remaining samples go one each to the first parts
 */
export function randomSplit<T>(
  dataset: Samples<T>,
  sizes: readonly number[],
  options: { seed?: number } = {},
): Subset<T>[] {
  requireOptions('randomSplit', options, ['seed'])
  const { seed = 0 } = options
  const samples = samplesOf<T>('randomSplit', 'dataset', dataset)
  if (!isList(sizes) || sizes.length === 0) throw argumentError('randomSplit', 'sizes', 'an array of sizes', sizes)
  elementsOf('randomSplit', 'sizes', sizes, present('randomSplit', 'sizes'))
  requireWhole('randomSplit', 'seed', seed)
  for (const [i, size] of sizes.entries()) requireNumber('randomSplit', `sizes[${i}]`, size, { least: 0 })
  const counts = countsOf(sizes, samples.length)
  const order = new Random(seed).shuffle(indicesBelow('randomSplit', samples.length))
  let start = 0
  return counts.map((count) => {
    start += count
    return new Subset<T>(samples, order.subarray(start - count, start))
  })
}

function countsOf(sizes: readonly number[], length: number): number[] {
  const sum = sizes.reduce((total, size) => total + size, 0)
  if (sum === length && sizes.every(Number.isInteger)) return [...sizes]
  if (Math.abs(sum - 1) > 1e-9 || sizes.some((size) => size > 1)) {
    throw new ConfigError(
      `randomSplit: expected sizes that add up to the ${length} samples, or fractions that add up to 1, got a sum of ${sum}`,
      {
        sum,
        length,
      },
    )
  }
  // The tolerance covers rounding errors: 0.7 × 10 may be slightly below 7.
  const counts = sizes.map((fraction) => Math.floor(fraction * length + 1e-9))
  let rest = length - counts.reduce((total, count) => total + count, 0)
  for (let i = 0; rest > 0; i = (i + 1) % counts.length, rest--) counts[i]!++
  return counts
}

/** Return a dataset that applies `fn` to the samples of another one on access. `fn` may be asynchronous. */
export function mapDataset<T, U>(
  dataset: Samples<T>,
  fn: (sample: T, index: number, epoch: number) => U | Promise<U>,
): Dataset<U> {
  const samples = samplesOf<T>('mapDataset', 'dataset', dataset)
  requireFunction('mapDataset', 'fn', fn)
  return {
    get length() {
      return samples.length
    },
    get: async (index, epoch = 0) => fn(await samples.get(index, epoch), index, epoch),
  }
}

export interface MixtureOptions {
  /** Seed of the order. Default 0. */
  seed?: number
  /**
   * When the mixture ends. 'firstExhausted' (default): with the last sample of the dataset that is exhausted first.
   * 'allExhausted': an exhausted dataset starts over, until each was exhausted once. As in `interleave_datasets` of Hugging
   * Face's datasets.
   */
  stoppingStrategy?: 'firstExhausted' | 'allExhausted'
}

export interface MixturePart<D> {
  dataset: D
  /** Sampling weight relative to the others. Default 1. */
  weight?: number
}

/** Draws the next part, and decides when the mixture ends. */
class Draw {
  readonly #sums: number[]
  readonly #random: Random
  readonly #through: boolean[]
  readonly #all: boolean

  constructor(weights: number[], { seed = 0, stoppingStrategy }: MixtureOptions, epoch = 0) {
    let sum = 0
    this.#sums = weights.map((weight) => (sum += weight))
    this.#random = new Random(seed, epoch)
    this.#through = weights.map(() => false)
    this.#all = stoppingStrategy === 'allExhausted'
  }

  next(): number {
    const value = this.#random.float() * (this.#sums.at(-1) as number)
    return this.#sums.findIndex((sum) => sum > value)
  }

  /** Record that a part is exhausted; returns whether the mixture ends. */
  exhausted(part: number): boolean {
    this.#through[part] = true
    return !this.#all || this.#through.every(Boolean)
  }
}

function weightsOf(where: string, parts: readonly MixturePart<unknown>[], options: MixtureOptions): number[] {
  if (!isList(parts) || parts.length === 0) {
    throw argumentError(where, 'parts', 'an array of { dataset, weight }', parts)
  }
  requireOptions(where, options, ['seed', 'stoppingStrategy'])
  requireWhole(where, 'seed', options.seed ?? 0)
  const { stoppingStrategy = 'firstExhausted' } = options
  requireOneOf(where, 'stoppingStrategy', stoppingStrategy, ['firstExhausted', 'allExhausted'])
  const weights = elementsOf(where, 'parts', parts, (part, i) => {
    requireObject(where, `parts[${i}]`, part)
    requireOptions(`${where}: parts[${i}]`, part as object, ['dataset', 'weight'])
    const weight = (part as MixturePart<unknown>).weight ?? 1
    requireNumber(where, `parts[${i}].weight`, weight, { least: Number.MIN_VALUE, below: Number.POSITIVE_INFINITY })
    return weight
  })
  const sum = weights.reduce((total, weight) => total + weight, 0)
  if (sum === Number.POSITIVE_INFINITY) throw argumentError(where, 'the sum of the weights', 'a finite number', sum)
  return weights
}

/** Samples of several datasets, interleaved randomly by weight. The seed fixes the order; a loader may shuffle it. */
export class MixtureDataset<T> implements Dataset<T> {
  readonly length: number
  readonly #datasets: Dataset<T>[]
  readonly #parts: Uint32Array
  readonly #indices: Uint32Array

  constructor(parts: readonly MixturePart<Samples<T>>[], options: MixtureOptions = {}) {
    const where = 'MixtureDataset'
    const weights = weightsOf(where, parts, options)
    this.#datasets = parts.map(({ dataset }, i) => {
      const samples = samplesOf<T>(where, `parts[${i}].dataset`, dataset)
      if (samples.length > 0) return samples
      throw new ConfigError(`${where}: expected samples in parts[${i}].dataset, got an empty dataset. Leave it out`, {
        argument: `parts[${i}]`,
      })
    })
    this.#requireHeld(weights, options)
    const draw = new Draw(weights, options)
    const order: number[] = []
    const indices: number[] = []
    const next = weights.map(() => 0)
    for (;;) {
      if (!listMayGrow(order.length)) throw this.#tooLong(order.length)
      const part = draw.next()
      order.push(part)
      indices.push(next[part]!++)
      if (next[part] !== this.#datasets[part]?.length) continue
      if (draw.exhausted(part)) break
      next[part] = 0
    }
    this.length = order.length
    this.#parts = Uint32Array.from(order)
    this.#indices = Uint32Array.from(indices)
  }

  /** Check that the order fits in memory before drawing it. Part i is exhausted after length / probability draws. */
  #requireHeld(weights: readonly number[], { stoppingStrategy }: MixtureOptions): void {
    const sum = weights.reduce((total, weight) => total + weight, 0)
    const draws = this.#datasets.map(({ length }, i) => (length * sum) / (weights[i] as number))
    const expected = stoppingStrategy === 'allExhausted' ? Math.max(...draws) : Math.min(...draws)
    if (expected > LONGEST_LIST) throw this.#tooLong(expected)
  }

  #tooLong(draws: number): ConfigError {
    return new ConfigError(
      `MixtureDataset: expected a mixture of at most ${LONGEST_LIST} samples, whose order fits into memory, got about ` +
        `${Math.round(draws)}. Use mixtureStream, smaller datasets, or more similar weights.`,
      { draws },
    )
  }

  /** Return the index of the part that the sample at `index` comes from. */
  partOf(index: number): number {
    requireIndex('MixtureDataset.partOf', index, this.length)
    return this.#parts[index] as number
  }

  get(index: number, epoch = 0): T | Promise<T> {
    const part = this.partOf(index)
    return (this.#datasets[part] as Dataset<T>).get(this.#indices[index] as number, epoch)
  }
}

/**
 * Interleave streams randomly by weight, in another order each epoch. A stream is exhausted when it has no further sample; with
 * 'allExhausted' it then starts over, and must not be empty.
 */
export function mixtureStream<T>(
  parts: readonly MixturePart<IterableDataset<T>>[],
  options: MixtureOptions = {},
): IterableDataset<T> {
  const weights = weightsOf('mixtureStream', parts, options)
  parts.forEach(({ dataset }, i) => {
    requireObject('mixtureStream', `parts[${i}].dataset`, dataset)
    requireFunction('mixtureStream', `parts[${i}].dataset.iterate`, dataset.iterate)
  })
  return { iterate: (context) => mixed(parts, weights, options, context) }
}

async function* mixed<T>(
  parts: readonly MixturePart<IterableDataset<T>>[],
  weights: number[],
  options: MixtureOptions,
  context: StreamContext,
): AsyncGenerator<T, void, void> {
  // Draw the mixture over whole streams; the loader takes each worker's part of the result.
  const whole = { ...context, shard: 0, shards: 1 }
  const draw = new Draw(weights, options, context.epoch)
  const begin = (part: number) => iterated((parts[part] as MixturePart<IterableDataset<T>>).dataset.iterate(whole))
  const open = parts.map((_, part) => begin(part))
  try {
    for (;;) {
      const part = draw.next()
      let step = await open[part]!.next()
      if (step.done) {
        if (draw.exhausted(part)) return
        open[part] = begin(part)
        step = await open[part].next()
        if (step.done)
          throw new DataError(`mixtureStream: expected samples in parts[${part}], got an empty stream. Leave it out`, {
            part,
          })
      }
      yield step.value
    }
  } finally {
    for (const iterator of open) await iterator.return()
  }
}

async function* iterated<T>(stream: AsyncIterable<T> | Iterable<T>): AsyncGenerator<T, void, void> {
  yield* stream
}
