import { type Tensor, tensor } from '../../lib/index.js'

/** The pixels of `noise` in test/reference/vision_resize.py: every byte is an integer hash of its place. */
export function noiseBytes(seed: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  const offset = Math.imul(seed, 0x9e3779b9)
  for (let i = 0; i < length; i++) {
    let h = (i + offset) | 0
    h ^= h >>> 16
    h = Math.imul(h, 0x85ebca6b)
    h ^= h >>> 13
    h = Math.imul(h, 0xc2b2ae35)
    h ^= h >>> 16
    bytes[i] = h >>> 24
  }
  return bytes
}

export const noise = (seed: number, shape: readonly number[]): Tensor =>
  tensor(
    noiseBytes(
      seed,
      shape.reduce((product, size) => product * size, 1),
    ),
    { shape: [...shape] },
  )
