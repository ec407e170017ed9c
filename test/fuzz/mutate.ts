/** Changes to a file's bytes that tend to break readers. */
import type { Random } from './random.js'

const MOST_BYTES = 1 << 16

// Ends of ranges, signs, and sizes that overflow when they are multiplied or added to.
const numbers = [
  0n,
  1n,
  2n,
  7n,
  8n,
  127n,
  128n,
  255n,
  256n,
  32767n,
  32768n,
  65535n,
  65536n,
  2n ** 24n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 32n,
  2n ** 47n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 62n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 1n,
]
const bytesOfInterest = [
  0, 1, 0x0a, 0x20, 0x22, 0x27, 0x28, 0x2c, 0x2d, 0x30, 0x39, 0x5b, 0x5c, 0x5d, 0x7b, 0x7d, 0x7f, 0x80, 0xc0, 0xff,
]
const spelled = (value: bigint, random: Random): string =>
  random.pick([String(value), `-${value}`, `${value}.5`, `${value}e1`, `0${value}`, `${value}L`])

type Mutation = (bytes: Buffer, random: Random, other: Uint8Array, words: readonly string[]) => Buffer

const at = (bytes: Buffer, random: Random, room = 0): number => random.below(Math.max(1, bytes.length - room + 1))

/** Puts `piece` in the place of `count` bytes. */
function replaced(bytes: Buffer, begin: number, count: number, piece: Uint8Array): Buffer {
  return Buffer.concat([bytes.subarray(0, begin), piece, bytes.subarray(begin + count)])
}

const mutations: Mutation[] = [
  function flipBit(bytes, random) {
    if (bytes.length > 0) bytes[random.below(bytes.length)]! ^= 1 << random.below(8)
    return bytes
  },
  function setByte(bytes, random) {
    if (bytes.length > 0) bytes[random.below(bytes.length)] = random.pick(bytesOfInterest)
    return bytes
  },
  function anyByte(bytes, random) {
    if (bytes.length > 0) bytes[random.below(bytes.length)] = random.below(256)
    return bytes
  },
  function setInteger(bytes, random) {
    const width = random.pick([2, 4, 8])
    if (bytes.length < width) return bytes
    const value = Buffer.alloc(8)
    value.writeBigUInt64LE(random.pick(numbers))
    const piece = value.subarray(0, width)
    return replaced(bytes, at(bytes, random, width), width, random.chance(0.3) ? piece.reverse() : piece)
  },
  function addToByte(bytes, random) {
    if (bytes.length > 0) bytes[random.below(bytes.length)]! += random.below(33) - 16
    return bytes
  },
  function remove(bytes, random) {
    const begin = at(bytes, random)
    return replaced(bytes, begin, random.below(random.chance(0.8) ? 8 : bytes.length + 1), Buffer.alloc(0))
  },
  function cut(bytes, random) {
    return bytes.subarray(0, at(bytes, random))
  },
  function insert(bytes, random) {
    const piece = Buffer.alloc(1 + random.below(16), random.pick(bytesOfInterest))
    return replaced(bytes, at(bytes, random), 0, piece)
  },
  function repeat(bytes, random) {
    const begin = at(bytes, random)
    const piece = bytes.subarray(begin, begin + random.below(64))
    const times = random.chance(0.1) ? 200 : 1 + random.below(3)
    return replaced(bytes, begin, 0, Buffer.concat(new Array(times).fill(piece)))
  },
  function swap(bytes, random) {
    const count = random.below(16)
    const [from, to] = [at(bytes, random, count), at(bytes, random, count)]
    const piece = Buffer.from(bytes.subarray(from, from + count))
    return replaced(bytes, to, piece.length, piece)
  },
  function splice(bytes, random, other) {
    const begin = random.below(other.length + 1)
    const piece = other.subarray(begin, begin + random.below(other.length - begin + 1))
    return replaced(bytes, at(bytes, random), random.below(piece.length + 1), piece)
  },
  function putWord(bytes, random, _other, words) {
    if (words.length === 0) return bytes
    const word = Buffer.from(random.pick(words), 'latin1')
    return replaced(bytes, at(bytes, random), random.chance(0.5) ? word.length : 0, word)
  },
  function spellNumber(bytes, random) {
    const begin = at(bytes, random)
    const text = bytes.subarray(begin, begin + 400).toString('latin1')
    const found = /\d+/.exec(text)
    const piece = Buffer.from(spelled(random.pick(numbers), random))
    return found === null ? bytes : replaced(bytes, begin + found.index, found[0].length, piece)
  },
]

/** A file with one to some changes. `corpus` lends pieces. */
export function mutate(
  bytes: Uint8Array,
  random: Random,
  corpus: readonly Uint8Array[],
  words: readonly string[] = [],
): Uint8Array {
  let result: Buffer = Buffer.from(bytes)
  const count = random.chance(0.5) ? 1 : 1 + random.below(6)
  for (let i = 0; i < count; i += 1) result = random.pick(mutations)(result, random, random.pick(corpus), words)
  return result.length > MOST_BYTES ? result.subarray(0, MOST_BYTES) : result
}
