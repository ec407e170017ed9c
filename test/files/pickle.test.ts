import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, describe, expect, it } from 'vitest'
import type { ReadPickleOptions } from '../../lib/files/index.js'
import { LazyTensor } from '../../lib/files/index.js'
import { DataError, isTensor, memoryStats, readPickle, scope, type Tensor } from '../../lib/index.js'
import { settledTensors } from '../helpers.js'
import { difference, pythonCases } from './python-values.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-pickle-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let files = 0
function fileOf(bytes: Uint8Array): string {
  files += 1
  const path = join(folder, `${files}.pkl`)
  writeFileSync(path, bytes)
  return path
}

const caseNamed = (name: string) => pythonCases('pickle-protocols').find((one) => one.name === name)!

describe('equal to CPython', () => {
  for (const name of ['pickle-protocols', 'pickle-instructions', 'pickle-records', 'pickle-python2', 'pickle-random']) {
    it(`reads ${name} value by value`, async () => {
      const wrong: string[] = []
      const cases = pythonCases(name)
      const before = await settledTensors()
      for (const { name: label, file, value, encoding, records } of cases) {
        await scope(async () => {
          const options = { ...(encoding !== undefined && { encoding }), ...(records !== undefined && { records }) }
          const found = difference(await readPickle(fileOf(file), options as ReadPickleOptions), value)
          if (found !== undefined) wrong.push(`${label}: ${found}`)
        })
      }
      expect(wrong).toEqual([])
      expect(cases.length).toBeGreaterThan(9)
      expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
    })
  }

  it('reads the same through gzip', async () => {
    for (const { name, file, value } of pythonCases('pickle-protocols').filter(({ name }) =>
      /bytes|long|torch|text/.test(name),
    )) {
      await scope(async () => {
        expect(difference(await readPickle(fileOf(gzipSync(file))), value), name).toBeUndefined()
      })
    }
  })
})

describe('what is one object stays one object', () => {
  const read = <T>(text: string) => readPickle<T>(fileOf(Buffer.from(text, 'latin1')))

  it('a list in itself', async () => {
    const list = await read<unknown[]>(']q\0h\0a.')
    expect(list).toHaveLength(1)
    expect(list[0]).toBe(list)
  })

  it('a dict in itself, and in a tuple in it', async () => {
    const dict = await read<{ self: unknown; pair: unknown[] }>('}q\0(X\x04\0\0\0selfh\0X\x04\0\0\0pairh\0h\0\x86u.')
    expect(dict.self).toBe(dict)
    expect(dict.pair[0]).toBe(dict)
    expect(dict.pair[1]).toBe(dict)
  })

  it('a tuple in its own list', async () => {
    // What CPython writes for t = ([],); t[0].append(t) in protocol 2.
    const tuple = await read<unknown[][]>('\x80\x02]q\0h\0\x85q\x01a0h\x01.')
    expect(tuple[0]![0]).toBe(tuple)
  })

  it('an array under two names', async () => {
    const { file } = caseNamed('array <f4, protocol 2')
    const twice = Buffer.concat([file.subarray(0, -1), Buffer.from('2\x86.', 'latin1')])
    await scope(async () => {
      const [one, other] = await readPickle<Tensor[]>(fileOf(twice))
      expect(isTensor(one)).toBe(true)
      expect(one).toBe(other)
    })
  })
})

describe('lazy arrays', () => {
  const { file, value } = caseNamed('array long, protocol 5')

  it('leaves numbers in the file until they are read', async () => {
    const before = await settledTensors()
    const lazy = await readPickle<LazyTensor>(fileOf(file), { arrays: 'lazy' })
    expect(lazy).toBeInstanceOf(LazyTensor)
    expect([lazy.dtype, lazy.shape]).toEqual(['uint8', [300, 300]])
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
    await scope(async () => expect(difference(await lazy.read(), value)).toBeUndefined())
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('notices that the file has changed', async () => {
    const path = fileOf(file)
    const long = await readPickle<LazyTensor>(path, { arrays: 'lazy' })
    writeFileSync(path, Buffer.concat([file, Buffer.alloc(1)]))
    await expect(long.read()).rejects.toThrow(DataError)
  })
})

describe('errors', () => {
  it('names the file, the byte and the global', async () => {
    const path = fileOf(Buffer.from('(cposix\nsystem\n.'))
    const error = await readPickle(path).catch((cause) => cause)
    expect(error).toBeInstanceOf(DataError)
    expect(error).toMatchObject({ file: path, byte: 1, global: 'posix.system', code: 'ERR_DATA' })
    expect(error.message).toContain('posix.system')
  })

  it('wants to know what Python 2 strings are', async () => {
    const path = fileOf(Buffer.from('U\x01\xe9.', 'latin1'))
    await expect(readPickle(path)).rejects.toThrow(/Python 2 string.*encoding: 'latin1'/)
    expect(await readPickle(path, { encoding: 'latin1' })).toBe('é')
    expect(await readPickle(path, { encoding: 'bytes' })).toEqual(Uint8Array.of(0xe9))
  })

  it('refuses wrong options', async () => {
    const wrong = (options: unknown) => readPickle('x.pkl', options as ReadPickleOptions)
    await expect(wrong({ encoding: 'utf8' })).rejects.toThrow('encoding')
    await expect(wrong({ arrays: 'typed' })).rejects.toThrow('arrays')
    await expect(wrong({ records: 'A' })).rejects.toThrow('records')
    await expect(wrong({ entry: 5 })).rejects.toThrow('entry')
    await expect(wrong(null)).rejects.toThrow('options')
    await expect(readPickle(5 as never)).rejects.toThrow('path')
    await expect(readPickle(folder)).rejects.toThrow(/expected a regular file/)
    await expect(readPickle(join(folder, 'none'))).rejects.toThrow(DataError)
  })
})
