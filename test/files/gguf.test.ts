import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
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
    expectBits(dequantize(blocks.repeat([700, 1]), 12, [2100, 512]), values.repeat([700, 1]))
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
    ['version 1', 4, [1, 0, 0, 0], /version 1/],
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
    const path = broken(key('as.Q5_1') + 20, [20, 0, 0, 0]) // IQ4_NL has as many weights in a block, and fewer bytes
    const read = await readGguf(path)
    expect(read.tensors['as.Q5_1']?.type).toBe('IQ4_NL')
    await expect(read.load()).rejects.toThrow(DTypeError)
    await expect(read.load()).rejects.toThrow(/as\.Q5_1.*IQ4_NL/)
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

describe('saveGguf refuses', () => {
  const path = join(folder, 'never.gguf')
  it.each([
    ['rows that are no blocks', { w: ones([2, 33]) }, { type: 'Q8_0' }, /'?w'?.*33/],
    ['weights that are not finite', { w: tensor([Array(32).fill(Number.NaN)]) }, { type: 'Q4_0' }, /w.*nan/i],
    ['integers', { w: tensor([[1, 2]], { dtype: 'int64' }) }, {}, /int64/],
    ['five dimensions', { w: zeros([1, 1, 1, 1, 1]) }, {}, /5 dimensions/],
    ['values that are none', {}, { metadata: { a: Symbol('x') } }, /"a"/],
    ['a number beyond its type', {}, { metadata: { a: 300 }, metadataTypes: { a: 'uint8' } }, /"a".*uint8/],
    ['an unknown option', {}, { tpye: 'F16' }, /type/],
    ['an unknown type', {}, { type: 'Q4_K' }, /Q4_K/],
  ])('%s', async (_, tensors, options, says) => {
    await expect(saveGguf(path, tensors as never, options as never)).rejects.toThrow(says)
    expect(readdirSync(folder)).not.toContain('never.gguf')
  })
})
