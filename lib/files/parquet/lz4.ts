/**
 * Decompress a block of LZ4 (https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md) that fills `output`. npm's packages
 * that do this take a block of another length in silence. Throws an Error for one.
 */
export function decompressLz4Block(input: Uint8Array, output: Uint8Array): Uint8Array {
  const fail = (): never => {
    throw new Error(`expected ${output.length} decompressed bytes, but its LZ4 data is broken`)
  }
  let from = 0
  let to = 0
  const length = (nibble: number): number => {
    let total = nibble
    if (nibble < 15) return total
    for (;;) {
      const byte = input[from++] ?? fail()
      total += byte
      if (byte < 255) return total
    }
  }
  while (from < input.length) {
    const token = input[from++] as number
    const literals = length(token >> 4)
    if (literals > input.length - from || literals > output.length - to) fail()
    output.set(input.subarray(from, from + literals), to)
    from += literals
    to += literals
    // The last sequence has no match.
    if (from === input.length) break
    const offset = (input[from] as number) + 256 * (input[from + 1] ?? fail())
    from += 2
    const match = length(token & 15) + 4
    if (offset === 0 || offset > to || match > output.length - to) fail()
    // A match may overlap what it writes: then what it has written repeats.
    for (let done = 0; done < match; ) {
      const part = Math.min(match - done, offset + done)
      output.copyWithin(to + done, to - offset, to - offset + part)
      done += part
    }
    to += match
  }
  return to === output.length ? output : fail()
}

/** Decompress blocks of LZ4 after two sizes each, as Hadoop writes them; or one block alone, as older writers do. */
export function decompressLz4(input: Uint8Array, size: number): Uint8Array {
  const output = new Uint8Array(size)
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength)
  let from = 0
  let to = 0
  while (input.length - from >= 8) {
    const unpacked = view.getUint32(from)
    const packed = view.getUint32(from + 4)
    if (packed > input.length - from - 8 || unpacked > size - to) break
    const block = input.subarray(from + 8, from + 8 + packed)
    try {
      decompressLz4Block(block, output.subarray(to, to + unpacked))
    } catch (error) {
      if (from > 0) throw error
      break
    }
    from += 8 + packed
    to += unpacked
  }
  return from === input.length && to === size ? output : decompressLz4Block(input, output)
}
