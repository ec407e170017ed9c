import { threadId } from 'node:worker_threads'

/** Samples with a typed array of index + 1 squares; what is slow, failing and the like comes in as workerData. */
export function dataset({ length = 20, slow = {}, fail, exit, bad, delay = 0 } = {}) {
  return {
    length,
    async get(index, epoch) {
      const wait = slow[index] ?? delay
      if (wait) await new Promise((resolve) => setTimeout(resolve, wait))
      if (fail?.includes(index)) throw new RangeError(`no square for ${index}`)
      if (exit === index) process.exit(3)
      if (bad === index) return { index, nested: [{ map: new Map() }] }
      return {
        index,
        epoch,
        threadId,
        values: Float32Array.from({ length: index + 1 }, (_, i) => i * i),
        bytes: Buffer.from([index, 1]),
        big: BigInt64Array.of(BigInt(index)),
        words: ['a', String(index)],
      }
    },
  }
}
