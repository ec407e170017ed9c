import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { ConfigError, memoryStats, SummaryWriter, scope, tensor } from '../../lib/index.js'
import { crc32c, maskedCrc32c } from '../../lib/train/tensorboard.js'

const directory = mkdtempSync(join(tmpdir(), 'voxtorch-tensorboard-'))
afterAll(() => rmSync(directory, { recursive: true }))

/** The messages of a TFRecord file, their checksums checked. */
function records(path: string): Buffer[] {
  const bytes = readFileSync(path)
  const found: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at))
    expect(bytes.readUInt32LE(at + 8)).toBe(maskedCrc32c(bytes.subarray(at, at + 8)))
    const data = bytes.subarray(at + 12, at + 12 + length)
    expect(bytes.readUInt32LE(at + 12 + length)).toBe(maskedCrc32c(data))
    found.push(data)
    at += length + 16
  }
  return found
}

it('computes the checksums of RFC 3720 B.4', () => {
  expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa)
  expect(crc32c(new Uint8Array(32).fill(255))).toBe(0x62a8ab43)
  expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e)
  expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283)
})

it('writes the bytes that TensorBoard expects', () => {
  const writer = new SummaryWriter(join(directory, 'runs', 'one'))
  writer.addScalar('train/loss', 0.5, 300)
  writer.addScalar('negative', -1, -1)
  writer.flush()
  writer.close()
  expect(dirname(writer.path)).toBe(join(directory, 'runs', 'one'))
  expect(basename(writer.path)).toMatch(/^events\.out\.tfevents\.\d{10}\..+\.\d+\.\d+$/)
  const [version, scalar, negative, ...rest] = records(writer.path) as [Buffer, Buffer, Buffer]
  expect(rest).toEqual([])
  // Each event starts with field 1, the wall time.
  for (const event of [version, scalar, negative]) {
    expect(event[0]).toBe(0x09)
    expect(Math.abs(event.readDoubleLE(1) - Date.now() / 1000)).toBeLessThan(60)
  }
  expect(version.subarray(9)).toEqual(Buffer.concat([Buffer.from([0x1a, 13]), Buffer.from('brain.Event:2')]))
  expect(scalar.subarray(9).toString('hex')).toBe(
    `10ac02${'2a13'}${'0a11'}${'0a0a'}${Buffer.from('train/loss').toString('hex')}${'150000003f'}`,
  )
  expect(negative.subarray(9, 20).toString('hex')).toBe('10ffffffffffffffffff01')
})

it('writes text and histograms, and leaves no tensors', () => {
  using writer = new SummaryWriter(directory)
  writer.addText('note', 'ünïcode', 1)
  const before = memoryStats().liveTensors
  scope(() =>
    writer.addHistogram(
      'weights',
      tensor([
        [-1, 0],
        [0.5, Number.NaN],
      ]),
      2,
    ),
  )
  expect(memoryStats().liveTensors).toBe(before)
  const [, text, histogram] = records(writer.path) as [Buffer, Buffer, Buffer]
  expect(text.includes('ünïcode')).toBe(true)
  expect(histogram.includes('weights')).toBe(true)
})

it('refuses a step that is no number, and writing after close', () => {
  const writer = new SummaryWriter(directory)
  expect(() => writer.addScalar('loss', 1, 0.5)).toThrow(ConfigError)
  writer.close()
  writer.close()
  expect(() => writer.addScalar('loss', 1, 0)).toThrow(ConfigError)
  expect(() => writer.flush()).toThrow(ConfigError)
})

it('a disk that is full is a DataError that names the file', () => {
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-full-'))
  const library = new URL('../../dist/index.js', import.meta.url).href
  // Files of this process may have a few kilobytes: what comes then is what a full disk gives.
  const program = `
    import { SummaryWriter } from ${JSON.stringify(library)}
    const writer = new SummaryWriter(${JSON.stringify(folder)})
    try {
      for (let i = 0; i < 1e5; i++) writer.addScalar('x', i, i)
    } catch (error) {
      console.log(error.name, error.file === writer.path, error.message.includes('cannot be written'))
    }
    writer.close()`
  try {
    const args = ['-c', 'ulimit -f 16; exec "$0" "$@"', process.execPath, '--input-type=module', '-e', program]
    expect(spawnSync('sh', args, { encoding: 'utf8' }).stdout).toBe('DataError true true\n')
  } finally {
    rmSync(folder, { recursive: true })
  }
})
