// Calls every operator of PyTorch's database through the public API, as test/reference/operator_database.py wrote them. Says
// on each line which one comes, then what came of it: a process that dies is the fault of the last one named.
import { readFileSync, writeSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import * as voxtorch from 'voxtorch'
import { called, unsigned, unwritten } from './database-calls.mjs'

const { manualSeed, ops, scope, slice, tensor, Tensor, asFloat, arange } = voxtorch
const operators = ['operator-database', 'torch-functions'].flatMap((name) => {
  const file = new URL(`../fixtures/tensor/${name}.json.gz`, import.meta.url)
  return JSON.parse(gunzipSync(readFileSync(file)).toString()).operators
})
const say = (line) => writeSync(1, `${JSON.stringify(line)}\n`)
const TOLERANCE = 1e-5

const VIEWS = {
  float64: Float32Array,
  float32: Float32Array,
  complex128: Float32Array,
  complex64: Float32Array,
  complex32: Float32Array,
  bfloat16: Float32Array,
  float16: Float32Array,
  int64: BigInt64Array,
  int32: Int32Array,
  int16: Int16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
}

function made([dtype, shape, data, grad]) {
  const bytes = Buffer.from(data, 'base64')
  const View = VIEWS[dtype]
  const values = new View(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))
  const complex = dtype.startsWith('complex')
  const flat = tensor(values, { shape: complex ? [...shape, 2] : shape })
  const wide = complex ? ops.viewAsComplex(flat.to({ dtype: dtype === 'complex128' ? 'float64' : 'float32' })) : flat
  const kept = wide.to({ dtype })
  return grad ? kept.detach().requiresGrad_(true) : kept
}

/** An encoded value; tensors that need a gradient are added to `leaves`. */
function decoded(value, leaves) {
  if (value === null || typeof value !== 'object') return value
  if (Array.isArray(value)) return value.map((item) => decoded(item, leaves))
  if ('t' in value) {
    const result = made(value.t)
    if (value.t[3]) leaves.push(result)
    return result
  }
  if ('f' in value) {
    const number = { inf: Infinity, '-inf': -Infinity, nan: NaN }[value.f] ?? Number(value.f)
    return Number.isInteger(number) ? asFloat(number) : number
  }
  if ('c' in value) return { re: value.c[0], im: value.c[1] }
  if ('dtype' in value) return value.dtype
  if ('memory' in value) return value.memory
  if ('ellipsis' in value) return '...'
  if ('slice' in value) return slice(...value.slice)
  if ('l' in value) return value.l.map((item) => decoded(item, leaves))
  if ('o' in value)
    return Object.fromEntries(Object.entries(value.o).map(([key, item]) => [key, decoded(item, leaves)]))
  throw new Error(`unknown value ${JSON.stringify(value)}`)
}

function flat(result) {
  if (result === null || result === undefined) return []
  if (result instanceof Tensor || typeof result !== 'object' || typeof result.re === 'number') return [result]
  return (Array.isArray(result) ? result : Object.values(result)).flatMap(flat)
}

/** Numbers of a tensor or scalar, complex ones as pairs. */
function numbers(value) {
  if (!(value instanceof Tensor)) return typeof value === 'object' ? [value.re, value.im] : [Number(value)]
  const dense = value.dtype.startsWith('complex') ? ops.viewAsReal(value.detach().resolveConj()) : value.detach()
  return Array.from(
    dense.dtype.startsWith('float') || dense.dtype === 'bfloat16' ? dense.double().dataSync() : dense.dataSync(),
    Number,
  )
}

function difference(actual, expected, absolute) {
  const [a, b] = [numbers(actual), numbers(expected)]
  if (a.length !== b.length) return Infinity
  let [most, scale] = [0, 0]
  for (let i = 0; i < b.length; i++) {
    const [x, y] = absolute ? [Math.abs(a[i]), Math.abs(b[i])] : [a[i], b[i]]
    if (x === y || (Number.isNaN(x) && Number.isNaN(y))) {
      if (Number.isFinite(y)) scale = Math.max(scale, Math.abs(y))
      continue
    }
    if (!Number.isFinite(x) || !Number.isFinite(y)) return Infinity
    most = Math.max(most, Math.abs(x - y))
    scale = Math.max(scale, Math.abs(y))
  }
  // Below that is what rounding leaves of a zero.
  return most / Math.max(scale, 1e-8)
}

