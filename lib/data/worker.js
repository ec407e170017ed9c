// @ts-check
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { parentPort, workerData } from 'node:worker_threads'
import { isBadRecord, openDataset, placeOf, Reader, ReadFailure } from './source.js'

// Entry point of a DataLoader's worker thread. Input: { batch, wanted, epoch, skip }, or { exit } to end the thread. Output: { length, order }
// once (null for a stream), then for each batch { batch, samples, failures, done } or { batch, index, error }. Typed arrays in
// samples are copied into one SharedArrayBuffer per batch; the main thread receives views on it without copying.

const port = /** @type {import('node:worker_threads').MessagePort} */ (parentPort)
if (workerData.tsx) await useTsx(workerData.href)
const dataset = await openDataset(workerData.href, workerData.data)
const reader = new Reader(dataset, workerData.shard, workerData.shards)
// Handle one batch at a time: reading ahead would delay the batch that is awaited.
let turn = Promise.resolve()
port.on('message', ({ batch, wanted, epoch, skip, exit }) => {
  if (exit) process.exit()
  turn = turn.then(() => answer(batch, wanted, epoch, skip))
})
port.postMessage({ length: reader.length, order: reader.order })

/**
 * Enable TypeScript with the tsx of the dataset's package, or of this one.
 * @param {string} href
 */
async function useTsx(href) {
  for (const from of [href, import.meta.url]) {
    try {
      // tsx exports this module only under the condition `import`, which resolves from here and not from the dataset.
      const tsx = pathToFileURL(createRequire(from).resolve('tsx/package.json'))
      const { register } = await import(new URL('dist/esm/api/index.mjs', tsx).href)
      return register()
    } catch {
      // The import of the dataset reports what is missing.
    }
  }
}

/**
 * @param {number} batch
 * @param {number[] | number} wanted
 * @param {number} epoch
 * @param {number} skip
 */
async function answer(batch, wanted, epoch, skip) {
  const indices = Array.isArray(wanted) ? wanted : []
  try {
    const { samples, done } = await reader.read(wanted, epoch, batch < workerData.shards, skip)
    // Structured clone drops an error's own fields and prototype, so errors are sent next to the samples.
    const failures = samples.flatMap((sample, place) => {
      if (!(sample instanceof ReadFailure || isBadRecord(sample))) return []
      const index = sample instanceof ReadFailure ? sample.index : -1
      samples[place] = null
      return [{ place, index, error: describe(sample.error) }]
    })
    port.postMessage({ batch, samples: share(samples, indices), failures, done })
  } catch (failure) {
    const { index, error } = failure instanceof ReadFailure ? failure : new ReadFailure(indices[0] ?? 0, failure)
    port.postMessage({ batch, index, error: describe(error) })
  }
}

/**
 * Return the parts of an error that structured clone keeps: name, message, stack, and the position in its file.
 * @param {unknown} error
 */
function describe(error) {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error) }
  return { name: error.name, message: error.message, stack: error.stack, place: placeOf(error) }
}

/**
 * @param {unknown[]} samples
 * @param {number[]} indices
 */
function share(samples, indices) {
  let bytes = 0
  const measure = (/** @type {ArrayBufferView} */ view) => {
    bytes += aligned(view.byteLength)
    return view
  }
  const each = (/** @type {(view: ArrayBufferView) => ArrayBufferView} */ visit) =>
    samples.map((sample, i) => {
      try {
        return rebuilt(sample, visit, '')
      } catch (error) {
        throw new ReadFailure(/** @type {number} */ (indices[i] ?? i), error)
      }
    })
  each(measure)
  if (bytes === 0) return samples
  const buffer = new SharedArrayBuffer(bytes)
  let offset = 0
  return each((view) => {
    const target = new Uint8Array(buffer, offset, view.byteLength)
    target.set(new Uint8Array(view.buffer, view.byteOffset, view.byteLength))
    const start = offset
    offset += aligned(view.byteLength)
    if (Buffer.isBuffer(view)) return target
    const Kind = /** @type {Float32ArrayConstructor} */ (view.constructor)
    return new Kind(buffer, start, view.byteLength / Kind.BYTES_PER_ELEMENT)
  })
}

const aligned = (/** @type {number} */ bytes) => Math.ceil(bytes / 8) * 8

/**
 * Copy a sample's containers, with typed arrays replaced by `visit`.
 * @param {unknown} value
 * @param {(view: ArrayBufferView) => ArrayBufferView} visit
 * @param {string} path
 * @returns {unknown}
 */
function rebuilt(value, visit, path) {
  if (typeof value === 'function' || typeof value === 'symbol') throw unfit(path, `a ${typeof value}`)
  if (typeof value !== 'object' || value === null || value instanceof Date) return value
  if (ArrayBuffer.isView(value)) {
    return value instanceof DataView || value.buffer instanceof SharedArrayBuffer ? value : visit(value)
  }
  if (Array.isArray(value)) {
    // Lists of numbers are common, long, and contain nothing to replace.
    if (value.every((item) => typeof item === 'number')) return value
    return value.map((item, i) => rebuilt(item, visit, `${path}[${i}]`))
  }
  const prototype = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) throw unfit(path, `a ${prototype.constructor?.name}`)
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, rebuilt(item, visit, `${path}.${key}`)]))
}

/**
 * @param {string} path
 * @param {string} what
 */
function unfit(path, what) {
  return new TypeError(
    `expected a sample that structured clone can copy, got ${what} at sample${path}. Return plain objects, arrays, numbers, strings ` +
      'and typed arrays, and create tensors in collate.',
  )
}
