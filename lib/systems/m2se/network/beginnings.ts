import { KvCache } from '../../../generation/kv-cache.js'
import type { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
import { op } from '../../../native/call.js'
import { adaptersOf, type Module } from '../../../nn/module.js'
import { peftModelOf } from '../../../peft/model.js'
import type { Tensor } from '../../../tensor/index.js'

/** A shorter beginning is read anew sooner than others are given up for it. */
const LEAST = 8

interface Entry {
  cache: KvCache
  /** What its keys and values are of: token ids, and a number below 0 for each token of a picture. */
  marks: number[]
}

/** A cache, and how many of the marks it has read already. */
export interface Begun {
  cache: KvCache
  known: number
  /** Says what is in the cache now; without marks it cannot be gone on with. */
  leave(marks?: readonly number[]): void
}

const versionOf = op('aten::_version') as (tensor: Tensor) => number

/**
 * Keys and values of the texts that were read last, pictures included: another question about the same picture, or the next turn,
 * reads only what is new. Those in use are nobody else's.
 */
export class Beginnings {
  /** The latest comes last. */
  #free: Entry[] = []
  #identity = ''

  constructor(
    readonly model: DecoderLM | InternVL,
    /** All that makes embeddings. */
    readonly whole: Module,
    readonly most: number,
  ) {}

  /** A cache with the longest common beginning, less than all of it. */
  async take(marks: readonly number[]): Promise<Begun> {
    this.#check()
    const commons = this.#free.map((entry) => Math.min(commonLength(entry.marks, marks), marks.length - 1))
    const best = commons.indexOf(Math.max(...commons))
    const isUseful = best >= 0 && (commons[best] as number) >= LEAST
    const [entry] = isUseful ? this.#free.splice(best, 1) : []
    const known = entry ? (commons[best] as number) : 0
    const cache = entry?.cache ?? new KvCache()
    if (entry && cache.length > known) await cache.crop(known)
    return { cache, known, leave: (now) => this.#leave(cache, now) }
  }

  #leave(cache: KvCache, marks: readonly number[] | undefined): void {
    const length = marks === undefined ? 0 : Math.min(marks.length, cache.length)
    if (marks === undefined || length === 0) {
      cache.dispose()
      return
    }
    this.#free.push({ cache, marks: marks.slice(0, length) })
    while (this.#free.length > this.most) this.#free.shift()?.cache.dispose()
  }

  /** Forgets what was read by other weights or adapters. */
  #check(): void {
    const tensors = this.whole.parameters()
    const versions = tensors.reduce((sum, tensor) => sum + versionOf(tensor), 0)
    const adapters = this.model.modules().some((module) => adaptersOf(module) !== undefined)
    const active = adapters ? peftModelOf(this.model)?.activeAdapters : undefined
    const identity = `${tensors.length} ${versions} ${adapters} ${active}`
    if (identity !== this.#identity) this.dispose()
    this.#identity = identity
  }

  /** Frees what is kept. */
  dispose(): void {
    for (const { cache } of this.#free.splice(0)) cache.dispose()
  }
}

function commonLength(a: readonly number[], b: readonly number[]): number {
  const most = Math.min(a.length, b.length)
  let same = 0
  while (same < most && a[same] === b[same]) same += 1
  return same
}