/** 'equal', or what differs. */
async function run(entry, sample) {
  const leaves = []
  const input = decoded(sample.input, leaves)
  const args = decoded(sample.args, leaves)
  const kwargs = decoded({ o: sample.kwargs }, leaves)
  manualSeed(42)
  let results
  try {
    results = called(entry, input, args, kwargs)
    if (results === undefined) return { outcome: 'absent' }
    results = flat(await results)
  } catch (error) {
    if (typeof error.code === 'string' && error.code.startsWith('ERR_'))
      return { outcome: 'refused', why: error.message.split('\n')[0] }
    return { outcome: 'wrong', why: `untyped error ${error.stack}` }
  }
  const expected = sample.out.map((value) => decoded(value, []))
  if (results.length !== expected.length)
    return { outcome: 'wrong', why: `${results.length} results, not ${expected.length}` }
  for (let i = 0; i < expected.length; i++) {
    const [a, b] = [results[i], expected[i]]
    if (b instanceof Tensor) {
      if (!(a instanceof Tensor)) return { outcome: 'wrong', why: `result ${i} is ${a}` }
      if (a.dtype !== b.dtype || `${a.shape}` !== `${b.shape}`) {
        return { outcome: 'wrong', why: `result ${i} is ${a.dtype} [${a.shape}], not ${b.dtype} [${b.shape}]` }
      }
    }
    if (unwritten.has(entry.name)) continue
    const error = difference(a, b, unsigned.has(entry.name))
    if (!(error <= TOLERANCE)) return { outcome: 'wrong', why: `result ${i} differs by ${error}: ${a} is not ${b}` }
  }
  if (!sample.grads || unsigned.has(entry.name)) return { outcome: 'equal' }
  const terms = results
    .filter((value) => value instanceof Tensor && value.requiresGrad)
    .map((value) => {
      const real = (value.dtype.startsWith('complex') ? ops.viewAsReal(value.resolveConj()) : value)
        .reshape(-1)
        .double()
      return real.mul(arange(real.numel(), { dtype: 'float64' }).cos()).sum()
    })
  try {
    if (terms.length === 0) return { outcome: 'wrong', why: 'nothing was recorded' }
    await terms.reduce((sum, term) => sum.add(term)).backward()
  } catch (error) {
    return { outcome: 'wrong', why: `backward: ${error.message.split('\n')[0]}` }
  }
  for (let i = 0; i < leaves.length; i++) {
    const expectedGradient = sample.grads[i] === null ? null : decoded(sample.grads[i], [])
    const { grad } = leaves[i]
    if (expectedGradient === null) {
      if (grad !== null && numbers(grad).some((value) => value !== 0))
        return { outcome: 'wrong', why: `input ${i} has a gradient` }
      continue
    }
    if (grad === null) {
      if (numbers(expectedGradient).some((value) => value !== 0))
        return { outcome: 'wrong', why: `input ${i} has no gradient` }
      continue
    }
    // Looked at as optimisers do.
    grad.add_(grad)
    const error = difference(grad, expectedGradient.mul(2))
    if (!(error <= TOLERANCE))
      return { outcome: 'wrong', why: `gradient ${i} differs by ${error}: ${grad} is not ${expectedGradient.mul(2)}` }
  }
  return { outcome: 'equal' }
}

for (const entry of operators) {
  const name = entry.variant ? `${entry.name} (${entry.variant})` : entry.name
  say({ begins: name })
  const results = []
  for (const sample of entry.samples) results.push(await scope(() => run(entry, sample)))
  say({ name, operator: entry.name, results })
}
