import { argumentError, listOf, requireObject, requireOneOf } from '../base/check.js'
import { ConfigError, DistributedError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import { scope, Tensor, tensor } from '../tensor/index.js'
import { getWorldSize, groupId, isInitialized, requireRank } from './process-group.js'

/** Reduction of the values of several ranks; 'mean' is for floating-point tensors. */
export type ReduceOp = 'sum' | 'mean' | 'product' | 'min' | 'max'

const OPS = ['sum', 'mean', 'product', 'min', 'max'] as const

const reduce = opAsync('voxtorch::distributed_all_reduce_')
const send = opAsync('voxtorch::distributed_broadcast_')
const gather = opAsync('voxtorch::distributed_all_gather')
const wait = opAsync('voxtorch::distributed_barrier')

/**
 * Replace each tensor, in place, by the sum (or mean, ...) over all ranks. Every rank must call it with tensors of the same
 * shapes and dtypes, as for every collective here: if one rank calls something else, all throw.
 * @throws DistributedError if a rank has ended, times out (`timeout` of `initProcessGroup`) or called something else
 */
export async function allReduce(tensors: Tensor | Iterable<Tensor>, options: { op?: ReduceOp } = {}): Promise<void> {
  requireObject('allReduce', 'its options', options)
  const { op = 'sum' } = options
  requireOneOf('allReduce', 'op', op, OPS)
  await reduce(groupId('allReduce'), tensorsOf('allReduce', tensors), op)
}

/** Replace each tensor, in place, by that of the rank `source`, for any dtype. Default source: 0. */
export async function broadcast(tensors: Tensor | Iterable<Tensor>, source = 0): Promise<void> {
  requireRank('broadcast', 'source', source)
  await send(groupId('broadcast'), tensorsOf('broadcast', tensors), source)
}

/** Return the tensors of all ranks, in rank order; all must have one shape and dtype. */
export async function allGather(value: Tensor): Promise<Tensor[]> {
  if (!(value instanceof Tensor)) throw argumentError('allGather', 'its argument', 'a Tensor', value)
  return (await gather(groupId('allGather'), value)) as Tensor[]
}

/** Wait until every rank has called it. */
export async function barrier(): Promise<void> {
  await wait(groupId('barrier'))
}

/** Return the values of all ranks, in rank order: anything that JSON can store. They may differ in size. */
export async function allGatherObject<T>(value: T): Promise<T[]> {
  groupId('allGatherObject')
  const text = JSON.stringify(value)
  if (text === undefined) throw argumentError('allGatherObject', 'its argument', 'a value that JSON can hold', value)
  const bytes = new TextEncoder().encode(text)
  return await scope(async () => {
    const lengths = (await allGather(tensor([bytes.length], { dtype: 'int64' }))).map((length) => Number(length.item()))
    const padded = new Uint8Array(Math.max(...lengths))
    padded.set(bytes)
    const all = await allGather(tensor(padded, { dtype: 'uint8' }))
    const texts = await Promise.all(all.map((one) => one.data()))
    return texts.map(
      (data, i) => JSON.parse(new TextDecoder().decode((data as Uint8Array).subarray(0, lengths[i]))) as T,
    )
  })
}

/**
 * Return the mean of each number over all ranks, bit-identical on every rank. `weight` is the weight of this rank's numbers,
 * such as its number of samples or target tokens; the default is one per rank. Without a process group it returns its argument.
 * @throws DistributedError if the ranks have different names, or a total weight of 0
 */
export async function reduceMetrics<K extends string>(
  metrics: Record<K, number>,
  options: { weight?: number } = {},
): Promise<Record<K, number>> {
  requireObject('reduceMetrics', 'metrics', metrics)
  requireObject('reduceMetrics', 'its options', options)
  const { weight = 1 } = options
  if (!(weight >= 0 && weight < Number.POSITIVE_INFINITY)) {
    throw argumentError('reduceMetrics', 'weight', 'a number of at least 0', weight)
  }
  if (!isInitialized() && getWorldSize() === 1) return { ...metrics }
  const names = Object.keys(metrics).sort() as K[]
  // JSON cannot store NaN and infinity.
  const localValues = { weight, values: names.map((name) => [name, String(metrics[name])] as const) }
  const ranks = await allGatherObject(localValues)
  const other = ranks.findIndex(({ values }) => values.map(([name]) => name).join() !== names.join())
  if (other >= 0) {
    throw new DistributedError(
      `reduceMetrics: expected the same metrics on every rank, got ${names.join(', ')} on this rank, and on rank ${other} ` +
        `${ranks[other]?.values.map(([name]) => name).join(', ')}`,
      { rank: other },
    )
  }
  const total = ranks.reduce((sum, { weight }) => sum + weight, 0)
  if (total === 0) throw new DistributedError('reduceMetrics: expected a weight above 0 on some rank, got 0 on all', {})
  const mean = (i: number) =>
    // A rank without samples may have NaN.
    ranks.reduce((sum, { weight, values }) => (weight === 0 ? sum : sum + weight * Number(values[i]?.[1])), 0) / total
  return Object.fromEntries(names.map((name, i) => [name, mean(i)])) as Record<K, number>
}

function tensorsOf(where: string, tensors: Tensor | Iterable<Tensor>): Tensor[] {
  if (tensors instanceof Tensor) return [tensors]
  const list = listOf<Tensor>(where, 'tensors', tensors, 'tensors')
  for (const item of list) if (!(item instanceof Tensor)) throw argumentError(where, 'a tensor', 'a Tensor', item)
  if (list.length === 0) throw new ConfigError(`${where}: expected at least one tensor, got none`, {})
  return list
}
