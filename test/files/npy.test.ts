import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type NpyValue, readNpy, readNpz, saveNpy, saveNpz } from '../../lib/files/index.js'
import {
  arange,
  type Complex,
  DataError,
  isTensor,
  memoryStats,
  ones,
  scope,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { fixturePath, settledTensors } from '../helpers.js'
import { PATIENCE } from '../patience.js'

let directory = ''
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'voxtorch-npy-'))
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

import { makeZip } from './zip-maker.js'

const file = (name: string) => join(directory, name)
const data = (name: string) => fixturePath(`data/${name}`)

interface Described {
  dtype: string
  shape: number[]
  values: (string | [string, string])[]
}
const described = JSON.parse(readFileSync(data('npy.json'), 'utf8')) as Record<string, Described>

const number = (text: string): number =>
  text === 'inf'
    ? Number.POSITIVE_INFINITY
    : text === '-inf'
      ? Number.NEGATIVE_INFINITY
      : text === 'nan'
        ? Number.NaN
        : Number(text)

function shapeOf(value: unknown): number[] {
  return Array.isArray(value) ? [value.length, ...shapeOf(value[0])] : []
}

function expectValue(name: string, value: NpyValue): void {
  const { dtype, shape, values } = described[name]!
  if (!isTensor(value)) {
    expect(dtype, name).toMatch(/^(str|bytes)/)
    expect(shapeOf(value), name).toEqual(shape)
    expect([value].flat(9), name).toEqual(values)
    return
  }
  expect({ dtype: value.dtype, shape: value.shape }, name).toEqual({ dtype, shape })
  const got = [value.toArray()].flat(9) as (number | bigint | boolean | Complex)[]
  const wanted = values.map((text) => {
    if (typeof text !== 'string') return { re: number(text[0]), im: number(text[1]) }
    if (text === 'True' || text === 'False') return text === 'True'
    return /^-?\d{16,}$/.test(text) ? BigInt(text) : number(text)
  })
  expect(
    got.map((one) => (typeof one === 'bigint' || typeof one === 'number' ? String(one) : one)),
    name,
  ).toEqual(wanted.map((one) => (typeof one === 'bigint' || typeof one === 'number' ? String(one) : one)))
}

describe('what numpy wrote', () => {
  test('every dtype, both byte orders, both memory orders, texts', () =>
    scope(async () => {
      const values = await readNpz(data('npy.npz'))
      expect(Object.keys(values)).toEqual(Object.keys(described))
      expect(Object.keys(values).length).toBeGreaterThan(35)
      for (const [name, value] of Object.entries(values)) expectValue(name, value)
      expect((values.fortran as Tensor).strides).toEqual([1, 2, 6])
    }))

  test('a deflated archive', () =>
    scope(async () => {
      const values = await readNpz(data('npy-packed.npz'))
      expect(Object.keys(values)).toHaveLength(4)
      for (const [name, value] of Object.entries(values)) expectValue(name, value)
    }))

  test.each([1, 2, 3])('version %s of the format', (version) =>
    scope(async () => expectValue('<f4', await readNpy(data(`version${version}.npy`)))),
  )

  test('mapped', () =>
    scope(async () => {
      expectValue('<f4', await readNpy(data('version1.npy'), { mmap: true }))
    }))

  test.each([
    ['objects', /Python objects/],
    ['record', /records with named fields/],
    ['dates', /dates/],
    ['durations', /durations/],
    ['long-double', /no dtype here/],
    ['raw', /raw bytes/],
  ])('%s are refused', async (name, sentence) => {
    const path = data(`refused-${name}.npy`)
    const error = await readNpy(path).catch((reason) => reason)
    expect(error).toBeInstanceOf(DataError)
    expect(error).toMatchObject({ file: path, code: 'ERR_DATA' })
    expect(error.message).toMatch(sentence)
  })
})

