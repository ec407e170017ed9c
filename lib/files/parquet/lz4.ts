const broken = (size: number): never => {
  throw new Error(`expected ${size} decompressed bytes, but its LZ4 data is broken`)
}

/**
 * Decompress a block of LZ4 (https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md) that fills `output`. npm's packages
 * that do this take a block of another length in silence. Throws an Error for one.
 */
export function decompressLz4Block(input: Uint8Array, output: Uint8Array): Uint8Array {
  return decoded(input, output) === output.length ? output : broken(output.length)
}

/** Decompress a block into the beginning of `output`, and return its length. */
function decoded(input: Uint8Array, output: Uint8Array): number {
  const fail = () => broken(output.length)
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
  return to
}

/**
 * Decompress LZ4 as Hadoop frames it: the size of some data, then blocks of it, each after its own length. Older writers have one block
 * alone.
 */
export function decompressLz4(input: Uint8Array, size: number): Uint8Array {
  try {
    return framed(input, size)
  } catch {
    return decompressLz4Block(input, new Uint8Array(size))
  }
}

function framed(input: Uint8Array, size: number): Uint8Array {
  const output = new Uint8Array(size)
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength)
  let from = 0
  let to = 0
  const length = (most: number): number => {
    if (input.length - from < 4) broken(size)
    const value = view.getUint32(from)
    from += 4
    return value <= most ? value : broken(size)
  }
  while (from < input.length) {
    const end = to + length(size - to)
    while (to < end) {
      const packed = length(input.length - from - 4)
      const written = decoded(input.subarray(from, from + packed), output.subarray(to, end))
      if (written === 0) broken(size)
      from += packed
      to += written
    }
  }
  return to === size ? output : broken(size)
}
