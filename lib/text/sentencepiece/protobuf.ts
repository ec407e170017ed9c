/**
 * Reader of the wire format of protocol buffers (https://protobuf.dev/programming-guides/encoding/), field by field, from bytes in
 * memory. Lengths are checked against the remaining bytes before memory is allocated.
 */
export class Message {
  #at: number
  /** Number of the current field. */
  field = 0
  #wire = 0

  constructor(
    readonly bytes: Uint8Array,
    readonly fail: (what: string, byte: number) => never,
    start = 0,
    readonly end = bytes.length,
  ) {
    this.#at = start
  }

  /** Current position. */
  get at(): number {
    return this.#at
  }

  /** Move to the next field; return false at the end. The value must be read or skipped before the next call. */
  next(): boolean {
    if (this.#at >= this.end) return false
    const key = this.#varint()
    this.#wire = key % 8
    this.field = Math.floor(key / 8)
    if (this.field === 0 || this.field >= 2 ** 29) this.fail(`has a field numbered ${this.field}`, this.#at)
    return true
  }

  /** Read an unsigned integer; bits beyond 2^53 are dropped. */
  whole(): number {
    this.#expect(0)
    return this.#varint()
  }

  /** Read a signed 32-bit integer. */
  int32(): number {
    return this.whole() | 0
  }

  boolean(): boolean {
    return this.whole() !== 0
  }

  float(): number {
    this.#expect(5)
    const at = this.#take(4)
    return new DataView(this.bytes.buffer, this.bytes.byteOffset + at, 4).getFloat32(0, true)
  }

  view(): Uint8Array {
    this.#expect(2)
    const length = this.#varint()
    const at = this.#take(length)
    return this.bytes.subarray(at, at + length)
  }

  /** Read a string. @throws for invalid UTF-8 */
  text(): string {
    const at = this.#at
    try {
      return utf8.decode(this.view())
    } catch (cause) {
      if (cause instanceof TypeError) return this.fail('has a text that is not UTF-8', at)
      throw cause
    }
  }

  message(): Message {
    this.#expect(2)
    const length = this.#varint()
    const at = this.#take(length)
    return new Message(this.bytes, this.fail, at, at + length)
  }

  skip(): void {
    if (this.#wire === 0) this.#varint()
    else if (this.#wire === 1) this.#take(8)
    else if (this.#wire === 2) this.#take(this.#varint())
    else if (this.#wire === 5) this.#take(4)
    else this.fail(`has the wire type ${this.#wire}`, this.#at)
  }

  #expect(wire: number): void {
    if (this.#wire !== wire) this.fail(`has wire type ${this.#wire} in field ${this.field}, expected ${wire}`, this.#at)
  }

  #take(length: number): number {
    const at = this.#at
    if (length > this.end - at) this.fail(`has a length of ${length} bytes where ${this.end - at} are left`, at)
    this.#at = at + length
    return at
  }

  #varint(): number {
    let value = 0
    let scale = 1
    for (let i = 0; i < 10; i++) {
      const byte = this.bytes[this.#take(1)]!
      // Of larger numbers only the low half is used, for negative int32.
      if (i < 7) value += (byte & 0x7f) * scale
      if (byte < 0x80) return value
      scale *= 128
    }
    return this.fail('has a number of more than ten bytes', this.#at)
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