describe('round trip', () => {
  const values = (): Record<string, Tensor> => ({
    float64: tensor(
      [
        [1.5, -2],
        [Number.NaN, 3],
      ],
      { dtype: 'float64' },
    ),
    float32: arange(5).to('float32'),
    float16: tensor([1.5, 2]).to('float16'),
    int64: tensor([2n ** 62n, -1n]),
    int8: tensor([-128, 127], { dtype: 'int8' }),
    uint64: tensor([2n ** 64n - 1n], { dtype: 'uint64' }),
    bool: tensor([true, false]),
    complex64: tensor([{ re: 1, im: -2 }]),
    complex128: tensor([{ re: 1, im: -2 }], { dtype: 'complex128' }),
    transposed: arange(6).reshape(2, 3).t(),
    scalar: tensor(0.25),
    empty: zeros([3, 0]),
    'größe/😀': tensor([7]),
    __proto__x: tensor([8]),
  })

  test('.npy and .npz', () =>
    scope(async () => {
      const given = values()
      await saveNpz(file('x.npz'), given)
      const back = await readNpz(file('x.npz'))
      expect(Object.keys(back)).toEqual(Object.keys(given))
      for (const [i, [name, value]] of Object.entries(given).entries()) {
        await saveNpy(file(`${i}.npy`), value)
        for (const got of [back[name] as Tensor, (await readNpy(file(`${i}.npy`))) as Tensor]) {
          expect({ dtype: got.dtype, shape: got.shape }).toEqual({ dtype: value.dtype, shape: value.shape })
          expect(got.toArray(), name).toEqual(value.toArray())
        }
      }
    }))

  test('byte for byte what numpy writes', () =>
    scope(async () => {
      const value = (await readNpy(data('version1.npy'))) as Tensor
      await saveNpy(file('same.npy'), value)
      expect(readFileSync(file('same.npy'))).toEqual(readFileSync(data('version1.npy')))
    }))

  test('leaves the counts as they were, and no other file', async () => {
    const before = await settledTensors()
    const x = ones([3])
    await saveNpz(file('counts.npz'), { x })
    await saveNpy(file('counts.npy'), x)
    const y = (await readNpy(file('counts.npy'))) as Tensor
    const { x: z } = (await readNpz(file('counts.npz'))) as { x: Tensor }
    expect(memoryStats().liveTensors - before).toBe(3)
    for (const value of [x, y, z]) value.dispose()
    await expect(readNpy(data('refused-raw.npy'))).rejects.toBeInstanceOf(DataError)
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
    expect(readdirSync(directory).filter((name) => name.includes('.tmp'))).toEqual([])
  })

  test('what cannot be written', () =>
    scope(async () => {
      const x = ones([1])
      await expect(saveNpy(file('x'), x.to('bfloat16'))).rejects.toMatchObject({ code: 'ERR_DTYPE', dtype: 'bfloat16' })
      await expect(saveNpz(file('x'), { x: x.to('float8_e5m2') })).rejects.toMatchObject({ code: 'ERR_DTYPE' })
      await expect(saveNpy(file('no/such'), x)).rejects.toMatchObject({ code: 'ERR_DATA', file: file('no/such') })
      await expect(saveNpy(file('x'), zeros([2], { device: 'meta' }))).rejects.toMatchObject({
        code: expect.stringMatching(/^ERR_/),
      })
      await expect(saveNpz(file('x'), { '\ud800': x })).rejects.toMatchObject({ code: 'ERR_CONFIG' })
      for (const value of [3, null, [1]] as never[]) {
        await expect(saveNpy(file('x'), value)).rejects.toMatchObject({ code: 'ERR_CONFIG' })
        await expect(saveNpz(file('x'), { value })).rejects.toMatchObject({ code: 'ERR_CONFIG' })
      }
    }))
})

/** A file with this head and so many bytes of data. */
function forge(head: string | Buffer, bytes = 0, { version = 1, length = head.length, minor = 0 } = {}): Buffer {
  const start = Buffer.alloc(version === 1 ? 10 : 12)
  start.write('\x93NUMPY', 'latin1')
  start[6] = version
  start[7] = minor
  if (version === 1) start.writeUInt16LE(length, 8)
  else start.writeUInt32LE(length, 8)
  return Buffer.concat([start, Buffer.from(head as string), Buffer.alloc(bytes)])
}
const head = (descr: string, shape: string, order = 'False') =>
  `{'descr': ${descr}, 'fortran_order': ${order}, 'shape': ${shape}, }\n`

