import { execFileSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-big-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const latin1 = (text: string) => Buffer.from(text, 'latin1')
const wide = (value: number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

/** A file of which only the given parts are written; the rest are holes, which read as zeros and take no disk. */
function sparse(name: string, parts: readonly (Buffer | number)[]): string {
  const path = join(folder, name)
  const file = openSync(path, 'w')
  let position = 0
  for (const part of parts) {
    if (typeof part === 'number') position += part
    else position += writeSync(file, part, 0, part.length, position)
  }
  closeSync(file)
  return path
}

const array = (size: number) => [
  latin1(`cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(L${size}L\nt`),
  latin1("cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\n\x8e"),
  wide(size),
]

const BIG = 5 * 2 ** 30

function bigPickle(): string {
  return sparse('big.pkl', [
    latin1('\x80\x04}(\x8c\x03big'),
    ...array(BIG),
    BIG - 1,
    latin1('\x07tb\x8c\x05small'),
    ...array(100_000),
    latin1('\x05'),
    99_998,
    latin1('\x06tb\x8c\x05bytesC\x03abcu.'),
  ])
}

const HUGE = 6 * 2 ** 30
const LONG = 0xffffffff

/** A zip64 archive as torch.save writes it: 'big' of 6 GiB, 'small' of 3 bytes. */
function bigTorch(): string {
  const tensor = (name: string, key: string, size: number) =>
    `X${String.fromCharCode(name.length)}\0\0\0${name}ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nByteStorage\nS'${key}'\nS'cpu'\nL${size}L\ntQI0\n(L${size}L\nt(I1\ntI00\nNtR`
  const pickle = latin1(`\x80\x02}(${tensor('big', '0', HUGE)}${tensor('small', '1', 3)}u.`)
  const entries = [
    { name: 'a/data.pkl', parts: [pickle], size: pickle.length },
    { name: 'a/data/0', parts: [HUGE], size: HUGE },
    { name: 'a/data/1', parts: [latin1('\x01\x02\x03')], size: 3 },
  ]
  const parts: (Buffer | number)[] = []
  const directory: Buffer[] = []
  let offset = 0
  for (const { name, parts: data, size } of entries) {
    const wideFields = Buffer.concat([latin1('\x01\0\x18\0'), wide(size), wide(size), wide(offset)])
    const local = Buffer.alloc(30)
    local.writeUInt32LE(0x04034b50, 0)
    local.writeUInt32LE(LONG, 18)
    local.writeUInt32LE(LONG, 22)
    local.writeUInt16LE(name.length, 26)
    local.writeUInt16LE(20, 28)
    parts.push(local, latin1(name), Buffer.concat([latin1('\x01\0\x10\0'), wide(size), wide(size)]), ...data)
    const record = Buffer.alloc(46)
    record.writeUInt32LE(0x02014b50, 0)
    for (const field of [20, 24, 42]) record.writeUInt32LE(LONG, field)
    record.writeUInt16LE(name.length, 28)
    record.writeUInt16LE(wideFields.length, 30)
    // The pickle alone is read through its checksum, and only where it is packed.
    directory.push(record, latin1(name), wideFields)
    offset += 30 + name.length + 20 + size
  }
  const length = directory.reduce((sum, part) => sum + part.length, 0)
  const end64 = Buffer.concat([
    latin1('PK\x06\x06'),
    wide(44),
    Buffer.alloc(12),
    wide(3),
    wide(3),
    wide(length),
    wide(offset),
  ])
  const locator = Buffer.concat([latin1('PK\x06\x07'), Buffer.alloc(4), wide(offset + length), latin1('\x01\0\0\0')])
  const end = Buffer.concat([latin1('PK\x05\x06\0\0\0\0\x03\0\x03\0'), Buffer.alloc(8, 0xff), Buffer.alloc(2)])
  return sparse('big.pt', [...parts, ...directory, end64, locator, end])
}

function read(kind: string, path: string): { above: number; value: number[] } {
  const script = fileURLToPath(new URL('./modules/read-big.mjs', import.meta.url))
  return JSON.parse(execFileSync(process.execPath, ['--expose-gc', script, kind, path], { encoding: 'utf8' }))
}

const MIB = 2 ** 20

describe('files larger than 4 GiB', () => {
  it('a pickle of 5 GiB: a small array behind the large one', () => {
    const { above, value } = read('pickle', bigPickle())
    expect([value.length, value[0], value[99_999]]).toEqual([100_000, 5, 6])
    expect(above / MIB).toBeLessThan(300)
  })

  it('a torch file of 6 GiB: one small tensor by name', () => {
    const { above, value } = read('torch', bigTorch())
    expect(value).toEqual([1, 2, 3])
    expect(above / MIB).toBeLessThan(300)
  })

  it('a torch file of 6 GiB, mapped as a whole', () => {
    const { above, value } = read('torch-mmap', bigTorch())
    expect(value).toEqual([1, 2, 3])
    expect(above / MIB).toBeLessThan(300)
  })
})
