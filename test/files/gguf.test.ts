import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { type GgufSaveType, readGguf, saveGguf } from '../../lib/files/index.js'
import { CheckpointError, DTypeError, ones, scope, type Tensor, tensor, zeros } from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { fixture, settledTensors, tensorsOf } from '../helpers.js'

const dequantize = op('voxtorch::gguf_dequantize') as (...values: unknown[]) => Tensor

interface Case {
  name: string
  code: number
  shape: number[]
  type: GgufSaveType
  places: Record<string, [number, number]>
}

const file = await fixture<Case>('files/gguf')
const folder = mkdtempSync(join(tmpdir(), 'voxtorch-gguf-'))
afterAll(() => rmSync(folder, { recursive: true }))

const bytesOf = (value: Tensor): Buffer =>
  Buffer.from((value.contiguous().view('uint8').toArray() as number[][]).flat(9))
const expectBits = (actual: Tensor, expected: Tensor) => {
  expect(actual.shape).toEqual(expected.shape)
  expect(actual.dtype).toBe(expected.dtype)
  expect(bytesOf(actual).equals(bytesOf(expected))).toBe(true)
}
const sample = join(folder, 'sample.gguf')
const contents = bytesOf(tensorsOf(file, 'file', 'in').file as Tensor)
writeFileSync(sample, contents)

describe("values are those of Python's gguf, to the bit", () => {
  const read = file.cases.filter(({ shape }) => shape)
  it.each(read)('$name', async ({ name, code, shape }) => {
    const { blocks } = tensorsOf(file, name, 'in') as { blocks: Tensor }
    const { values } = tensorsOf(file, name, 'out') as { values: Tensor }
    expectBits(dequantize(blocks, code, shape), values)
    for (const dtype of ['bfloat16', 'float16'] as const) {
      expectBits(dequantize(blocks, code, shape, { dtype }), values.to(dtype))
    }
  })

  it('all threads together', () => {
    const { blocks } = tensorsOf(file, 'Q4_K', 'in') as { blocks: Tensor }
    const { values } = tensorsOf(file, 'Q4_K', 'out') as { values: Tensor }
    expectBits(dequantize(blocks.repeat([1050, 1]), 12, [2100, 512]), values.repeat([1050, 1]))
  })

  it.each(file.cases.filter(({ type }) => type))('$name', async ({ name, type }) => {
    const { values } = tensorsOf(file, name, 'in') as { values: Tensor }
    const { blocks } = tensorsOf(file, name, 'out') as { blocks: Tensor }
    const path = join(folder, `${type}.gguf`)
    await saveGguf(path, { values }, { type })
    const { offset, bytes } = (await readGguf(path)).tensors.values!
    expect(
      readFileSync(path)
        .subarray(offset, offset + bytes)
        .equals(bytesOf(blocks)),
    ).toBe(true)
  })
})

