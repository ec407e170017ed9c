import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, describe, expect, it } from 'vitest'
import { readArchive } from '../../lib/files/index.js'
import { ConfigError, DataError, readPickle } from '../../lib/index.js'
import { PATIENCE } from '../patience.js'
import { difference, pythonCases } from './python-values.js'
import { attributes, makeTar } from './tar-maker.js'
import { makeZip } from './zip-maker.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-archive-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const path = join(folder, 'archive')

describe('readArchive', () => {
  for (const { name, file, value } of pythonCases('archive')) {
    it(`reads ${name}`, async () => {
      writeFileSync(path, file)
      const found = Object.create(null)
      for await (const entry of readArchive(path)) {
        found[entry.name] = new Uint8Array(await entry.bytes())
        expect(found[entry.name].length).toBe(entry.size)
      }
      expect(difference(found, value)).toBeUndefined()
    })

    it(`passes over entries of ${name} that nobody reads`, async () => {
      writeFileSync(path, file)
      const names: string[] = []
      for await (const entry of readArchive(path)) names.push(entry.name)
      expect(names).toContain('a.txt')
      for await (const entry of readArchive(path)) {
        let size = 0
        for await (const chunk of entry.stream()) size += chunk.length
        expect(size).toBe(entry.size)
        break
      }
    })
  }

  it('guards against more than is expected', async () => {
    writeFileSync(path, makeZip([{ name: 'a', data: Buffer.alloc(1000) }]))
    for await (const entry of readArchive(path)) await expect(entry.bytes(999)).rejects.toThrow(/at most 999/)
  })

  it('gives the bytes of an entry once, and in its turn', async () => {
    const two = ['a', 'b'].map((name) => ({ name, data: Buffer.alloc(1e6, name) }))
    const tar = Buffer.concat(two.map(({ name, data }) => makeTar(name, {}, data)))
    for (const file of [makeZip(two), tar, gzipSync(tar)]) {
      writeFileSync(path, file)
      for await (const entry of readArchive(path)) {
        expect(Buffer.from(await entry.bytes()).equals(Buffer.alloc(1e6, entry.name))).toBe(true)
        await expect(entry.bytes()).rejects.toThrow(DataError)
      }
    }
    const kept = readArchive(path)
    const [late, started] = [(await kept.next()).value, (await kept.next()).value]
    await expect(late.bytes()).rejects.toThrow(/read before the next one is requested/)
    const chunks = started.stream()
    await chunks.next()
    expect(await kept.next()).toMatchObject({ done: true })
    await expect(chunks.next()).rejects.toThrow(/read before the next one is requested/)
  })

  it('reads a hundred thousand attributes of all files once', async () => {
    writeFileSync(path, attributes())
    const start = performance.now()
    let count = 0
    for await (const { name } of readArchive(path)) count += Number(name === 'a')
    expect(count).toBe(3000)
    expect(performance.now() - start).toBeLessThan(PATIENCE)
  })

  it('refuses what is no path', async () => {
    await expect(readArchive(5 as never).next()).rejects.toThrow(ConfigError)
    await expect(readArchive(join(folder, 'none')).next()).rejects.toThrow(DataError)
  })
})

describe('a pickle in an archive', () => {
  const pickle = Buffer.from('](K\x01X\x02\0\0\0hie.', 'latin1')
  const value = [1, 'hi']

  it('is read from zip, stored and deflated', async () => {
    for (const deflate of [false, true]) {
      writeFileSync(
        path,
        makeZip([
          { name: 'other', data: Buffer.from('x') },
          { name: 'in/a.pkl', data: pickle, deflate },
        ]),
      )
      expect(await readPickle(path, { entry: 'in/a.pkl' })).toEqual(value)
    }
  })

  it('is read from tar, packed and not', async () => {
    for (const pack of [(bytes: Buffer) => bytes, gzipSync]) {
      writeFileSync(path, pack(makeTar('in/a.pkl', {}, pickle)))
      expect(await readPickle(path, { entry: 'in/a.pkl' })).toEqual(value)
    }
  })

  it('must be named, and be there', async () => {
    writeFileSync(path, makeZip([{ name: 'a.pkl', data: pickle }]))
    await expect(readPickle(path)).rejects.toThrow(/zip archive; name the pickle/)
    await expect(readPickle(path, { entry: 'b.pkl' })).rejects.toThrow(/no entry "b.pkl"/)
    const tgz = pythonCases('archive').find(({ name }) => name === 'tgz, pax')!
    writeFileSync(path, tgz.file)
    await expect(readPickle(path)).rejects.toThrow(/compressed tar archive; name the pickle/)
    await expect(readPickle(path, { entry: 'b.pkl' })).rejects.toThrow(/expected a file "b.pkl"/)
    await expect(readPickle(path, { entry: 'link' })).rejects.toThrow(/expected a file "link"/)
    const error = await readPickle(path, { entry: 'a.txt' }).catch((cause) => cause)
    expect(error).toMatchObject({ file: path, entry: 'a.txt', byte: 0 })
  })
})
