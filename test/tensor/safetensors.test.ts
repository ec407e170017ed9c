import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  arange,
  CheckpointError,
  type DType,
  eye,
  loadSafetensors,
  memoryStats,
  ones,
  ops,
  saveSafetensors,
  scope,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { fixturePath, settledTensors } from '../helpers.js'
import { PATIENCE } from '../patience.js'

let directory = ''
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'voxtorch-safetensors-'))
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const file = (name: string) => join(directory, name)

const dtypes: DType[] = [
  'float32',
  'float64',
  'float16',
  'bfloat16',
  'int8',
  'uint8',
  'int16',
  'uint16',
  'int32',
  'uint32',
  'int64',
  'uint64',
  'bool',
  'complex64',
  'float8_e4m3fn',
  'float8_e5m2',
]

const bytesOf = (value: Tensor) => scope(() => Buffer.from(value.reshape(-1).view('uint8').dataSync() as Uint8Array))

describe('round trip', () => {
  test.each(dtypes)('%s', (dtype) =>
    scope(async () => {
      // Every pattern of bits, NaNs with payloads among them; bool has two.
      const bytes = Buffer.from(Array.from({ length: 96 }, (_, i) => (dtype === 'bool' ? i % 2 : (i * 37 + 5) % 256)))
      const value = tensor(bytes, { dtype })
      await saveSafetensors(file(`${dtype}.safetensors`), { value })
      const { tensors } = await loadSafetensors(file(`${dtype}.safetensors`))
      expect(tensors.value!.dtype).toBe(dtype)
      expect(bytesOf(tensors.value!)).toEqual(bytes)
    }),
  )

  test('shapes, views, gradients, names and metadata', () =>
    scope(async () => {
      const matrix = arange(12).reshape(3, 4)
      const given: Record<string, Tensor> = {
        scalar: tensor(1.5),
        empty: zeros([0, 3]),
        transposed: matrix.t(),
        row: matrix.at(1),
        conjugated: ops.viewAsComplex(tensor([[1.5, 2]])).conj(),
        negative: ops
          .viewAsComplex(tensor([[1.5, 2]]))
          .conj()
          .imag(),
        leaf: ones([2], { requiresGrad: true }),
        graph: ones([2], { requiresGrad: true }).mul(2),
        'with "quotes" and \n, größe 😀': tensor([1]),
        'encoder.layers.0.weight': tensor([2.5]),
        '': tensor([3]),
      }
      const metadata = { format: 'pt', größe: '"\n😀', empty: '' }
      await saveSafetensors(file('a.safetensors'), given, metadata)
      const back = await loadSafetensors(file('a.safetensors'))
      expect(back.metadata).toEqual(metadata)
      expect(Object.keys(back.tensors).sort()).toEqual(Object.keys(given).sort())
      for (const [name, value] of Object.entries(given)) {
        expect(back.tensors[name]!.shape, name).toEqual(value.shape)
        expect(back.tensors[name]!.dtype, name).toBe(value.dtype)
        expect(back.tensors[name]!.toArray(), name).toEqual(value.toArray())
        expect(back.tensors[name]!.requiresGrad, name).toBe(false)
      }
    }))

  test('nothing at all', async () => {
    await saveSafetensors(file('none.safetensors'), {})
    expect(await loadSafetensors(file('none.safetensors'))).toEqual({ tensors: {}, metadata: {} })
  })

  test('queued like any job: what was queued before is in the file, what is changed meanwhile is refused', () =>
    scope(async () => {
      const x = ones([4])
      const long = ops.async.linalgMatrixPower(eye(500), 400)
      const before = ops.async.add_(x, 1)
      const saved = saveSafetensors(file('busy.safetensors'), { x })
      expect(() => x.add_(5)).toThrow(expect.objectContaining({ name: 'BusyError', code: 'ERR_BUSY' }))
      const after = ops.async.add_(x, 1)
      await Promise.all([long, before, saved, after])
      const { tensors } = await loadSafetensors(file('busy.safetensors'))
      expect(tensors.x!.toArray()).toEqual([2, 2, 2, 2])
      expect(x.toArray()).toEqual([3, 3, 3, 3])
    }))

  test('leaves the counts as they were', async () => {
    const before = await settledTensors()
    const x = ones([3], { dtype: 'bfloat16' })
    await saveSafetensors(file('c.safetensors'), { x, t: x })
    const { tensors } = await loadSafetensors(file('c.safetensors'))
    expect(memoryStats().liveTensors - before).toBe(3)
    for (const value of [x, ...Object.values(tensors)]) value.dispose()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  test('two tensors on the same memory are written twice', () =>
    scope(async () => {
      const x = ones([3])
      await saveSafetensors(file('shared.safetensors'), { x, view: x.view(3, 1) })
      const { tensors } = await loadSafetensors(file('shared.safetensors'))
      tensors.x!.zero_()
      expect(tensors.view!.toArray()).toEqual([[1], [1], [1]])
    }))
})

test('reads what Python wrote', () =>
  scope(async () => {
    const { tensors, metadata } = await loadSafetensors(fixturePath('tensor/python.safetensors'))
    const { values } = JSON.parse(metadata.cases!)[0] as { values: number[] }
    for (const dtype of dtypes) {
      const value = tensors[`a/${dtype}/x`]!
      expect(value.dtype, dtype).toBe(dtype)
      expect(value.shape, dtype).toEqual([2, 3])
      const expected = values.map((number) => (/^(u|bool)/.test(dtype) ? Math.abs(number) : number))
      const got = (value.toArray() as unknown[]).flat()
      if (dtype === 'bool') expect(got).toEqual(expected.map(Boolean))
      else if (dtype === 'complex64') expect(got).toEqual(expected.map((re) => ({ re, im: 0 })))
      else expect(got, dtype).toEqual(expected)
    }
    expect(tensors['a/out/scalar']!.item()).toBe(0.5)
    expect(tensors['a/out/empty']!.shape).toEqual([0, 3])
    expect(tensors['a/out/"größe"\n😀']!.toArray()).toEqual([0, 1, 2])
    expect(tensors['a/out/__proto__']!.toArray()).toEqual([0, 1])
    expect(Object.keys(tensors)).toHaveLength(dtypes.length + 4)
  }))

/** The bytes of a file with this header, whatever it says. */
function forge(header: unknown, data = 0, length?: bigint): Buffer {
  const text =
    typeof header === 'string'
      ? Buffer.from(header)
      : Buffer.isBuffer(header)
        ? header
        : Buffer.from(JSON.stringify(header))
  const head = Buffer.alloc(8)
  head.writeBigUInt64LE(length ?? BigInt(text.length))
  return Buffer.concat([head, text, Buffer.alloc(data)])
}
const entry = (dtype: unknown, shape: unknown, begin: unknown, end: unknown) => ({
  dtype,
  shape,
  data_offsets: [begin, end],
})
const sound = entry('F32', [1], 0, 4)

describe('files that are not sound', () => {
  let before = 0
  beforeAll(async () => {
    before = await settledTensors()
  })

  test.each<[string, Buffer]>([
    ['nothing', Buffer.alloc(0)],
    ['seven bytes', Buffer.alloc(7)],
    ['no header', Buffer.alloc(8)],
    ['a header longer than the file', forge({ a: sound }, 4, 1000n)],
    ['a header of 2^63 bytes', forge({ a: sound }, 4, 2n ** 63n)],
    ['a header of 2^64 - 1 bytes', forge({ a: sound }, 4, 2n ** 64n - 1n)],
    ['a header that ends early', forge({ a: sound }, 4, 10n)],
    ['text that is no JSON', forge('hello, this is text')],
    ['JSON that is a list', forge('[1, 2]')],
    ['JSON that is a number', forge('5')],
    ['JSON null', forge('null')],
    ['JSON with text after it', forge('{} {}')],
    ['bytes that are not UTF-8', forge(Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d]))],
    ['a byte order mark', forge('\ufeff{}')],
    ['leading blanks', forge('   {}')],
    ['a deep nesting', forge(`${'['.repeat(100_000)}${']'.repeat(100_000)}`)],
    ['a tensor that is a number', forge({ a: 3 })],
    ['a tensor that is null', forge({ a: null })],
    ['a tensor that is a list', forge({ a: [] })],
    ['an unknown dtype', forge({ a: entry('F31', [1], 0, 4) }, 4)],
    ['a dtype of the prototype', forge({ a: entry('constructor', [1], 0, 4) }, 4)],
    ['a dtype that is a number', forge({ a: entry(5, [1], 0, 4) }, 4)],
    ['no dtype', forge({ a: { shape: [1], data_offsets: [0, 4] } }, 4)],
    ['no shape', forge({ a: { dtype: 'F32', data_offsets: [0, 4] } }, 4)],
    ['no offsets', forge({ a: { dtype: 'F32', shape: [1] } }, 4)],
    ['a negative size', forge({ a: entry('F32', [-1, -1], 0, 4) }, 4)],
    ['a fractional size', forge({ a: entry('F32', [0.5, 2], 0, 4) }, 4)],
    ['a size that is text', forge({ a: entry('F32', ['1'], 0, 4) }, 4)],
    ['sizes whose product overflows to the right number', forge({ a: entry('U8', [2 ** 32, 2 ** 32], 0, 0) })],
    ['sizes beyond 2^53', forge({ a: entry('U8', [2 ** 53, 0], 0, 0) })],
    ['a shape larger than the bytes', forge({ a: entry('F32', [2], 0, 4) }, 4)],
    ['a shape smaller than the bytes', forge({ a: entry('F32', [1], 0, 8) }, 8)],
    ['offsets the wrong way round', forge({ a: entry('F32', [1], 4, 0) }, 4)],
    ['negative offsets', forge({ a: entry('F32', [1], -4, 0) }, 4)],
    ['one offset', forge({ a: { dtype: 'F32', shape: [1], data_offsets: [0] } }, 4)],
    ['three offsets', forge({ a: { dtype: 'F32', shape: [1], data_offsets: [0, 4, 8] } }, 8)],
    ['fractional offsets', forge({ a: entry('F32', [1], 0.5, 4.5) }, 8)],
    ['offsets beyond the file', forge({ a: entry('F32', [1], 0, 4), b: entry('F32', [1], 4, 8) }, 4)],
    ['a huge tensor in a small file', forge({ a: entry('F32', [2 ** 40], 0, 2 ** 42) }, 4)],
    ['two tensors on the same bytes', forge({ a: sound, b: sound }, 4)],
    ['two tensors that overlap', forge({ a: entry('F32', [2], 0, 8), b: entry('F32', [2], 4, 12) }, 12)],
    ['a gap at the start', forge({ a: entry('F32', [1], 4, 8) }, 8)],
    ['a gap between', forge({ a: sound, b: entry('F32', [1], 8, 12) }, 12)],
    ['bytes after the end', forge({ a: sound }, 8)],
    ['bytes missing', forge({ a: sound }, 3)],
    ['data without tensors', forge({}, 8)],
    ['a tensor twice', forge(`{"a":${JSON.stringify(sound)},"a":${JSON.stringify(sound)}}`, 4)],
    ['a shape twice', forge('{"a":{"dtype":"F32","shape":[2],"shape":[1],"data_offsets":[0,4]}}', 4)],
    ['the same name in two spellings', forge(`{"a":${JSON.stringify(sound)},"\\u0061":${JSON.stringify(sound)}}`, 4)],
    ['metadata twice', forge('{"__metadata__":{"a":"1"},"__metadata__":{"a":"2"}}')],
    ['a metadata key twice', forge('{"__metadata__":{"a":"1","a":"2"}}')],
    ['half a character', forge('{"__metadata__":{"a":"\\ud800"}}')],
    ['a size of 2^63', forge('{"a":{"dtype":"U8","shape":[9223372036854775808,0],"data_offsets":[0,0]}}')],
    ['a size with an exponent', forge('{"a":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}', 4)],
    ['nothing, in a shape whose strides overflow', forge({ a: entry('U8', [0, 2 ** 40, 2 ** 40], 0, 0) })],
    ['a million dimensions', forge({ a: entry('U8', new Array(1e6).fill(1), 0, 1) }, 1)],
    ['half a byte', forge({ a: entry('F4', [3], 0, 1) }, 1)],
    ['junk nested in a tensor', forge(`{"a":{"junk":${'['.repeat(1e6)}`)],
    ['a header of 120 MB', forge(Buffer.alloc(120e6, 0x20))],
    ['a header of 90 MB of brackets', forge(Buffer.concat([Buffer.from('{"a":{"b":'), Buffer.alloc(90e6, 0x5b)]))],
    ['a header of one text of 90 MB', forge(Buffer.concat([Buffer.from('{"'), Buffer.alloc(90e6, 0x61)]))],
    ['metadata that is a number', forge({ __metadata__: 5 })],
    ['metadata that is a list', forge({ __metadata__: ['a'] })],
    ['metadata of numbers', forge({ __metadata__: { a: 1 } })],
  ])('%s', async (name, bytes) => {
    const path = file(`${name.replaceAll(/\W/g, '-')}.safetensors`)
    writeFileSync(path, bytes)
    const begin = performance.now()
    const resident = process.resourceUsage().maxRSS
    const error = await loadSafetensors(path).then(
      () => null,
      (reason) => reason,
    )
    expect(performance.now() - begin).toBeLessThan(PATIENCE)
    expect((process.resourceUsage().maxRSS - resident) / 1024).toBeLessThan(200)
    expect(error).toBeInstanceOf(CheckpointError)
    expect(error).toMatchObject({ code: 'ERR_CHECKPOINT', file: path })
    expect(error.message).toContain(path)
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  test('what Python’s reader lets pass is read as it reads it', async () => {
    const path = file('lenient.safetensors')
    const read = async (bytes: Buffer) => {
      writeFileSync(path, bytes)
      return scope(async () =>
        Object.entries((await loadSafetensors(path)).tensors).map(([name, value]) => [name, value.ndim]),
      )
    }
    expect(await read(forge({ a: { ...sound, more: 1 } }, 4))).toEqual([['a', 1]])
    expect(await read(forge({ a: entry('F32', new Array(65).fill(1), 0, 4) }, 4))).toEqual([['a', 65]])
  })

  test('an error names the tensor', async () => {
    const path = file('named.safetensors')
    writeFileSync(path, forge({ 'layer.weight': entry('F31', [1], 0, 4) }, 4))
    await expect(loadSafetensors(path)).rejects.toThrow(expect.objectContaining({ tensor: 'layer.weight' }))
  })

  test('every way of cutting a sound file short', async () => {
    await scope(() => saveSafetensors(file('whole.safetensors'), { a: ones([3]), b: tensor([1, 2]) }, { k: 'v' }))
    const whole = readFileSync(file('whole.safetensors'))
    const before = await settledTensors()
    for (let length = 0; length < whole.length; length += 1) {
      writeFileSync(file('cut.safetensors'), whole.subarray(0, length))
      await expect(loadSafetensors(file('cut.safetensors')), `${length} bytes`).rejects.toBeInstanceOf(CheckpointError)
    }
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  test('every byte of a header changed: an error or a sound file, and no crash', async () => {
    await scope(() => saveSafetensors(file('whole.safetensors'), { a: ones([3]), b: tensor([1, 2]) }, { k: 'v' }))
    const whole = readFileSync(file('whole.safetensors'))
    const end = 8 + Number(whole.readBigUInt64LE(0))
    for (let at = 0; at < end; at += 1) {
      for (const value of [0, 0x22, 0x7b, 0x30, 0x39, 0xff]) {
        const bytes = Buffer.from(whole)
        bytes[at] = value
        writeFileSync(file('changed.safetensors'), bytes)
        await scope(async () => {
          const result = await loadSafetensors(file('changed.safetensors')).catch((error) => error)
          if (result instanceof Error) expect(result, `byte ${at} as ${value}`).toBeInstanceOf(CheckpointError)
        })
      }
    }
  })

  test('files that are none', async () => {
    for (const path of [file('absent.safetensors'), directory, file('absent/x.safetensors'), '']) {
      await expect(loadSafetensors(path), path).rejects.toThrow(
        expect.objectContaining({ name: 'CheckpointError', file: path }),
      )
    }
  })
})

describe('writing', () => {
  test('a file appears whole or not at all', async () => {
    const folder = file('writes')
    mkdirSync(folder)
    const path = join(folder, 'x.safetensors')
    writeFileSync(path, 'what was there before')
    const gone = ones([2])
    gone.dispose()
    await scope(async () => {
      await expect(saveSafetensors(path, { a: ones([2]), meta: zeros([2], { device: 'meta' }) })).rejects.toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }),
      )
      await expect(saveSafetensors(path, { a: ones([2]), gone })).rejects.toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }),
      )
      await expect(
        saveSafetensors(path, { a: ops.complex(ones([1]), ones([1])).to('complex128') }),
      ).rejects.toBeInstanceOf(CheckpointError)
      await expect(saveSafetensors(path, { __metadata__: ones([1]) })).rejects.toBeInstanceOf(CheckpointError)
      await expect(saveSafetensors(path, { a: 3 as never })).rejects.toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }),
      )
      await expect(saveSafetensors(path, { a: ones([1]) }, { k: 1 as never })).rejects.toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }),
      )
    })
    expect(readFileSync(path, 'utf8')).toBe('what was there before')
    expect(readdirSync(folder)).toEqual(['x.safetensors'])
  })

  test('where nothing can be written', async () => {
    await scope(async () => {
      for (const path of [file('absent/x.safetensors'), directory, '/proc/x.safetensors']) {
        await expect(saveSafetensors(path, { a: ones([1]) }), path).rejects.toBeInstanceOf(CheckpointError)
      }
    })
    expect(readdirSync(directory).filter((name) => name.includes('.tmp'))).toEqual([])
  })

  test('replaces a file, and data starts at a multiple of eight', async () => {
    const path = file('replaced.safetensors')
    await scope(async () => {
      await saveSafetensors(path, { a: ones([100]) })
      await saveSafetensors(path, { byte: tensor([true]), a: tensor([1.5]), b: tensor([2]) })
      const bytes = readFileSync(path)
      const length = Number(bytes.readBigUInt64LE(0))
      expect(length % 8).toBe(0)
      const header = JSON.parse(bytes.subarray(8, 8 + length).toString())
      // Wide elements first: each tensor is aligned for readers that map the file.
      expect(header).toEqual({
        b: { dtype: 'I64', shape: [1], data_offsets: [0, 8] },
        a: { dtype: 'F32', shape: [1], data_offsets: [8, 12] },
        byte: { dtype: 'BOOL', shape: [1], data_offsets: [12, 13] },
      })
    })
    expect(statSync(path).size).toBeLessThan(400)
  })

  test('the same tensors give the same bytes', async () => {
    await scope(async () => {
      const tensors = { b: ones([2]), a: arange(3) }
      await saveSafetensors(file('1.safetensors'), tensors, { k: 'v' })
      await saveSafetensors(file('2.safetensors'), tensors, { k: 'v' })
    })
    expect(readFileSync(file('1.safetensors'))).toEqual(readFileSync(file('2.safetensors')))
  })

  test('through a symbolic link, and with a long name', async () => {
    const target = file('target.safetensors')
    await scope(async () => {
      await saveSafetensors(target, { a: ones([1]) })
      symlinkSync(target, file('link.safetensors'))
      expect((await loadSafetensors(file('link.safetensors'))).tensors.a!.item()).toBe(1)
      const long = file(`${'n'.repeat(240)}.st`)
      await saveSafetensors(long, { a: ones([1]) })
      expect(existsSync(long)).toBe(true)
    })
  })

  test('many writers of one path', async () => {
    const path = file('many.safetensors')
    await scope(async () => {
      await Promise.all([1, 2, 3, 4].map((value) => saveSafetensors(path, { a: ones([1000]).mul(value) })))
      const values = new Set((await loadSafetensors(path)).tensors.a!.toArray() as number[])
      expect(values.size).toBe(1)
    })
    expect(readdirSync(directory).filter((name) => name.includes('.tmp'))).toEqual([])
  })
})