describe('readGguf', () => {
  it('gives metadata, tokenizer and template', async () => {
    const { metadata, metadataTypes, architecture, version, chatTemplate, tokenizer } = await readGguf(sample)
    expect({ ...metadata }).toEqual({
      'general.architecture': 'llama',
      'general.name': 'a sample ü',
      'test.uint8': 200,
      'test.int8': -100,
      'test.uint16': 60000,
      'test.int16': -30000,
      'test.uint32': 2 ** 32 - 1,
      'test.int32': -(2 ** 31),
      'test.float32': Math.fround(0.1),
      'test.bool': true,
      'test.uint64': 2n ** 63n,
      'test.int64': -(2 ** 40),
      'test.float64': 0.1,
      'test.texts': ['one', '', 'drei ß'],
      'test.wholes': Int32Array.of(1, -2, 3),
      'test.reals': Float32Array.of(0.5, -1.5),
      'test.flags': [true, false],
      'tokenizer.chat_template': '{{ messages[0].content }}',
    })
    expect(metadataTypes['test.wholes']).toBe('int32[]')
    expect([architecture, version, chatTemplate]).toEqual(['llama', 3, '{{ messages[0].content }}'])
    expect({ ...tokenizer }).toEqual({})
  })

  it('gives tensors as Python reads them, mapped and not, and frees what it made', async () => {
    const expected = tensorsOf(file, 'file', 'out')
    const read = await readGguf(sample)
    const { places } = file.cases.find(({ name }) => name === 'file') as Case
    for (const [name, { offset, bytes }] of Object.entries(read.tensors)) expect([offset, bytes]).toEqual(places[name])
    const before = await settledTensors()
    for (const mmap of [false, true]) {
      await scope(async () => {
        const tensors = await read.load({ mmap })
        expect(Object.keys(tensors)).toEqual(Object.keys(read.tensors))
        for (const [name, value] of Object.entries(tensors)) expectBits(value.to('float32'), expected[name] as Tensor)
        expect(tensors['as.BF16']?.dtype).toBe('bfloat16')
        const some = await read.load({ names: (name) => name.endsWith('Q5_1'), dtype: 'bfloat16' })
        expect(Object.values(some).map(({ dtype }) => dtype)).toEqual(['bfloat16'])
        expect((await read.blocks('as.Q4_0')).shape).toEqual([4, 36])
      })
    }
    expect(await settledTensors()).toBe(before)
  })

  it('writes what it read, value for value', async () => {
    const read = await readGguf(sample)
    const path = join(folder, 'again.gguf')
    await saveGguf(path, await read.load(), {
      metadata: read.metadata,
      metadataTypes: read.metadataTypes,
      type: (name) => (name === 'as.Q5_1' ? 'F32' : (name.slice(3) as GgufSaveType)),
    })
    const again = await readGguf(path)
    expect({ ...again.metadata }).toEqual({ ...read.metadata })
    expect({ ...again.metadataTypes }).toEqual({ ...read.metadataTypes })
    const [a, b] = [await read.load(), await again.load()]
    for (const name of Object.keys(a)) expectBits(b[name] as Tensor, a[name] as Tensor)
  })
})

/** The sample with bytes replaced. */
function broken(at: number, bytes: number[] | Buffer): string {
  const path = join(folder, `broken-${at}.gguf`)
  const copy = Buffer.from(contents)
  Buffer.from(bytes).copy(copy, at)
  writeFileSync(path, copy)
  return path
}

describe('files that lie', () => {
  const u64 = (value: bigint) => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(value)
    return bytes
  }
  const key = (name: string) => contents.indexOf(name) + name.length
  it.each([
    ['another kind of file', 0, Buffer.from('GGML'), /'GGUF'/],
    ['version 1', 4, [1, 0, 0, 0], /expected version 2 or 3, got 1/],
    ['big-endian', 4, [0, 0, 0, 3], /big-endian/],
    ['tensors without end', 8, u64(2n ** 40n), /tensors/],
    ['keys without end', 16, u64(2n ** 62n), /keys/],
    ['a key without end', 24, u64(2n ** 33n), /key 1/],
    ['an unknown type of value', key('test.bool'), [77, 0, 0, 0], /test\.bool.*type 77/],
    ['a boolean of 9', key('test.bool') + 4, [9], /boolean/],
    ['an array without end', key('test.reals') + 8, u64(2n ** 50n), /elements/],
    ['a tensor of 9 dimensions', key('as.Q8_0'), [9, 0, 0, 0], /as\.Q8_0.*9 dimensions/],
    ['a tensor larger than memory', key('as.Q8_0') + 4, u64(2n ** 48n), /as\.Q8_0/],
    ['rows that are no blocks', key('as.Q8_0') + 4, u64(33n), /blocks of 32/],
    ['an unknown type of tensor', key('as.Q8_0') + 20, [99, 0, 0, 0], /type 99/],
    ['an offset between', key('as.Q8_0') + 24, u64(33n), /alignment/],
    ['an offset behind the end', key('as.Q8_0') + 24, u64(2n ** 40n), /as\.Q8_0.*ends/],
    ['tensors over each other', key('as.Q8_0') + 24, u64(0n), /overlap/],
  ])('%s', async (_, at, bytes, says) => {
    const error = await readGguf(broken(at, bytes)).catch((error) => error)
    expect(error).toBeInstanceOf(CheckpointError)
    expect(error.message).toMatch(says)
    expect(error.file).toContain('broken-')
  })

  it('cut anywhere', async () => {
    const path = join(folder, 'cut.gguf')
    for (const length of [0, 3, 20, 24, 31, 100, 500, 900, 1200, contents.length - 40]) {
      writeFileSync(path, contents.subarray(0, length))
      await expect(readGguf(path)).rejects.toThrow(CheckpointError)
    }
  })

  it('a type that is not read is refused by name when it is asked for', async () => {
    // One block of TQ1_0 in the place of four rows of 64.
    const path = broken(key('as.Q5_1') + 4, Buffer.concat([u64(256n), u64(1n), Buffer.of(34, 0, 0, 0)]))
    const read = await readGguf(path)
    expect(read.tensors['as.Q5_1']?.type).toBe('TQ1_0')
    await expect(read.load()).rejects.toThrow(DTypeError)
    await expect(read.load()).rejects.toThrow(/as\.Q5_1.*TQ1_0/)
    expect(Object.keys(await read.load({ names: ['as.F16'] }))).toEqual(['as.F16'])
  })

  it('one that changed since its head was read', async () => {
    const path = join(folder, 'changed.gguf')
    writeFileSync(path, contents)
    const read = await readGguf(path)
    writeFileSync(path, contents.subarray(0, contents.length - 100))
    await expect(read.load()).rejects.toThrow(/changed/)
  })
})

