import { execFileSync } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readSafetensorsHeader, saveSafetensorsSharded } from '../../lib/files/index.js'
import {
  arange,
  CheckpointError,
  type DType,
  DTypeError,
  inferenceMode,
  loadSafetensors,
  memoryStats,
  ones,
  saveSafetensors,
  scope,
  type Tensor,
  tensor,
  withDevice,
  zeros,
} from '../../lib/index.js'
import { fixturePath, settledTensors } from '../helpers.js'

let directory = ''
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'voxtorch-files-'))
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const file = (name: string) => join(directory, name)

const hex = (value: Tensor) =>
  scope(() => Buffer.from(value.reshape([-1]).view('uint8').dataSync() as Uint8Array).toString('hex'))
const python = fixturePath('data/safetensors/every-dtype.safetensors')
const expected = JSON.parse(readFileSync(fixturePath('data/safetensors/every-dtype.json'), 'utf8')) as Record<
  string,
  { dtype: DType; shape: number[]; hex: string }
>
const names = Object.keys(expected)

/** A file with this head, and so many bytes of data that say their own position. */
function forge(header: unknown, data: number, aligned = true): Buffer {
  const json = JSON.stringify(header)
  const text = Buffer.from(aligned ? json.padEnd(Math.ceil(json.length / 8) * 8) : json)
  const head = Buffer.alloc(8)
  head.writeBigUInt64LE(BigInt(text.length))
  return Buffer.concat([head, text, Uint8Array.from({ length: data }, (_, i) => i)])
}

