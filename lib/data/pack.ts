import {
  argumentError,
  elementsOf,
  isArrayLike,
  isList,
  present,
  requireOptions,
  requireWhole,
  shown,
} from '../base/check.js'
import { ConfigError, DataError, ShapeError } from '../base/errors.js'
import { type ChangesOf, settings, unchecked, type ValuesOf } from '../base/settings.js'
import { scope, Tensor, tensor } from '../tensor/index.js'
import type { EpochBatchSampler } from './plan.js'
import { Random } from './random.js'
import { checkedLengths } from './sampler.js'

export interface PackOptions {
  /**
   * Fields whose first number in each sequence becomes -100: labels of a causal language model, which are shifted by one, so
   * that the end of one sequence does not predict the beginning of the next. Default ['labels'], if that is a field.
   */
  causalLabels?: readonly string[]
  /** Position of a sequence's first token. Default 0; RoBERTa counts from its padding token's id + 1. */
  positionOffset?: number
  /** Maximum number of tokens in a row. Default: unlimited. */
  maxLength?: number
}

/** Packed batch: every field as [1, total] int64, and the boundaries of the sequences. */
export type PackedBatch<F extends string> = Record<F, Tensor> & {
  /** Positions within each sequence, [1, total] int64. */
  positionIds: Tensor
  /** Index of each token's sequence, [1, total] int64. */
  sequenceIds: Tensor
  /** Cumulative sequence lengths, [sequences + 1] int32, as variable-length attention kernels take them. */
  cuSeqlens: Tensor
  /** Length of the longest sequence. */
  maxSeqlen: number
  /** Number of tokens in each sequence: the argument of `DecoderLM.forward`. */
  sequenceLengths: number[]
}

/**
 * Return a collate function without padding: all sequences of a batch are concatenated in one row. `packSequences(['inputIds',
 * 'labels'])` turns samples `{ inputIds: [5, 6], labels: [5, 6] }` into `{ inputIds: [1, total], labels, positionIds,
 * sequenceIds, cuSeqlens, maxSeqlen, sequenceLengths }`. A network needs `positionIds` and an attention mask that separates the
 * sequences: `blockDiagonalMask(sequenceIds)`. A `DecoderLM` needs no mask, only `sequenceLengths`. `PackedBatchSampler`
 * chooses which samples form a row.
 *
 * @param fields names of fields that are lists of integers, of equal length within a sample
 * @throws DataError from the returned function, with field and sample, and if the row would be longer than `maxLength`
 */
