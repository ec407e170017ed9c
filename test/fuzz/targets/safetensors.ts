import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MemorySource, Place } from '../../../lib/files/byte-source.js'
import { loadFrom } from '../../../lib/files/safetensors/file.js'
import { CheckpointError, loadSafetensors, scope, type Tensor } from '../../../lib/index.js'
import type { Random } from '../random.js'
import type { FuzzTarget } from './target.js'

/** A file with this head and so many bytes of data. */
function file(header: unknown, data: number): Uint8Array {
  const text = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const head = Buffer.alloc(8)
  head.writeBigUInt64LE(BigInt(text.length))
  return Buffer.concat([head, text, Uint8Array.from({ length: data }, (_, i) => i)])
}

const sizes = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I8: 1, U8: 1, BOOL: 1, C64: 8, F8_E4M3: 1, F8_E8M0: 1, U16: 2 }

/** Tensors that fit, and sometimes something that does not. */
function generate(random: Random): Uint8Array {
  const header: Record<string, unknown> = {}
  if (random.chance(0.3)) header.__metadata__ = { format: 'pt', n: random.chance(0.1) ? 3 : 'x' }
  let offset = 0
  for (let i = random.below(6); i > 0; i -= 1) {
    const dtype = random.pick(Object.keys(sizes)) as keyof typeof sizes
    const shape = Array.from({ length: random.below(4) }, () => random.pick([0, 1, 2, 3, 5]))
    let bytes = shape.reduce((product, size) => product * size, sizes[dtype])
    if (random.chance(0.05)) bytes += random.pick([-1, 1, 8, 2 ** 31, 2 ** 53])
    const begin = offset + (random.chance(0.05) ? random.pick([-1, 1, 4, -offset]) : 0)
    if (random.chance(0.03)) shape.push(random.pick([-1, 0.5, 2 ** 31, 2 ** 53, 2 ** 63, 1e300]))
    header[random.pick(['a', 'b', 'weight', '__proto__', 'größe', '0', `t${i}`])] = {
      dtype,
      shape,
      data_offsets: [begin, begin + bytes],
    }
    offset += bytes
  }
  const text = JSON.stringify(header)
  return file(
    random.chance(0.5) ? text : text.padEnd(Math.ceil(text.length / 8) * 8),
    Math.max(0, Math.min(offset, 4096)),
  )
}

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-fuzz-safetensors-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
const path = join(folder, 'x.safetensors')

const bytesOf = (value: Tensor): Buffer => Buffer.from(value.reshape([-1]).view('uint8').dataSync() as Uint8Array)

export const target: FuzzTarget = {
  name: 'safetensors',
  seeds: () => [
    file({}, 0),
    file({ a: { dtype: 'F32', shape: [2], data_offsets: [0, 8] } }, 8),
    file(
      {
        __metadata__: { format: 'pt' },
        'layer.0.weight': { dtype: 'BF16', shape: [2, 3], data_offsets: [0, 12] },
        flags: { dtype: 'BOOL', shape: [3], data_offsets: [12, 15] },
        none: { dtype: 'I64', shape: [0, 4], data_offsets: [15, 15] },
        scalar: { dtype: 'F64', shape: [], data_offsets: [15, 23] },
      },
      23,
    ),
    file('{"\\u00e4\\ud83d\\ude00":{"shape":[1],"x":[{"y":null},true,-1.5e3],"dtype":"U8","data_offsets":[0,1]}} ', 1),
  ],
  words: [
    '"dtype":',
    '"F32"',
    '"shape":[',
    '"data_offsets":[',
    '"__metadata__":{',
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '"',
    '\\u',
    'null',
    'true',
  ],
  generate,
  async run(bytes) {
    await scope(async () => {
      const { tensors } = await loadFrom(new MemorySource(bytes, new Place('x.safetensors', CheckpointError)))
      // Input that is valid in memory is read from disk as well, in both modes, with the same result.
      writeFileSync(path, bytes)
      for (const mmap of [false, true]) {
        const file = await loadSafetensors(path, { mmap })
        for (const [name, value] of Object.entries(tensors)) {
          const other = file.tensors[name]!
          if (String(other.shape) !== String(value.shape) || !bytesOf(other).equals(bytesOf(value))) {
            throw new Error(`${name} differs when it is read from the disk, mmap: ${mmap}`)
          }
        }
      }
    })
  },
}
