import { getHeapStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/**
 * V8 ends the process, instead of throwing, when its heap is full or an array grows beyond 2^27 elements (`push` reserves
 * half as many again). So collections whose size a file determines are checked here before they grow.
 */

/** Maximum number of elements of a list. */
export const LONGEST_LIST = 2 ** 26
/** Maximum number of entries of a Map, a Set or an object: V8's limit. */
export const LARGEST_MAP = 2 ** 24
/** Maximum number of UTF-16 units of a string: V8's limit. */
export const LONGEST_STRING = 2 ** 29 - 24

// Growing copies while the old storage is still alive: 1.5 times as large for a list, twice for a map.
const LIST_BYTES = 24
const MAP_BYTES = 56
const LOOK_FROM = 2 ** 16
/** Bytes to keep free: V8 counts its young generation as heap, and the reader needs some memory itself. */
const reserve = (limit: number): number => limit / 10 + 2 ** 26

let collected = 0

/** Return whether `bytes` more fit on the heap of this thread. Collects garbage before it returns false. */
export function heapHolds(bytes = 0): boolean {
  const { heap_size_limit: limit, used_heap_size: used } = getHeapStatistics()
  const most = limit - reserve(limit) - bytes
  if (used <= most) return true
  // A collection takes seconds on a large heap, so do not repeat it before the heap has grown noticeably.
  if (collected <= most && used >= collected && used - collected < limit / 64) return true
  collectGarbage()
  collected = getHeapStatistics().used_heap_size
  return collected <= most
}

/** Return whether a list of `size` elements may grow. Checks the heap only when the size has doubled. */
export function listMayGrow(size: number): boolean {
  return size < LONGEST_LIST && (size < LOOK_FROM || (size & (size - 1)) !== 0 || heapHolds(LIST_BYTES * size))
}

/** Return whether a Map, a Set or an object of `size` entries may grow. */
export function mapMayGrow(size: number): boolean {
  return size < LARGEST_MAP && (size < LOOK_FROM || (size & (size - 1)) !== 0 || heapHolds(MAP_BYTES * size))
}

/** Return the part of an error message that states the limits. */
export function tooMuch(): string {
  const megabytes = Math.round(getHeapStatistics().heap_size_limit / 2 ** 20)
  return `it holds more than fits in JavaScript's memory, lists of ${LONGEST_LIST} and maps of ${LARGEST_MAP} entries at most, on a heap of ${megabytes} MB (node --max-old-space-size sets that)`
}

/** Collect garbage now. */
export function collectGarbage(): void {
  collector ??= (globalThis as { gc?: () => void }).gc ?? exposedGc()
  collector?.()
}

let collector: (() => void) | undefined

function exposedGc(): (() => void) | undefined {
  setFlagsFromString('--expose-gc')
  return runInNewContext('gc') as (() => void) | undefined
}
