import { getHeapStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/**
 * V8 does not throw but ends the process when its heap is full, or when a list outgrows 2^27 elements (one that is pushed
 * to asks for half as many again). So whatever a stranger's file makes longer is counted here first.
 */

/** Elements of a list. */
export const LONGEST_LIST = 2 ** 26
/** Entries of a Map, a Set or an object; V8 holds no more. */
export const LARGEST_MAP = 2 ** 24
/** UTF-16 units of a string; V8 holds no longer one. */
export const LONGEST_STRING = 2 ** 29 - 24

// Growing means a copy beside the old one: half as long again for a list, twice as large for a map.
const LIST_BYTES = 24
const MAP_BYTES = 56
const LOOK_FROM = 2 ** 16
/** What stays free: V8 counts its space for young objects as heap, and the reader needs some itself. */
const reserve = (limit: number): number => limit / 10 + 2 ** 26

let collected = 0

/** Whether `bytes` more fit on the heap of this thread. Collects garbage before it says no. */
export function heapHolds(bytes = 0): boolean {
  const { heap_size_limit: limit, used_heap_size: used } = getHeapStatistics()
  const most = limit - reserve(limit) - bytes
  if (used <= most) return true
  // Collecting takes seconds where much is alive: not again before there can be something new.
  if (collected <= most && used >= collected && used - collected < limit / 64) return true
  collectGarbage()
  collected = getHeapStatistics().used_heap_size
  return collected <= most
}

/** Whether a list of `size` elements may grow. Costs a comparison; looks at the heap whenever the size has doubled. */
export function listMayGrow(size: number): boolean {
  return size < LONGEST_LIST && (size < LOOK_FROM || (size & (size - 1)) !== 0 || heapHolds(LIST_BYTES * size))
}

/** The same for a Map, a Set or an object. */
export function mapMayGrow(size: number): boolean {
  return size < LARGEST_MAP && (size < LOOK_FROM || (size & (size - 1)) !== 0 || heapHolds(MAP_BYTES * size))
}

/** How to say it. */
export function tooMuch(): string {
  const megabytes = Math.round(getHeapStatistics().heap_size_limit / 2 ** 20)
  return `it holds more than fits in JavaScript's memory, lists of ${LONGEST_LIST} and maps of ${LARGEST_MAP} entries at most, on a heap of ${megabytes} MB (node --max-old-space-size sets that)`
}

/** Frees what nobody needs any more, at once. */
export function collectGarbage(): void {
  collector ??= (globalThis as { gc?: () => void }).gc ?? exposedGc()
  collector?.()
}

let collector: (() => void) | undefined

function exposedGc(): (() => void) | undefined {
  setFlagsFromString('--expose-gc')
  return runInNewContext('gc') as (() => void) | undefined
}
