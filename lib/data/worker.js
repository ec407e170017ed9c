// @ts-check
import { parentPort, workerData } from 'node:worker_threads'
import { openDataset, ReadFailure, readSamples } from './source.js'

// The entry of a DataLoader's worker thread. In: { batch, indices, epoch }. Out: { length } once, then for each batch
// { batch, samples } or { batch, index, error }. Typed arrays in samples are moved into one SharedArrayBuffer for each
// batch; the views on it arrive on the main thread with their bytes shared, not copied.

const port = /** @type {import('node:worker_threads').MessagePort} */ (parentPort)
const dataset = await openDataset(workerData.href, workerData.data)
// One batch at a time: a worker that reads ahead of its turn delays the batch that is waited for.
let turn = Promise.resolve()
port.on('message', ({ batch, indices, epoch }) => {
  turn = turn.then(() => answer(batch, indices, epoch))
})
port.postMessage({ length: dataset.length })

/**
 * @param {number} batch
 * @param {number[]} indices
 * @param {number} epoch
 */
async function answer(batch, indices, epoch) {
  try {
    const samples = await readSamples(dataset, indices, epoch)
    port.postMessage({ batch, samples: share(samples, indices) })
  } catch (failure) {
    const { index, error } = failure instanceof ReadFailure ? failure : new ReadFailure(indices[0], failure)
    port.postMessage({ batch, index, error: describe(error) })
  }
}

/**
 * An error's own fields and prototype do not pass between threads; name, message and stack do.
 * @param {unknown} error
 */
function describe(error) {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error), stack: undefined }
  return { name: error.name, message: error.message, stack: error.stack }
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
        throw new ReadFailure(/** @type {number} */ (indices[i]), error)
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
 * A copy of a sample's containers in which `visit` has replaced the typed arrays.
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
    // Long lists of numbers are common and hold nothing to replace.
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
    `the sample${path} is ${what}, which cannot leave a worker thread: return plain objects, arrays, numbers, strings ` +
      'and typed arrays, and make tensors in collate.',
  )
}
