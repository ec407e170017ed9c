import { MemorySource, Place } from '../../../lib/files/byte-source.js'
import { readArray } from '../../../lib/files/npy/array.js'
import { DataError, isTensor, scope } from '../../../lib/index.js'
import type { Random } from '../random.js'
import type { FuzzTarget } from './target.js'

/** A file with this head, padded as numpy does, and so many bytes of data. */
function file(head: string, data: number, version = 1): Uint8Array {
  const begin = version === 1 ? 10 : 12
  const text = `${head.padEnd(Math.ceil((begin + head.length + 1) / 64) * 64 - begin - 1)}\n`
  const bytes = Buffer.alloc(begin)
  bytes.write('\x93NUMPY', 'latin1')
  bytes[6] = version
  if (version === 1) bytes.writeUInt16LE(text.length, 8)
  else bytes.writeUInt32LE(text.length, 8)
  return Buffer.concat([bytes, Buffer.from(text), Uint8Array.from({ length: data }, (_, i) => i)])
}

const sizes = {
  b1: 1,
  i1: 1,
  i2: 2,
  i4: 4,
  i8: 8,
  u1: 1,
  u2: 2,
  u4: 4,
  u8: 8,
  f2: 2,
  f4: 4,
  f8: 8,
  c8: 8,
  c16: 16,
  U1: 4,
  U3: 12,
  S2: 2,
  U0: 0,
  S0: 0,
}

function generate(random: Random): Uint8Array {
  const code = random.pick(Object.keys(sizes)) as keyof typeof sizes
  const shape = Array.from({ length: random.below(4) }, () => random.pick([0, 1, 2, 3, 5]))
  const bytes = shape.reduce((product, size) => product * size, sizes[code])
  const tuple: (number | string)[] = [...shape]
  if (random.chance(0.1)) tuple.push(random.pick(['-1', '1.5', 2 ** 31, 2 ** 53, '9223372036854775808', '1L']))
  const text = `(${tuple.join(', ')}${tuple.length === 1 ? ',' : ''})`
  const order = random.pick(['True', 'False', 'False', random.chance(0.9) ? 'False' : 'None'])
  const kind = random.chance(0.05) ? random.pick(['O', 'V8', 'M8[ns]', 'f16', 'c32']) : code
  const head = `{'descr': '${random.pick(['<', '>', '|', '='])}${kind}', 'fortran_order': ${order}, 'shape': ${text}, }`
  return file(head, bytes + (random.chance(0.05) ? random.below(9) : 0), random.pick([1, 2, 3]))
}

export const target: FuzzTarget = {
  name: 'npy',
  seeds: () => [
    file("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 24),
    file("{'descr': '>c16', 'fortran_order': True, 'shape': (2, 1, 2), }", 64),
    file("{'descr': '|b1', 'fortran_order': False, 'shape': (), }", 1),
    file("{'descr': '|S3', 'fortran_order': True, 'shape': (2, 2), }", 12),
    file("{'descr': '>U2', 'fortran_order': False, 'shape': (0,), }", 0, 3),
    file("{'descr': [('a', '<f4'), ('b', '<i4')], 'fortran_order': False, 'shape': (3,), }", 24, 2),
  ],
  words: [
    "'descr'",
    "'fortran_order'",
    "'shape'",
    "'<f8'",
    "'|S1'",
    "'<U1'",
    '(',
    ')',
    ',',
    ': ',
    'True',
    'False',
    '{',
    '}',
    "'",
  ],
  generate,
  async run(bytes) {
    await scope(async () => {
      const value = await readArray(new MemorySource(bytes, new Place('x.npy', DataError)))
      if (isTensor(value)) value.toArray()
      else JSON.stringify(value)
    })
  },
}
