import {
  asBuffer,
  type Chunks,
  characterAt,
  countLines,
  faultIn,
  firstNotUtf8,
  isUtf16,
  refuseNul,
  withoutMark,
} from '../text.js'

export type CsvEncoding = 'utf-8' | 'windows-1252' | 'mixed'
export const encodings: readonly CsvEncoding[] = ['utf-8', 'windows-1252', 'mixed']

/**
 * Decode the text of a table, in pieces.
 * @throws DataError with `line` and `byte`, for NUL and for bytes that are invalid in the encoding
 */
export async function* csvText(
  chunks: Chunks,
  file: string,
  encoding: CsvEncoding,
): AsyncGenerator<string, void, void> {
  let decoder: Decoder | undefined
  let line = 1
  let offset = 0
  for await (const chunk of chunks) {
    let bytes = chunk
    if (decoder === undefined) {
      bytes = withoutMark(chunk)
      const name = bytes.length < chunk.length && encoding === 'windows-1252' ? 'utf-8' : encoding
      decoder = isUtf16(chunk)
        ? utf16(chunk[0] === 0xff)
        : name === 'windows-1252'
          ? windows
          : utf8Pieces(name === 'mixed')
    }
    if (!decoder.wide) refuseNul(bytes, file, line, offset)
    const text = decoder.next(bytes, (at, what) => {
      throw faultIn(file, what, { line: line + countLines(bytes.subarray(0, Math.max(0, at))), byte: offset + at })
    })
    if (text !== '') yield text
    line += countLines(bytes)
    offset += chunk.length
  }
  const rest = decoder?.end((what) => {
    throw faultIn(file, what, { line, byte: offset })
  })
  if (rest) yield rest
}

interface Decoder {
  /** Whether NUL may be half of a character. */
  wide?: boolean
  next(bytes: Uint8Array, fail: (at: number, what: string) => never): string
  end(fail: (what: string) => never): string
}

/** Characters of windows-1252 at 0x80 … 0x9f; the five undefined ones are control characters, as on the web. */
const HIGH = '€\x81‚ƒ„…†‡ˆ‰Š‹Œ\x8dŽ\x8f\x90‘’“”•–—˜™š›œ\x9džŸ'

/** TextDecoder treats windows-1252 as ISO 8859-1 in some releases of Node 20 and 22. */
function cp1252(bytes: Uint8Array): string {
  return asBuffer(bytes)
    .toString('latin1')
    .replace(/[\x80-\x9f]/g, (character) => HIGH[character.charCodeAt(0) - 0x80]!)
}

const windows: Decoder = { next: cp1252, end: () => '' }

function utf16(little: boolean): Decoder {
  const decoder = new TextDecoder(little ? 'utf-16le' : 'utf-16be', { fatal: true })
  const decoded = (bytes: Uint8Array | undefined, fail: (what: string) => never): string => {
    try {
      return decoder.decode(bytes, { stream: bytes !== undefined })
    } catch {
      return fail('expected valid UTF-16')
    }
  }
  return {
    wide: true,
    next: (bytes, fail) => decoded(bytes, (what) => fail(0, what)),
    end: (fail) => decoded(undefined, fail),
  }
}

function utf8Pieces(mixed: boolean): Decoder {
  /** The beginning of a character that the next piece completes. */
  let open: Uint8Array = new Uint8Array()
  const hint = "; read with encoding: 'windows-1252' or 'mixed'"
  return {
    next(piece, fail) {
      const bytes = open.length > 0 ? Buffer.concat([open, piece]) : piece
      const shift = open.length
      let text = ''
      let start = 0
      for (;;) {
        const bad = firstNotUtf8(bytes, start)
        text += asBuffer(bytes).toString('utf8', start, bad)
        if (bad === bytes.length || characterAt(bytes, bad) < 0) {
          open = bytes.subarray(bad)
          return text
        }
        if (!mixed) fail(bad - shift, `a byte is not UTF-8${hint}`)
        text += cp1252(bytes.subarray(bad, bad + 1))
        start = bad + 1
      }
    },
    end(fail) {
      if (open.length > 0 && !mixed) fail(`the last character is cut off${hint}`)
      return cp1252(open)
    },
  }
}