export function packSequences<const F extends string>(
  fields: readonly F[],
  options: PackOptions = {},
): (samples: readonly { readonly [K in F]: ArrayLike<number | bigint> }[]) => PackedBatch<F> {
  const where = 'packSequences'
  if (!isList(fields) || fields.length === 0) throw argumentError(where, 'fields', 'an array of names', fields)
  elementsOf(where, 'fields', fields, (field) => {
    if (typeof field !== 'string') throw argumentError(where, 'fields', 'an array of names', fields)
  })
  const generated = fields.find((field) =>
    ['positionIds', 'sequenceIds', 'cuSeqlens', 'maxSeqlen', 'sequenceLengths'].includes(field),
  )
  if (generated !== undefined)
    throw new ConfigError(`${where}: expected fields without ${generated}, which packSequences adds`, {})
  requireOptions(where, options, ['causalLabels', 'positionOffset', 'maxLength'])
  const { causalLabels = fields.filter((field) => (field as string) === 'labels'), positionOffset = 0 } = options
  const { maxLength = Number.MAX_SAFE_INTEGER } = options
  if (!isList(causalLabels)) throw argumentError(where, 'causalLabels', 'an array of names', causalLabels)
  elementsOf(where, 'causalLabels', causalLabels, present(where, 'causalLabels'))
  const unknown = causalLabels.find((name) => !(fields as readonly unknown[]).includes(name))
  if (unknown !== undefined) throw argumentError(where, 'causalLabels', `some of the fields ${fields}`, unknown)
  requireWhole(where, 'positionOffset', positionOffset)
  requireWhole(where, 'maxLength', maxLength, 1)
  return (samples) => {
    if (!isList(samples) || samples.length === 0) {
      throw new DataError(`${where}: expected an array of samples as batch, got ${shown(samples)}`)
    }
    const rows = elementsOf(where, 'the batch', samples, present(where, 'the batch'))
    const lists = fields.map((field) => rows.map((sample, i) => listOf(sample, field, i)))
    const lengths = (lists[0] as bigint[][]).map((list) => list.length)
    fields.forEach((field, f) => {
      const i = (lists[f] as bigint[][]).findIndex((list, j) => list.length !== lengths[j])
      if (i < 0) return
      throw new DataError(
        `${where}: expected field ${field} of sample ${i} of the batch to have the length of ${fields[0]}, ${lengths[i]}, got ${lists[f]?.[i]?.length}`,
        { field, sample: i },
      )
    })
    const total = lengths.reduce((sum, length) => sum + length, 0)
    if (total > maxLength) {
      throw new DataError(`${where}: expected at most ${maxLength} tokens in a row (maxLength), got ${total}`, {
        total,
        maxLength,
      })
    }
    const ends = Int32Array.from([0, ...lengths])
    for (let i = 1; i < ends.length; i++) ends[i]! += ends[i - 1]!
    const row = (numbers: (put: (at: number, value: bigint) => void) => void) => {
      const data = new BigInt64Array(total)
      numbers((at, value) => {
        data[at] = value
      })
      return tensor(data, { shape: [1, total] })
    }
    const each = (put: (at: number, sequence: number, i: number) => void) =>
      lengths.forEach((length, sequence) => {
        for (let i = 0; i < length; i++) put((ends[sequence] as number) + i, sequence, i)
      })
    const batch: Record<string, Tensor | number | number[]> = {}
    fields.forEach((field, f) => {
      const hidden = causalLabels.includes(field)
      batch[field] = row((put) =>
        each((at, sequence, i) => put(at, hidden && i === 0 ? -100n : (lists[f]?.[sequence]?.[i] as bigint))),
      )
    })
    batch.positionIds = row((put) => each((at, _, i) => put(at, BigInt(i + positionOffset))))
    batch.sequenceIds = row((put) => each((at, sequence) => put(at, BigInt(sequence))))
    batch.cuSeqlens = tensor(ends)
    batch.sequenceLengths = lengths
    batch.maxSeqlen = lengths.reduce((most, length) => Math.max(most, length), 0)
    return batch as PackedBatch<F>
  }
}

function listOf(sample: unknown, field: string, place: number): bigint[] {
  const value = (sample as Record<string, unknown> | null | undefined)?.[field]
  const where = `field ${field} of sample ${place}`
  if (isArrayLike(value)) return elementsOf('packSequences', where, value, (one) => whole(one, field, place))
  throw new DataError(
    `packSequences: expected field ${field} of sample ${place} of the batch to be a list of numbers, got ${shown(value)}`,
    {
      field,
      sample: place,
    },
  )
}

function whole(value: unknown, field: string, sample: number): bigint {
  if (typeof value === 'bigint' && BigInt.asIntN(64, value) === value) return value
  if (Number.isSafeInteger(value)) return BigInt(value as number)
  throw new DataError(
    `packSequences: expected integers in field ${field} of sample ${sample} of the batch, got ${shown(value)}`,
    {
      field,
      sample,
    },
  )
}

/**
 * Return a mask in which each token attends only to its own sequence, with `causal` only to itself and the tokens before it.
 * For packed rows these are blocks on the diagonal.
 *
 * @param sequenceIds [batch, time] integers, as `packSequences` returns them
 * @returns [batch, 1, time, time] bool, true where a query (third dimension) attends to a key (fourth dimension): a mask for
 *   `functional.scaledDotProductAttention`
 */