describe('a split model is read as one', async () => {
  const split = await fixture<{ name: string }>('files/gguf-split')
  /** The files of a case in a folder of their own, with some of them changed or left out. */
  function stored(name: string, tweak: (files: Record<string, Buffer>) => void = () => {}): string {
    const files = Object.fromEntries(
      Object.entries(tensorsOf(split, name, 'in')).map(([file, bytes]) => [file, bytesOf(bytes)]),
    )
    tweak(files)
    const place = mkdtempSync(join(folder, 'split-'))
    for (const [file, bytes] of Object.entries(files)) writeFileSync(join(place, file), bytes)
    return place
  }
  const CASES = [
    ['two each', 3],
    ['metadata alone first', 4],
  ] as const
  it.each(CASES)('%s: by its first file and by its folder, mapped and not', async (name, count) => {
    const place = stored(name)
    const expected = tensorsOf(split, name, 'out')
    for (const path of [place, join(place, `model-00001-of-0000${count}.gguf`)]) {
      const file = await readGguf(path)
      expect(file.paths.map((one) => one.slice(-14))).toEqual(
        Array.from({ length: count }, (_, i) => `${String(i + 1).padStart(5, '0')}-of-0000${count}.gguf`.slice(-14)),
      )
      expect({ ...file.metadata }).toEqual({
        'general.architecture': 'llama',
        'general.name': 'a split sample',
        'test.texts': ['one', 'two'],
      })
      for (const mmap of [false, true]) {
        await scope(async () => {
          const tensors = await file.load({ mmap })
          expect(Object.keys(tensors).sort()).toEqual(Object.keys(expected).sort())
          for (const [key, value] of Object.entries(tensors)) expectBits(value, expected[key] as Tensor)
        })
      }
      expect((await file.blocks('blk.3.weight')).shape).toEqual([2, 34])
    }
  })

  const first = 'model-00001-of-00003.gguf'
  const second = 'model-00002-of-00003.gguf'
  it.each([
    ['a shard is missing', first, (files) => delete files[second], /00002-of-00003\.gguf: it cannot be opened/],
    ['not the first', second, () => {}, /file 2 of a model in 3\. Name the first: .*00001-of-00003\.gguf/],
    ['a shard in the place of another', first, (files) => (files[second] = files[first]!), /expected file 2 of 3/],
    [
      'another name',
      'renamed.gguf',
      (files) => (files['renamed.gguf'] = files[first]!),
      /name must end in -00001-of-00003\.gguf/,
    ],
    [
      'a tensor twice',
      first,
      (files) => {
        const copy = Buffer.from(files[second]!)
        copy.write('blk.0', copy.indexOf('blk.2'))
        files[second] = copy
      },
      /"blk\.0\.weight" is in an earlier file too/,
    ],
    [
      'fewer tensors than it says',
      first,
      (files) => {
        const copy = Buffer.from(files[first]!)
        copy[copy.indexOf('split.tensors.count') + 'split.tensors.count'.length + 4] = 9
        files[first] = copy
      },
      /have 5 tensors, and split\.tensors\.count says 9/,
    ],
  ] as [string, string, (files: Record<string, Buffer>) => unknown, RegExp][])('%s', async (_, name, tweak, says) => {
    const error = await readGguf(join(stored('two each', tweak), name)).catch((error) => error)
    expect(error).toBeInstanceOf(CheckpointError)
    expect(error.message).toMatch(says)
  })

  it('big-endian files are refused by name', async () => {
    const path = join(folder, 'big.gguf')
    writeFileSync(path, bytesOf(tensorsOf(split, 'big-endian', 'in').file as Tensor))
    const error = await readGguf(path).catch((error) => error)
    expect(error).toBeInstanceOf(CheckpointError)
    expect(error.message).toMatch(/big\.gguf: this is a big-endian GGUF file.*gguf-convert-endian/)
  })
})

