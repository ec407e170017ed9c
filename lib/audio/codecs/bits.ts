import { OutOfBits } from './decoder.js'

/** Bit reader that starts at the most significant bit, as FLAC and MPEG need it. */
export class Bits {
  #bytes: Uint8Array
  /** Index of the next byte to load into the cache. */
  #at: number
  /** The next bits, left-aligned. */
  #cache = 0
  #left = 0

  constructor(bytes: Uint8Array, at = 0) {
    this.#bytes = bytes
    this.#at = at
  }

  /** Number of bits that were read. */
  get position(): number {
    return 8 * this.#at - this.#left
  }

  set position(bits: number) {
    this.#at = bits >> 3
    this.#cache = 0
    this.#left = 0
    if ((bits & 7) !== 0) this.read(bits & 7)
  }

  #fill(): void {
    while (this.#left <= 24 && this.#at < this.#bytes.length) {
      this.#cache |= this.#bytes[this.#at]! << (24 - this.#left)
      this.#at += 1
      this.#left += 8
    }
  }

  /** Read an unsigned integer of 0 to 32 bits. */
  read(count: number): number {
    if (count > 24) {
      const high = this.read(count - 16)
      return high * 65536 + this.read(16)
    }
    if (count === 0) return 0
    if (this.#left < count) {
      this.#fill()
      if (this.#left < count) throw new OutOfBits()
    }
    const value = this.#cache >>> (32 - count)
    this.#cache <<= count
    this.#left -= count
    return value
  }

  /** Return the next bits, up to 24, without reading them; zeros after the end. */
  peek(count: number): number {
    if (this.#left < count) this.#fill()
    return this.#cache >>> (32 - count)
  }

  /** Skip bits after `peek`. */
  pass(count: number): void {
    if (this.#left < count) throw new OutOfBits()
    this.#cache <<= count
    this.#left -= count
  }

  /** Read a signed integer in two's complement, up to 33 bits. */
  signed(count: number): number {
    if (count === 0) return 0
    if (count === 33) {
      const high = this.read(1)
      return this.read(32) - high * 4294967296
    }
    const value = this.read(count)
    return value >= 2 ** (count - 1) ? value - 2 ** count : value
  }

  /** Read a unary number: count the zeros before the next one. */
  zeros(): number {
    let count = 0
    for (;;) {
      if (this.#left === 0) {
        this.#fill()
        if (this.#left === 0) throw new OutOfBits()
      }
      const leading = Math.clz32(this.#cache)
      if (leading < this.#left) {
        // Two shifts, because JavaScript ignores a shift by 32.
        this.#cache = (this.#cache << leading) << 1
        this.#left -= leading + 1
        return count + leading
      }
      count += this.#left
      this.#cache = 0
      this.#left = 0
    }
  }

  /** Skip to the next byte boundary. */
  align(): void {
    const rest = this.#left & 7
    this.#cache <<= rest
    this.#left -= rest
  }
}