export function blockDiagonalMask(sequenceIds: Tensor, { causal = false }: { causal?: boolean } = {}): Tensor {
  if (!(sequenceIds instanceof Tensor)) throw argumentError('blockDiagonalMask', 'sequenceIds', 'a tensor', sequenceIds)
  if (sequenceIds.ndim !== 2) {
    throw new ShapeError(`blockDiagonalMask: expected sequenceIds of shape [batch, time], got [${sequenceIds.shape}]`, {
      shape: sequenceIds.shape,
    })
  }
  return scope(() => {
    const same = sequenceIds.unsqueeze(2).eq(sequenceIds.unsqueeze(1)).unsqueeze(1)
    return causal ? same.tril() : same
  })
}

/**
 * Pack lengths into bins of capacity `maxLength` by first fit. Returns for each bin a list of indices into `lengths`. In O(n
 * log n).
 * @throws ConfigError if a single length exceeds `maxLength`
 */
export function packBins(lengths: ArrayLike<number>, maxLength: number): number[][] {
  requireWhole('packBins', 'maxLength', maxLength, 1)
  const list = checkedLengths('packBins', lengths, maxLength, 'maxLength')
  return firstFit(
    list,
    list.map((_, i) => i),
    maxLength,
  )
}

function firstFit(lengths: readonly number[], order: ArrayLike<number>, maxLength: number): number[][] {
  const bins: number[][] = []
  const leaves = 2 ** Math.ceil(Math.log2(Math.max(order.length, 1)))
  // Segment tree of the largest free capacity in a range of bins: node n has the children 2n and 2n + 1, bin b is node leaves +
  // b.
  const capacity = new Float64Array(2 * leaves).fill(maxLength)
  for (let i = 0; i < order.length; i++) {
    const place = order[i] as number
    const length = lengths[place] as number
    let node = 1
    while (node < leaves) node = capacity[2 * node]! >= length ? 2 * node : 2 * node + 1
    const bin = node - leaves
    if (bin === bins.length) bins.push([])
    bins[bin]!.push(place)
    capacity[node]! -= length
    for (node >>= 1; node > 0; node >>= 1) capacity[node] = Math.max(capacity[2 * node]!, capacity[2 * node + 1]!)
  }
  return bins
}

const ROWS = settings({
  /** Length of every sample, in tokens. */
  lengths: { type: unchecked<ArrayLike<number>>(), required: true },
  /** Maximum number of tokens in a row. */
  maxLength: { type: 'integer', min: 1, required: true },
  /** Shuffle the rows each epoch, and the samples of equal length among them. Default false. */
  shuffle: { type: 'boolean', default: false },
  /** Seed of the order. Default 0. */
  seed: { type: 'integer', default: 0 },
})

/** Options of a {@link PackedBatchSampler}. @interface */
export type PackedBatchOptions = ChangesOf<typeof ROWS.table>

/**
 * Sampler of batches for `packSequences`: the longest samples first, each in the first row with enough free capacity (first-fit
 * decreasing), which wastes little. The number of batches is the same each epoch.
 * @throws ConfigError if a single sample is longer than `maxLength`
 */
export class PackedBatchSampler implements EpochBatchSampler {
  readonly length: number
  readonly #lengths: readonly number[]
  readonly #options: ValuesOf<typeof ROWS.table>

  constructor(options: PackedBatchOptions) {
    const where = 'PackedBatchSampler'
    this.#options = ROWS.read(where, options)
    const { lengths, maxLength } = this.#options
    this.#lengths = checkedLengths(where, lengths, maxLength, 'maxLength')
    this.length = this.#rows(0).length
  }

  *batches(epoch: number): Generator<number[]> {
    yield* this.#rows(epoch)
  }

  #rows(epoch: number): number[][] {
    const { maxLength, shuffle, seed } = this.#options
    const random = new Random(seed, epoch)
    const order = Uint32Array.from(this.#lengths, (_, i) => i)
    if (shuffle) random.shuffle(order)
    order.sort((a, b) => this.#lengths[b]! - this.#lengths[a]!)
    const rows = firstFit(this.#lengths, order, maxLength)
    return shuffle ? random.shuffle(rows) : rows
  }
}