describe('what metadata claim is bounded before it is read', () => {
  const u32 = (value: number) => {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(value)
    return bytes
  }
  const u64 = (value: number) => Buffer.concat([u32(value), u32(0)])
  const [BOOL, STRING, ARRAY] = [7, 8, 9]
  const headOf = (type: number, count: number) => {
    const name = Buffer.from('many')
    return Buffer.concat([
      ...[Buffer.from('GGUF'), u32(3), u64(0), u64(1), u64(name.length), name],
      ...[u32(ARRAY), u32(type), u64(count)],
    ])
  }
  it.each([
    ['booleans', BOOL, 1, 4_194_305],
    ['texts', STRING, 8, 4_194_305],
    ['arrays within arrays', ARRAY, 12, 65_537],
  ])('%s', async (what, type, least, count) => {
    const path = join(folder, 'many.gguf')
    const write = (items: number) =>
      writeFileSync(path, Buffer.concat([headOf(type, items), Buffer.alloc(least * items)]))
    write(count)
    const error = await readGguf(path).catch((error) => error)
    expect(error).toBeInstanceOf(CheckpointError)
    expect(error.message).toMatch(/"many".*the most that are read/)
    expect(error.message).toContain(what === 'arrays within arrays' ? what : 'texts and booleans')
    // Nothing is built for them: the array's claim stands in the first bytes, and no more of the file is read.
    writeFileSync(path, headOf(type, count))
    truncateSync(path, least * count + 1000)
    await expect(readGguf(path)).rejects.toThrow(/the most that are read/)
    write(1000)
    expect((await readGguf(path)).metadata.many).toHaveLength(1000)
  })
})

describe('saveGguf refuses', () => {
  const path = join(folder, 'never.gguf')
  it.each([
    ['rows that are no blocks', { w: ones([2, 33]) }, { type: 'Q8_0' }, /'?w'?.*33/],
    ['weights that are not finite', { w: tensor([Array(32).fill(Number.NaN)]) }, { type: 'Q4_0' }, /w.*nan/i],
    ['integers', { w: tensor([[1, 2]], { dtype: 'int64' }) }, {}, /int64/],
    ['five dimensions', { w: zeros([1, 1, 1, 1, 1]) }, {}, /at most 4 dimensions .*, got 5/],
    ['values that are none', {}, { metadata: { a: Symbol('x') } }, /"a"/],
    ['a number beyond its type', {}, { metadata: { a: 300 }, metadataTypes: { a: 'uint8' } }, /"a".*uint8/],
    ['an unknown option', {}, { tpye: 'F16' }, /type/],
    ['an unknown type', {}, { type: 'Q4_K' }, /Q4_K/],
  ])('%s', async (_, tensors, options, says) => {
    await expect(saveGguf(path, tensors as never, options as never)).rejects.toThrow(says)
    expect(readdirSync(folder)).not.toContain('never.gguf')
  })
})
