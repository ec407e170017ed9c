/**
 * Bounds of Thrift's compact protocol, checked before hyparquet 1.33.0 parses it: that parser allocates each list at its
 * declared length, recurses without limit, and takes quadratic time for a long variable-length integer.
 */

const MAX_DEPTH = 24
const LONGEST_STATISTIC = 1 << 13

/** Why bytes are not a Thrift struct: `'short'` if they end too early. */
export type ThriftFault = 'short' | 'broken' | 'deep' | 'many'

/**
 * Return the offset after the struct that begins at `start`, or why there is none.
 * @param maxValues maximum number of fields and list elements
 */
export function thriftEnd(bytes: Uint8Array, start: number, maxValues: number): number | ThriftFault {
  try {
    const walk = new Walk(bytes, start, maxValues)
    walk.struct(0)
    return walk.at
  } catch (fault) {
    if (fault instanceof Refusal) return fault.fault
    throw fault
  }
}

class Refusal extends Error {
  constructor(readonly fault: ThriftFault) {
    super(fault)
  }
}

class Walk {
  constructor(
    readonly bytes: Uint8Array,
    public at: number,
    private left: number,
  ) {}

  struct(depth: number): void {
    if (depth > MAX_DEPTH) throw new Refusal('deep')
    for (;;) {
      const head = this.#byte()
      const type = head & 15
      if (type === 0) return
      if (head >> 4 === 0) this.#varint()
      // Booleans of fields are part of the head.
      if (type > 2) this.#value(type, depth)
      this.#count(1)
    }
  }

  #value(type: number, depth: number): void {
    if (type === 3) this.#skip(1)
    else if (type >= 4 && type <= 6) this.#varint()
    else if (type === 7) this.#skip(8)
    else if (type === 8) this.#binary(depth)
    else if (type === 9) this.#list(depth)
    else if (type === 12) this.struct(depth + 1)
    else throw new Refusal('broken')
  }

  #binary(depth: number): void {
    const size = this.#varint()
    // Minima and maxima of columns: writers omit longer ones, and hyparquet takes quadratic time for a long decimal.
    if (depth >= 3 && size > LONGEST_STATISTIC) throw new Refusal('broken')
    this.#skip(size)
  }

  #list(depth: number): void {
    if (depth > MAX_DEPTH) throw new Refusal('deep')
    const head = this.#byte()
    const size = head >> 4 === 15 ? this.#varint() : head >> 4
    const type = head & 15
    this.#count(size)
    // Each element has at least one byte.
    if (size > this.bytes.length - this.at) throw new Refusal('short')
    for (let i = 0; i < size; i++) this.#value(type <= 2 ? 3 : type, depth + 1)
  }

  #count(values: number): void {
    this.left -= values
    if (this.left < 0) throw new Refusal('many')
  }

  #byte(): number {
    const byte = this.bytes[this.at++]
    if (byte === undefined) throw new Refusal('short')
    return byte
  }

  #skip(size: number): void {
    if (size > this.bytes.length - this.at) throw new Refusal('short')
    this.at += size
  }

  #varint(): number {
    let value = 0
    for (let i = 0; i < 10; i++) {
      const byte = this.#byte()
      value += (byte & 127) * 2 ** (7 * i)
      if (byte < 128) return value
    }
    throw new Refusal('broken')
  }
}
