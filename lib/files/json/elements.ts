import { asBuffer, type Chunks, faultIn, withoutMark } from '../text.js'

/** A record of a file: its bytes, its offset in the file, and its line. */
export interface FileRecord {
  bytes: Buffer
  start: number
  line: number
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const OPEN = 0x5b
const CLOSE = 0x5d
const OPEN_BRACE = 0x7b
const CLOSE_BRACE = 0x7d
const LINE = 0x0a

const isBlank = (byte: number): boolean => byte === 0x20 || byte === LINE || byte === 0x0d || byte === 0x09

/**
 * Yield the bytes of each element of one JSON array. Uses memory for a piece of the file and the longest element. The elements
 * are not validated; parsing them finds faults.
 * @throws DataError if the file is not an array, or is truncated
 */
export async function* elementsOf(
  chunks: Chunks,
  file: string,
  longest: number,
): AsyncGenerator<FileRecord, void, void> {
  // Position: before the array, at the beginning of an element, inside one, or after the array.
  let place: 'before' | 'value' | 'inside' | 'after' = 'before'
  let depth = 0
  let inString = false
  let escaped = false
  let count = 0
  let line = 1
  let offset = 0
  let open: Buffer[] = []
  let held = 0
  let start = 0
  let startLine = 1
  let first = true
  for await (const chunk of chunks) {
    const bytes = asBuffer(chunk)
    let from = 0
    const skipped = first ? bytes.length - withoutMark(bytes).length : 0
    first = false
    for (let i = skipped; i < bytes.length; i++) {
      const byte = bytes[i] as number
      if (byte === LINE) line++
      if (place === 'inside') {
        if (inString) {
          if (escaped) escaped = false
          else if (byte === BACKSLASH) escaped = true
          else if (byte === QUOTE) inString = false
        } else if (byte === QUOTE) inString = true
        else if (byte === OPEN || byte === OPEN_BRACE) depth++
        else if ((byte === CLOSE || byte === CLOSE_BRACE) && depth > 0) depth--
        else if (depth === 0 && (byte === COMMA || byte === CLOSE)) {
          const part = bytes.subarray(from, i)
          const whole = trimmed(open.length > 0 ? Buffer.concat([...open, part]) : part)
          if (whole.length > longest) throw tooLong(file, longest, startLine)
          count++
          yield { bytes: whole, start, line: startLine }
          open = []
          held = 0
          place = byte === COMMA ? 'value' : 'after'
        }
        continue
      }
      if (isBlank(byte)) continue
      if (place === 'before') {
        if (byte !== OPEN) throw faultIn(file, 'expected a JSON array, got a file that does not begin with [', { line })
        place = 'value'
      } else if (place === 'after') throw faultIn(file, 'expected the end of the file after the array', { line })
      else if (byte === CLOSE && count === 0) place = 'after'
      else if (byte === CLOSE || byte === COMMA) throw faultIn(file, 'expected a value in the array', { line })
      else {
        place = 'inside'
        depth = 0
        inString = false
        escaped = false
        from = i
        start = offset + i
        startLine = line
        // Process this byte again as the first of the element.
        i--
      }
    }
    offset += bytes.length
    if (place !== 'inside') continue
    const rest = bytes.subarray(from)
    open.push(rest)
    held += rest.length
    if (held > longest) throw tooLong(file, longest, startLine)
  }
  if (place === 'before') throw faultIn(file, 'expected a JSON array, got only blanks', { line })
  if (place !== 'after') throw faultIn(file, 'expected the end of the array, got the end of the file', { line })
}

const tooLong = (file: string, longest: number, line: number) =>
  faultIn(file, `expected a value of at most ${longest} bytes, got a longer one`, { line })

function trimmed(bytes: Buffer): Buffer {
  let end = bytes.length
  while (end > 0 && isBlank(bytes[end - 1] as number)) end--
  return bytes.subarray(0, end)
}

/** Return whether a file's first non-blank character begins an array. */
export async function beginsArray(chunks: Chunks): Promise<boolean> {
  let first = true
  for await (const chunk of chunks) {
    const bytes = first ? withoutMark(chunk) : chunk
    first = false
    const at = bytes.findIndex((byte) => !isBlank(byte))
    if (at >= 0) return bytes[at] === OPEN
  }
  return false
}
