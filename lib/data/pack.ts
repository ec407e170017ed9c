import { elementsOf, isArrayLike, isList, misuse, present, requireOptions, requireWhole, shown } from '../base/check.js'
import { ConfigError, DataError, ShapeError } from '../base/errors.js'
import { scope, Tensor, tensor } from '../tensor/index.js'
import type { EpochBatchSampler } from './plan.js'
import { Random } from './random.js'
import { checkedLengths } from './sampler.js'

export interface PackOptions {
  /**
   * Fields whose first number in each sequence becomes -100: labels of a causal language model, which moves them by one, so
   * that the end of one sequence is not asked for the beginning of the next. Default ['labels'], where that is a field.
   */
  causalLabels?: readonly string[]
  /** The position of a sequence's first token. Default 0; RoBERTa counts from its padding token's number + 1. */
  positionOffset?: number
  /** More tokens in a row are an error. Default: any number. */
  maxLength?: number
}

/** Every field as [1, total] int64, and where the sequences are. */
export type PackedBatch<F extends string> = Record<F, Tensor> & {
  /** [1, total] int64: counted anew in each sequence. */
  positionIds: Tensor
  /** [1, total] int64: 0 for tokens of the first sequence, 1 for those of the second, … */
  sequenceIds: Tensor
  /** [sequences + 1] int32: where each sequence begins, and the end; what variable-length attention kernels take. */
  cuSeqlens: Tensor
  /** The longest sequence. */
  maxSeqlen: number
  /** How many tokens each sequence has: what `DecoderLM.forward` takes. */
  sequenceLengths: number[]
}

/**
 * A collate function without padding: all sequences of a batch one after the other in one row. `packSequences(['inputIds',
 * 'labels'])` turns samples `{ inputIds: [5, 6], labels: [5, 6] }` into `{ inputIds: [1, total], labels, positionIds,
 * sequenceIds, cuSeqlens, maxSeqlen, sequenceLengths }`. A network needs `positionIds` and an attention mask that keeps sequences
 * apart: `blockDiagonalMask(sequenceIds)`. A `DecoderLM` needs no mask, only `sequenceLengths`. `PackedBatchSampler` chooses
 * what fits into a row.
 *
 * @param fields lists of whole numbers, in each sample of one length
 * Errors: `DataError` naming field and sample; also when the row would be longer than `maxLength`.
 */
