import { readFileSync } from 'node:fs'

/** A stream of 0, 1, 2, …, or one that does what workerData says. */
export function dataset({ length = 23, fail = -1, epochs = false, file } = {}) {
  if (file) return fileStream(file)
  return {
    async *iterate({ epoch }) {
      for (let i = 0; i < length; i++) {
        if (i % 5 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
        if (i === fail) throw new RangeError(`no number ${i}`)
        yield epochs ? i + 100 * epoch : i
      }
    },
  }
}

const BAD = Symbol.for('voxtorch.BadRecord')

/** Lines, each by the worker that it falls to; 'bad' ones are reported as such. */
function fileStream(file) {
  return {
    sharded: true,
    *iterate({ shard, shards }) {
      for (const [i, line] of readFileSync(file, 'utf8').trim().split('\n').entries()) {
        if (i % shards !== shard) continue
        const error = Object.assign(new Error(`line ${i + 1} is bad`), { file, line: i + 1 })
        yield line === 'bad' ? { [BAD]: true, error } : line
      }
    },
  }
}