describe('files that are not sound', () => {
  let before = 0
  beforeAll(async () => {
    before = await settledTensors()
  })

  test.each<[string, Buffer]>([
    ['nothing', Buffer.alloc(0)],
    ['another magic word', Buffer.from('\x93NUMPX\x01\0v\0', 'latin1')],
    ['an unknown version', forge(head("'<f4'", '(1,)'), 4, { version: 4 })],
    ['an unknown minor version', forge(head("'<f4'", '(1,)'), 4, { minor: 1 })],
    ['a head longer than the file', forge(head("'<f4'", '(1,)'), 4, { length: 60_000 })],
    ['a head of 4 GB', forge(head("'<f4'", '(1,)'), 4, { version: 2, length: 0xffffffff })],
    ['a head that ends early', forge(head("'<f4'", '(1,)'), 4, { length: 20 })],
    ['no dictionary', forge('hello')],
    ['a call in place of a value', forge(head("__import__('os').system('touch x')", '(1,)'), 4)],
    ['an escape', forge(head("'\\x3cf4'", '(1,)'), 4)],
    ['a key twice', forge(`{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (), }\n`, 4)],
    ['an unknown key', forge(`{'descr': '<f4', 'fortran_order': False, 'shape': (), 'x': 1}\n`, 4)],
    ['a key of the prototype', forge(`{'__proto__': '<f4', 'fortran_order': False, 'shape': ()}\n`, 4)],
    ['a key missing', forge(`{'descr': '<f4', 'shape': (), }\n`, 4)],
    ['text after the dictionary', forge(`${head("'<f4'", '()').trim()} {}\n`, 4)],
    ['an order that is no truth', forge(head("'<f4'", '(1,)', '1'), 4)],
    ['an unknown dtype', forge(head("'<q9'", '(1,)'), 9)],
    ['a dtype without a width', forge(head("'<f'", '(1,)'), 4)],
    ['a dtype of the prototype', forge(head("'constructor'", '(1,)'), 4)],
    ['a shape that is a list', forge(head("'<f4'", '[1]'), 4)],
    ['a shape that is a number', forge(head("'<f4'", '(1)'), 4)],
    ['a negative size', forge(head("'<f4'", '(-1,)'), 4)],
    ['a fractional size', forge(head("'<f4'", '(1.0,)'), 4)],
    ['a size of 2^63', forge(head("'<f4'", '(9223372036854775808,)'), 4)],
    ['a size beyond 2^53', forge(head("'<f4'", '(9007199254740993,)'), 4)],
    ['sizes whose product overflows to the right number', forge(head("'|u1'", '(4294967296, 4294967296)'))],
    ['nothing, in a shape whose strides overflow', forge(head("'|u1'", '(0, 1099511627776, 1099511627776)'))],
    ['100 dimensions', forge(head("'|u1'", `(${'1,'.repeat(100)})`), 1)],
    ['a huge array in a small file', forge(head("'<f4'", '(1099511627776,)'), 4)],
    ['a trillion empty texts', forge(head("'<U0'", '(1099511627776,)'))],
    ['texts in a trillion empty rows', forge(head("'<U1'", '(1099511627776, 0)'))],
    ['texts as wide as nothing is', forge(head("'<U999999999'", '(1,)'), 4)],
    ['a character that is none', Buffer.concat([forge(head("'<U1'", '(1,)')), Buffer.from([0, 0, 0x11, 0])])],
    ['bytes missing', forge(head("'<f4'", '(2,)'), 7)],
    ['bytes after the end', forge(head("'<f4'", '(2,)'), 9)],
    ['a bomb of brackets', forge(head("'<f4'", '('.repeat(60_000)), 4, { version: 2 })],
  ])('%s', async (name, bytes) => {
    const path = file(`${name.replaceAll(/\W/g, '-')}.npy`)
    writeFileSync(path, bytes)
    const begin = performance.now()
    const resident = process.resourceUsage().maxRSS
    const error = await readNpy(path).then(
      () => null,
      (reason) => reason,
    )
    expect(error).toBeInstanceOf(DataError)
    expect(error).toMatchObject({ code: 'ERR_DATA', file: path })
    expect(error.message).toContain(path)
    expect(performance.now() - begin).toBeLessThan(PATIENCE)
    expect((process.resourceUsage().maxRSS - resident) / 1024).toBeLessThan(200)
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  test('every way of cutting a sound file short', async () => {
    const whole = readFileSync(data('version1.npy'))
    for (let length = 0; length < whole.length; length += 1) {
      writeFileSync(file('cut.npy'), whole.subarray(0, length))
      await expect(readNpy(file('cut.npy')), `${length} bytes`).rejects.toBeInstanceOf(DataError)
    }
  })

  test('texts for a whole disk', async () => {
    const path = file('sparse.npy')
    const begin = forge(head("'<U4'", '(402653184,)'))
    writeFileSync(path, begin)
    truncateSync(path, begin.length + 16 * 402653184) // 6 GiB
    await expect(readNpy(path)).rejects.toBeInstanceOf(DataError)
    rmSync(path)
  })

  test('an archive of a hundred arrays of a million empty rows', async () => {
    const data = forge(head("'|S1'", '(1000000, 0)'))
    writeFileSync(file('rows.npz'), makeZip(Array.from({ length: 100 }, (_, i) => ({ name: `${i}.npy`, data }))))
    await expect(readNpz(file('rows.npz'))).rejects.toThrow(/"1\.npy".* of empty texts is larger than the file/)
  })

  test('an archive whose entry is not sound', async () => {
    const bytes = readFileSync(data('npy.npz'))
    bytes[bytes.indexOf('NUMPY')] = 0
    writeFileSync(file('broken.npz'), bytes)
    await expect(readNpz(file('broken.npz'))).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_DATA', file: file('broken.npz'), entry: '<i1.npy' }),
    )
    await expect(readNpz(data('version1.npy'))).rejects.toBeInstanceOf(DataError)
  })
})

test('an array of 6 GiB on the disk is mapped, not read', async () => {
  const path = file('sparse.npy')
  const text = head("'<f4'", '(1610612736,)')
  const begin = forge(`${text.trimEnd().padEnd(117)}\n`)
  writeFileSync(path, begin)
  truncateSync(path, begin.length + 4 * 1610612736)
  const resident = process.resourceUsage().maxRSS
  await scope(async () => {
    const value = (await readNpy(path, { mmap: true })) as Tensor
    expect(value.at(-1).item()).toBe(0)
  })
  expect((process.resourceUsage().maxRSS - resident) / 1024).toBeLessThan(300)
  rmSync(path)
})