describe('what Python wrote, bit for bit', () => {
  test.each([false, true])('every dtype, mmap: %s', (mmap) =>
    scope(async () => {
      const { tensors, metadata } = await loadSafetensors(python, { mmap })
      expect(metadata).toEqual({ größe: '"\n😀' })
      expect(Object.keys(tensors).sort()).toEqual([...names].sort())
      for (const name of names) {
        const { dtype, shape } = tensors[name]!
        expect({ dtype, shape, hex: hex(tensors[name]!) }, name).toEqual(expected[name])
      }
      expect(names).toContain('__proto__')
      expect(Object.getPrototypeOf(tensors)).toBeNull()
    }),
  )

  test('the head alone, and nothing is loaded', async () => {
    const before = await settledTensors()
    const { tensors, metadata } = await readSafetensorsHeader(python)
    expect(metadata).toEqual({ größe: '"\n😀' })
    const bytes = readFileSync(python)
    for (const name of names) {
      const { dtype, shape, offset, bytes: count } = tensors[name]!
      expect({ dtype, shape, hex: bytes.toString('hex', offset, offset + count) }, name).toEqual(expected[name])
    }
    expect(tensors.float8_e4m3fn!.format).toBe('F8_E4M3')
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  test('some names only', () =>
    scope(async () => {
      expect(Object.keys((await loadSafetensors(python, { names: ['int8', 'bool', 'int8'] })).tensors)).toEqual([
        'int8',
        'bool',
      ])
      const { tensors } = await loadSafetensors(python, {
        names: (name) => name.startsWith('float') && name.endsWith('4'),
      })
      expect(Object.keys(tensors)).toEqual(['float64'])
      await expect(loadSafetensors(python, { names: ['int8', 'nosuch'] })).rejects.toThrow(
        expect.objectContaining({ name: 'CheckpointError', file: python, tensor: 'nosuch' }),
      )
    }))

  test('dtypes of the format that libtorch has and voxtorch has not', () =>
    scope(async () => {
      const path = fixturePath('data/safetensors/without-dtype.safetensors')
      const { tensors } = await readSafetensorsHeader(path)
      expect(Object.entries(tensors).map(([name, { dtype, format }]) => [name, dtype, format])).toEqual([
        ['float32', 'float32', 'F32'],
        ['float8_e5m2fnuz', null, 'F8_E5M2FNUZ'],
        ['float8_e4m3fnuz', null, 'F8_E4M3FNUZ'],
        ['float8_e8m0fnu', null, 'F8_E8M0'],
        ['float4_e2m1fn_x2', null, 'F4'],
      ])
      const error = await loadSafetensors(path).catch((reason) => reason)
      expect(error).toBeInstanceOf(DTypeError)
      expect(error).toMatchObject({ file: path, tensor: 'float8_e5m2fnuz', dtype: 'F8_E5M2FNUZ' })
      expect(Object.keys((await loadSafetensors(path, { names: ['float32'] })).tensors)).toEqual(['float32'])
    }))

  test.each([false, true])('shards and their index, mmap: %s', (mmap) =>
    scope(async () => {
      const index = fixturePath('data/safetensors/sharded/model.safetensors.index.json')
      const { tensors, metadata } = await loadSafetensors(index, { mmap })
      expect(metadata).toEqual({ format: 'pt' })
      expect(Object.keys(tensors)).toHaveLength(9)
      expect(tensors['layers.2.ä\x7f']!.toArray()).toEqual([2, 3, 4, 5, 6, 7])
      expect(tensors.big!.sum().item()).toBe(780)
      const head = await readSafetensorsHeader(index)
      expect(head.tensors.big).toMatchObject({ dtype: 'bfloat16', shape: [40], bytes: 80 })
      const some = await loadSafetensors(index, { mmap, names: ['big', 'layers.0.w'] })
      expect(Object.keys(some.tensors)).toEqual(['layers.0.w', 'big'])
      await expect(loadSafetensors(index, { names: ['nosuch'] })).rejects.toThrow(
        expect.objectContaining({ name: 'CheckpointError', file: index, tensor: 'nosuch' }),
      )
    }),
  )
})

describe('copies and mappings', () => {
  test('a copy is its own; a mapping is private', () =>
    scope(async () => {
      const path = file('own.safetensors')
      await saveSafetensors(path, { a: arange(5).to('float32') })
      for (const mmap of [false, true]) {
        const { tensors } = await loadSafetensors(path, { mmap })
        tensors.a!.add_(1)
        expect(tensors.a!.toArray(), `mmap: ${mmap}`).toEqual([1, 2, 3, 4, 5])
        expect((await loadSafetensors(path, { mmap })).tensors.a!.toArray(), `mmap: ${mmap}`).toEqual([0, 1, 2, 3, 4])
      }
    }))

  test('a mapped file may be saved over, renamed over and removed', () =>
    scope(async () => {
      const path = file('over.safetensors')
      const many = 100_000
      await saveSafetensors(path, { a: ones([many]) })
      const { tensors } = await loadSafetensors(path, { mmap: true })
      await saveSafetensors(path, { a: tensors.a!, b: zeros([3]) }) // reads the mapping while it writes
      await saveSafetensors(path, { a: zeros([many]) })
      expect(tensors.a!.sum().item()).toBe(many)
      writeFileSync(file('other'), 'x')
      renameSync(file('other'), path)
      expect(tensors.a!.sum().item()).toBe(many)
      rmSync(path)
      expect(tensors.a!.sum().item()).toBe(many)
    }))

  test('the mapping ends with the last of its tensors', async () => {
    const path = file('ends.safetensors')
    await scope(() => saveSafetensors(path, { a: ones([10_000]), b: ones([10_000]) }))
    const mapped = () => readFileSync('/proc/self/maps', 'utf8').includes(path)
    const { tensors } = await loadSafetensors(path, { mmap: true })
    expect(mapped()).toBe(true)
    tensors.a!.dispose()
    expect(tensors.b!.sum().item()).toBe(10_000)
    expect(mapped()).toBe(true)
    tensors.b!.dispose()
    expect(mapped()).toBe(false)
  })

  test('mapped memory is not counted as memory that JavaScript holds', async () => {
    const path = file('counted.safetensors')
    await scope(() => saveSafetensors(path, { a: ones([1 << 20]) }))
    await settledTensors()
    const before = memoryStats()
    const copied = await loadSafetensors(path)
    expect(memoryStats().liveBytes - before.liveBytes).toBe(1 << 22)
    copied.tensors.a!.dispose()
    const mapped = await loadSafetensors(path, { mmap: true })
    expect(memoryStats().liveTensors - before.liveTensors).toBe(1)
    expect(memoryStats().liveBytes).toBe(before.liveBytes)
    mapped.tensors.a!.dispose()
  })

  test('tensors that start anywhere', () =>
    scope(async () => {
      const path = file('unaligned.safetensors')
      // Odd places for each.
      writeFileSync(
        path,
        forge(
          {
            pad: { dtype: 'U8', shape: [1], data_offsets: [0, 1] },
            wide: { dtype: 'I64', shape: [2], data_offsets: [1, 17] },
            narrow: { dtype: 'I16', shape: [1], data_offsets: [17, 19] },
          },
          19,
          false,
        ),
      )
      for (const mmap of [false, true]) {
        const { tensors } = await loadSafetensors(path, { mmap })
        expect(hex(tensors.wide!)).toBe('0102030405060708090a0b0c0d0e0f10')
        expect(tensors.narrow!.toArray()).toEqual([0x1211])
        tensors.wide!.add_(1)
      }
    }))

  test('a bool is true for every byte but 0', () =>
    scope(async () => {
      const path = file('bools.safetensors')
      writeFileSync(path, forge({ a: { dtype: 'BOOL', shape: [5], data_offsets: [0, 5] } }, 5))
      for (const mmap of [false, true]) {
        const { a } = (await loadSafetensors(path, { mmap })).tensors
        expect(hex(a!)).toBe('0001010101')
        expect(a!.sum().item()).toBe(4)
        expect(a!.nonzero().toArray()).toEqual([[1], [2], [3], [4]])
      }
      expect(readFileSync(path).at(-1)).toBe(4)
    }))

  test('large tensors, read by several threads in pieces', () =>
    scope(async () => {
      const path = file('large.safetensors')
      const given = { a: arange(3_000_001), b: arange(5_000_003, { dtype: 'int32' }), c: arange(7, { dtype: 'int8' }) }
      await saveSafetensors(path, given)
      for (const mmap of [false, true]) {
        const { tensors } = await loadSafetensors(path, { mmap })
        for (const [name, value] of Object.entries(given)) expect(tensors[name]!.equal(value), name).toBe(true)
      }
    }))

  test('the device: by name, by context, and where there is none', () =>
    scope(async () => {
      for (const load of [
        () => loadSafetensors(python, { device: 'meta' }),
        () => withDevice('meta', () => loadSafetensors(python)),
      ]) {
        const { tensors } = await load()
        expect(tensors.float64!.device).toBe('meta')
        expect(tensors.float64!.shape).toEqual([2, 3])
      }
      // A save does not follow the context.
      await withDevice('meta', () => saveSafetensors(file('meta.safetensors'), { a: ones([2], { device: 'cpu' }) }))
      expect((await loadSafetensors(file('meta.safetensors'))).tensors.a!.toArray()).toEqual([1, 1])
      await expect(loadSafetensors(python, { device: 'meta', mmap: true })).rejects.toThrow(
        expect.objectContaining({ name: 'ConfigError' }),
      )
      for (const options of [3, { mmap: 1 }, { names: 'a' }, { names: [1] }, { device: 'gpu' }] as never[]) {
        await expect(loadSafetensors(python, options)).rejects.toThrow(expect.objectContaining({ name: 'ConfigError' }))
      }
    }))

  test('what is loaded in inference mode may be trained outside', () =>
    scope(async () => {
      const { tensors } = await inferenceMode(() => loadSafetensors(python, { names: ['float32', 'scalar'] }))
      const x = ones([2, 3], { requiresGrad: true })
      await x.mul(tensors.scalar!).sum().backward()
      expect(x.grad).not.toBeNull()
    }))

  test('other work goes on while a file is read, and a scope frees what it read', async () => {
    const path = file('scope.safetensors')
    await scope(() => saveSafetensors(path, { a: ones([1 << 22]) }))
    const before = await settledTensors()
    await scope(async () => {
      let ticks = 0
      const timer = setInterval(() => {
        ticks += 1
      }, 1)
      for (let i = 0; i < 20; i += 1) await loadSafetensors(path)
      clearInterval(timer)
      expect(ticks).toBeGreaterThan(3)
    })
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})

describe('sizes', () => {
  test('a head of a hundred thousand tensors, and what is wrong at its end', async () => {
    const header: Record<string, unknown> = {}
    for (let i = 0; i < 100_000; i++) {
      header[`model.layers.${i}.weight`] = {
        dtype: 'F32',
        shape: [i % 2],
        data_offsets: [4 * (i >> 1), 4 * ((i + 1) >> 1)],
      }
    }
    writeFileSync(file('many'), forge(header, 200_000))
    const { tensors } = await readSafetensorsHeader(file('many'))
    expect(Object.keys(tensors).length).toBe(100_000)
    expect(tensors['model.layers.99999.weight']).toMatchObject({ dtype: 'float32', shape: [1], bytes: 4 })
    header.last = { dtype: 'F32', shape: ['x'], data_offsets: [0, 0] }
    writeFileSync(file('many'), forge(header, 200_000))
    await expect(readSafetensorsHeader(file('many'))).rejects.toThrow(/an integer below 2\^53 in the shape of "last"/)
  })

  test.each([
    ['0', 0],
    ['7', 7],
    ['999999999999999', 999999999999999],
    ['9007199254740991', 9007199254740991],
    ['00', null],
    ['01', null],
    ['9007199254740992', null],
    ['1.0', null],
    ['1e3', null],
    ['-1', null],
    ['+1', null],
    ['1x', null],
  ])('the number %s in a head', async (text, value) => {
    const json = `{"a":{"dtype":"U8","shape":[0,${text}],"data_offsets":[0,0]}}`
    const head = Buffer.alloc(8)
    head.writeBigUInt64LE(BigInt(json.length))
    writeFileSync(file('number'), Buffer.concat([head, Buffer.from(json)]))
    const read = readSafetensorsHeader(file('number'))
    if (value === null) await expect(read).rejects.toThrow(/expected an integer below 2\^53|expected a /)
    else if (value > 2 ** 47) await expect(read).rejects.toThrow(/impossible shape/)
    else expect((await read).tensors.a!.shape).toEqual([0, value])
  })

  test('6 GiB on the disk, one small tensor asked for', async () => {
    const path = file('sparse.safetensors')
    const half = 3 * 2 ** 30
    const header = forge(
      {
        a: { dtype: 'F32', shape: [half / 4], data_offsets: [0, half] },
        small: { dtype: 'I32', shape: [4], data_offsets: [half, half + 16] },
        b: { dtype: 'BF16', shape: [half / 2], data_offsets: [half + 16, 2 * half + 16] },
      },
      0,
    )
    writeFileSync(path, header)
    truncateSync(path, header.length + 2 * half + 16)
    try {
      const before = process.resourceUsage().maxRSS
      await scope(async () => {
        for (const options of [{ names: ['small'] }, { mmap: true }, { names: ['small'], mmap: true }]) {
          const { tensors } = await loadSafetensors(path, options)
          expect(tensors.small!.toArray()).toEqual([0, 0, 0, 0])
          if (tensors.b) expect(tensors.b.at(-1).item()).toBe(0)
        }
        expect(Object.keys((await readSafetensorsHeader(path)).tensors)).toEqual(['a', 'small', 'b'])
      })
      expect((process.resourceUsage().maxRSS - before) / 1024).toBeLessThan(300)
    } finally {
      rmSync(path)
    }
  })

  test('more than there is memory for', async () => {
    const path = file('huge.safetensors')
    const bytes = 2 ** 40
    const header = forge({ a: { dtype: 'U8', shape: [bytes], data_offsets: [0, bytes] } }, 0)
    writeFileSync(path, header)
    truncateSync(path, header.length + bytes)
    await expect(loadSafetensors(path)).rejects.toThrow(
      expect.objectContaining({ name: 'InsufficientMemoryError', file: path, bytes }),
    )
    await scope(async () => {
      const { tensors } = await loadSafetensors(path, { mmap: true })
      expect(tensors.a!.at(slice3).toArray()).toEqual([0, 0, 0])
    })
    rmSync(path)
  })
})
const slice3 = tensor([0, 5, 2 ** 40 - 1])

describe('files that are none', () => {
  test('a pipe, a device and a folder are refused, and nothing waits', async () => {
    const pipe = file('pipe.safetensors')
    execFileSync('mkfifo', [pipe])
    for (const path of [pipe, '/dev/zero', directory]) {
      for (const mmap of [false, true]) {
        await expect(loadSafetensors(path, { mmap }), path).rejects.toBeInstanceOf(CheckpointError)
      }
    }
    await expect(loadSafetensors('a\0b')).rejects.toThrow(expect.objectContaining({ name: 'ConfigError' }))
    await expect(saveSafetensors(file('a\0b'), {})).rejects.toThrow(expect.objectContaining({ name: 'ConfigError' }))
  })
})

describe('shards', () => {
  let before = 0
  beforeAll(async () => {
    before = await settledTensors()
  })

  const state = () => ({
    a: arange(6).to('float32'), // 24 bytes
    b: arange(4).to('float32'), // 16
    big: arange(40).to('bfloat16'), // 80
    c: arange(3).to('int64'), // 24
    ä: tensor([1.5]), // 4
  })

  test('split as Hugging Face does, with its index, and read back', () =>
    scope(async () => {
      const folder = file('split')
      mkdirSync(folder)
      const given = state()
      const path = await saveSafetensorsSharded(folder, given, { maxShardBytes: 60 })
      expect(path).toBe(join(folder, 'model.safetensors.index.json'))
      expect(readFileSync(path, 'utf8')).toBe(`{
  "metadata": {
    "total_size": 148
  },
  "weight_map": {
    "a": "model-00002-of-00003.safetensors",
    "b": "model-00002-of-00003.safetensors",
    "big": "model-00001-of-00003.safetensors",
    "c": "model-00003-of-00003.safetensors",
    "\\u00e4": "model-00003-of-00003.safetensors"
  }
}
`)
      const { tensors, metadata } = await loadSafetensors(path)
      expect(metadata).toEqual({ format: 'pt' })
      for (const [name, value] of Object.entries(given)) expect(tensors[name]!.equal(value), name).toBe(true)
    }))

  test('the next save leaves nothing of the one before', () =>
    scope(async () => {
      const folder = file('again')
      mkdirSync(folder)
      writeFileSync(join(folder, 'config.json'), '{}')
      writeFileSync(join(folder, 'model-of-mine.safetensors'), 'x')
      const own = ['config.json', 'model-of-mine.safetensors']
      await saveSafetensorsSharded(folder, state(), { maxShardBytes: 60 })
      expect(readdirSync(folder)).toHaveLength(own.length + 4)
      const single = await saveSafetensorsSharded(folder, state())
      expect(readdirSync(folder).sort()).toEqual([...own, 'model.safetensors'].sort())
      expect(Object.keys((await loadSafetensors(single)).tensors)).toHaveLength(5)
      await saveSafetensorsSharded(folder, state(), { maxShardBytes: 120, name: 'model' })
      expect(
        readdirSync(folder)
          .filter((name) => !own.includes(name))
          .sort(),
      ).toEqual([
        'model-00001-of-00002.safetensors',
        'model-00002-of-00002.safetensors',
        'model.safetensors.index.json',
      ])
    }))

  const entry = { dtype: 'U8', shape: [1], data_offsets: [0, 1] }
  test.each<[string, string]>([
    ['no JSON', 'hello'],
    ['a list', '[]'],
    ['nothing', ''],
    ['no weight_map', '{"metadata":{}}'],
    ['a weight_map that is a list', '{"weight_map":[]}'],
    ['a name twice', '{"weight_map":{"a":"1.safetensors","a":"1.safetensors"}}'],
    ['two weight_maps', '{"weight_map":{"a":"1.safetensors"},"weight_map":{}}'],
    ['a file that is a number', '{"weight_map":{"a":1}}'],
    ['a file above the folder', '{"weight_map":{"a":"../1.safetensors"}}'],
    ['a file anywhere', '{"weight_map":{"a":"/etc/passwd"}}'],
    ['the folder itself', '{"weight_map":{"a":"."}}'],
    ['a file with a name of a megabyte', `{"weight_map":{"a":"${'s'.repeat(1e6)}"}}`],
    ['a file that is not there', '{"weight_map":{"a":"2.safetensors"}}'],
    ['a tensor that is not in its file', '{"weight_map":{"b":"1.safetensors"}}'],
    ['deep junk', `{"metadata":${'{"a":'.repeat(1e6)}`],
    ['the index as its own shard', '{"weight_map":{"a":"x.safetensors.index.json"}}'],
  ])('an index with %s', async (_, text) => {
    const folder = mkdtempSync(file('index-'))
    const path = join(folder, 'x.safetensors.index.json')
    writeFileSync(path, text)
    writeFileSync(join(folder, '1.safetensors'), forge({ a: entry }, 1))
    const error = await loadSafetensors(path).catch((thrown: unknown) => thrown as Error)
    expect(error).toBeInstanceOf(CheckpointError)
    expect((error as Error).message.length).toBeLessThan(1000)
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  test('an index lists what is read', () =>
    scope(async () => {
      const folder = mkdtempSync(file('index-'))
      const path = join(folder, 'x.json')
      writeFileSync(path, '{"weight_map":{"a":"1.safetensors"}}')
      writeFileSync(join(folder, '1.safetensors'), forge({ a: entry, b: { ...entry, data_offsets: [1, 2] } }, 2))
      expect(Object.keys((await loadSafetensors(path)).tensors)).toEqual(['a'])
    }))
})

test('thousands of paths leave room for the names of options', () =>
  scope(async () => {
    const link = (i: number) => file(`n${i}.safetensors`)
    await saveSafetensors(link(0), { a: ones([1]) })
    for (let i = 0; i < 4200; i += 1) {
      await expect(saveSafetensors(`/nosuch/${i}.safetensors`, {})).rejects.toBeInstanceOf(CheckpointError)
    }
    // An option that nothing here has named yet.
    expect(ones([1, 4]).argsort({ dim: -1, descending: true }).shape).toEqual([1, 4])
    expect(() => ones([2, 2]).linalgVectorNorm({ ord: 3 })).not.toThrow()
  }))

test('null in the place of metadata stands for none, as in the safetensors package', async () => {
  const path = file('null-metadata.safetensors')
  const x = { dtype: 'U8', shape: [2], data_offsets: [0, 2] }
  writeFileSync(path, forge({ __metadata__: null, x }, 2))
  await scope(async () => {
    const { tensors, metadata } = await loadSafetensors(path)
    expect({ ...metadata }).toEqual({})
    expect(tensors.x?.toArray()).toEqual([0, 1])
  })
  for (const wrong of [0, false, [], 'null', { a: null }]) {
    writeFileSync(path, forge({ __metadata__: wrong, x }, 2))
    await expect(loadSafetensors(path), JSON.stringify(wrong)).rejects.toThrow(CheckpointError)
  }
})