export function packSequences<const F extends string>(
  fields: readonly F[],
  options: PackOptions = {},
): (samples: readonly { readonly [K in F]: ArrayLike<number | bigint> }[]) => PackedBatch<F> {
  const where = 'packSequences'
  if (!isList(fields) || fields.length === 0) throw misuse(where, 'fields', 'an array of names', fields)
  elementsOf(where, 'fields', fields, (field) => {
    if (typeof field !== 'string') throw misuse(where, 'fields', 'an array of names', fields)
  })
  const made = fields.find((field) =>
    ['positionIds', 'sequenceIds', 'cuSeqlens', 'maxSeqlen', 'sequenceLengths'].includes(field),
  )
  if (made !== undefined) throw new ConfigError(`${where} makes ${made} itself: leave it out of the fields`, {})
  requireOptions(where, options, ['causalLabels', 'positionOffset', 'maxLength'])
  const { causalLabels = fields.filter((field) => (field as string) === 'labels'), positionOffset = 0 } = options
  const { maxLength = Number.MAX_SAFE_INTEGER } = options
  if (!isList(causalLabels)) throw misuse(where, 'causalLabels', 'an array of names', causalLabels)
  elementsOf(where, 'causalLabels', causalLabels, present(where, 'causalLabels'))
  const unknown = causalLabels.find((name) => !(fields as readonly unknown[]).includes(name))
  if (unknown !== undefined) throw misuse(where, 'causalLabels', `some of the fields ${fields}`, unknown)
  requireWhole(where, 'positionOffset', positionOffset)
  requireWhole(where, 'maxLength', maxLength, 1)
  return (samples) => {
    if (!isList(samples) || samples.length === 0) {
      throw new DataError(`${where} was given ${shown(samples)} as a batch, expected an array of samples`)
    }
    const rows = elementsOf(where, 'the batch', samples, present(where, 'the batch'))
    const lists = fields.map((field) => rows.map((sample, i) => listOf(sample, field, i)))
    const lengths = (lists[0] as bigint[][]).map((list) => list.length)
    fields.forEach((field, f) => {
      const i = (lists[f] as bigint[][]).findIndex((list, j) => list.length !== lengths[j])
      if (i < 0) return
      throw new DataError(
        `Field ${field} of sample ${i} of the batch has length ${lists[f]?.[i]?.length}, its ${fields[0]} ${lengths[i]}`,
        { field, sample: i },
      )
    })
    const total = lengths.reduce((sum, length) => sum + length, 0)
    if (total > maxLength) {
      throw new DataError(`A packed row would have ${total} tokens, more than maxLength ${maxLength}`, {
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
  throw new DataError(`Field ${field} of sample ${place} of the batch is ${shown(value)}, expected a list of numbers`, {
    field,
    sample: place,
  })
}

function whole(value: unknown, field: string, sample: number): bigint {
  if (typeof value === 'bigint' && BigInt.asIntN(64, value) === value) return value
  if (Number.isSafeInteger(value)) return BigInt(value as number)
  throw new DataError(`Field ${field} of sample ${sample} of the batch holds ${shown(value)}, expected whole numbers`, {
    field,
    sample,
  })
}

/**
 * Which token may look at which: those of its own sequence, with `causal` only itself and those before it. For packed rows
 * these are blocks on the diagonal.
 *
 * @param sequenceIds [batch, time] whole numbers, as `packSequences` makes them
 * @returns [batch, 1, time, time] bool, true where a query (third) may look at a key (fourth): a mask for
 * `functional.scaledDotProductAttention`
 */
export function blockDiagonalMask(sequenceIds: Tensor, { causal = false }: { causal?: boolean } = {}): Tensor {
  if (!(sequenceIds instanceof Tensor)) throw misuse('blockDiagonalMask', 'sequenceIds', 'a tensor', sequenceIds)
  if (sequenceIds.ndim !== 2) {
    throw new ShapeError(
      `blockDiagonalMask was given sequenceIds of shape [${sequenceIds.shape}], expected [batch, time]`,
      {
        shape: sequenceIds.shape,
      },
    )
  }
  return scope(() => {
    const same = sequenceIds.unsqueeze(2).eq(sequenceIds.unsqueeze(1)).unsqueeze(1)
    return causal ? same.tril() : same
  })
}

/**
 * Puts each length into the first bin that has room for it (first-fit): lists of places in `lengths`, each with a sum of at
 * most `maxLength`. In O(n log n).
 * @throws ConfigError when a length alone is more than `maxLength`
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
  // A tree of the most room in a range of bins: node n has the children 2n and 2n + 1, bin b is node leaves + b.
  const room = new Float64Array(2 * leaves).fill(maxLength)
  for (let i = 0; i < order.length; i++) {
    const place = order[i] as number
    const length = lengths[place] as number
    let node = 1
    while (node < leaves) node = room[2 * node]! >= length ? 2 * node : 2 * node + 1
    const bin = node - leaves
    if (bin === bins.length) bins.push([])
    bins[bin]!.push(place)
    room[node]! -= length
    for (node >>= 1; node > 0; node >>= 1) room[node] = Math.max(room[2 * node]!, room[2 * node + 1]!)
  }
  return bins
}

export interface PackedBatchOptions {
  /** The length of every sample, in tokens. */
  lengths: ArrayLike<number>
  /** Most tokens in a row. */
  maxLength: number
  /** Another order of the rows each epoch, and of samples of one length in them. Default false. */
  shuffle?: boolean
  /** Default 0. */
  seed?: number
}

/**
 * Batches that `packSequences` makes rows of: the longest samples first, each into the first row that has room (first-fit
 * decreasing), which wastes little. The number of batches is the same each epoch.
 * @throws ConfigError when a sample alone is longer than `maxLength`
 */
export class PackedBatchSampler implements EpochBatchSampler {
  readonly length: number
  readonly #lengths: readonly number[]
  readonly #options: Required<Omit<PackedBatchOptions, 'lengths'>>

  constructor(options: PackedBatchOptions) {
    const where = 'PackedBatchSampler'
    requireOptions(where, options, ['lengths', 'maxLength', 'shuffle', 'seed'])
    const { lengths, maxLength, shuffle = false, seed = 0 } = options
    requireWhole(where, 'maxLength', maxLength, 1)
    requireWhole(where, 'seed', seed)
    if (typeof shuffle !== 'boolean') throw misuse(where, 'shuffle', 'a boolean', shuffle)
    this.#lengths = checkedLengths(where, lengths, maxLength, 'maxLength')
    this.#options = { maxLength, shuffle, seed }
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
