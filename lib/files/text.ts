import { isUtf8 } from 'node:buffer'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { DataError } from '../base/errors.js'
import { LONGEST_STRING } from '../base/heap.js'
import { unopened } from './byte-source.js'

/** Bytes in pieces, from a file or from memory. */
export type Chunks = AsyncIterable<Uint8Array> | Iterable<Uint8Array>

export interface Place {
  line?: number
  column?: number
  byte?: number
  cause?: unknown
}

/** Return the error for a fault in a text file: file, line, and what is wrong. */
export function faultIn(file: string, what: string, place: Place = {}): DataError {
  const { line, column } = place
  const where = line === undefined ? '' : ` line ${line}${column === undefined ? '' : `, column ${column}`}:`
  return new DataError(`${file}:${where} ${what}`, { file, ...place })
}

const CHUNK = 1 << 18
/** Maximum length of a line of a file that is read as text, with the chunk after it. @internal */
export const LONGEST_LINE = LONGEST_STRING - CHUNK

/**
 * Yield a regular file's bytes in pieces, at most `limit` of them.
 * @throws DataError if the file cannot be read, is not a regular file, or is longer than `limit`
 * @internal
 */
export async function* chunksOf(path: string, limit = Number.POSITIVE_INFINITY): AsyncGenerator<Buffer, void, void> {
  let file: FileHandle
  try {
    // Opening a pipe without a writer would block a thread forever.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (cause) {
    throw new DataError(`${path} cannot be opened: ${unopened(path, cause as Error)}`, { file: path, cause })
  }
  try {
    const facts = await file.stat()
    if (!facts.isFile()) {
      throw faultIn(
        path,
        `expected a regular file, got ${facts.isDirectory() ? 'a folder' : 'a device or a pipe'}. Pass the path of a file`,
      )
    }
    let total = 0
    const refuseAbove = (size: number) => {
      if (size > limit) {
        throw faultIn(path, `expected a file of at most ${limit} bytes, got ${size}`, { byte: limit })
      }
    }
    refuseAbove(facts.size)
    for (;;) {
      const buffer = Buffer.allocUnsafe(CHUNK)
      const { bytesRead } = await file.read(buffer, 0, CHUNK, total)
      if (bytesRead === 0) return
      total += bytesRead
      refuseAbove(total)
      yield buffer.subarray(0, bytesRead)
    }
  } catch (cause) {
    if (cause instanceof DataError) throw cause
    throw new DataError(`${path} cannot be read: ${(cause as Error).message}`, { file: path, cause })
  } finally {
    await file.close()
  }
}

/**
 * Decode UTF-8. Throws for invalid UTF-8 and for NUL, which occurs in truncated or sparse files only.
 * @param line number of the first line of `bytes` in the file
 * @param offset number of the first byte of `bytes` in the file
 */
export function utf8(bytes: Uint8Array, file: string, line = 1, offset = 0): string {
  if (bytes.length > LONGEST_STRING) {
    throw faultIn(
      file,
      `expected at most ${LONGEST_STRING} bytes in one piece, JavaScript's longest string, got ${bytes.length}`,
      { line },
    )
  }
  refuseNul(bytes, file, line, offset)
  if (isUtf8(bytes)) return asBuffer(bytes).toString('utf8')
  const bad = firstNotUtf8(bytes)
  const wide = offset === 0 && bad === 0 && isUtf16(bytes)
  throw faultIn(
    file,
    wide
      ? 'expected UTF-8, got UTF-16. Save the file as UTF-8'
      : `byte ${offset + bad} is not UTF-8. Save the file as UTF-8`,
    { line: line + countLines(bytes.subarray(0, bad)), byte: offset + bad },
  )
}

export function refuseNul(bytes: Uint8Array, file: string, line = 1, offset = 0): void {
  const nul = bytes.indexOf(0)
  if (nul < 0) return
  throw faultIn(
    file,
    isUtf16(bytes) && offset === 0
      ? 'expected UTF-8, got UTF-16. Save the file as UTF-8'
      : `byte ${offset + nul} is NUL: the file is damaged or not text`,
    { line: line + countLines(bytes.subarray(0, nul)), byte: offset + nul },
  )
}

export const isUtf16 = (bytes: Uint8Array): boolean =>
  (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)

export const withoutMark = (bytes: Uint8Array): Uint8Array =>
  bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes

export function countLines(bytes: Uint8Array): number {
  let count = 0
  for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) count++
  return count
}

/** @internal */
export const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/**
 * Return the offset of the first byte that is not part of a complete UTF-8 character (RFC 3629), or the length. A character
 * that is truncated at the end counts from its first byte too; the remaining length distinguishes the two.
 */
export function firstNotUtf8(bytes: Uint8Array, from = 0): number {
  let at = from
  while (at < bytes.length) {
    const size = characterAt(bytes, at)
    if (size <= 0) return at
    at += size
  }
  return at
}

/** Return the number of bytes of the character that begins here; 0 if it is invalid, -1 if it is truncated at the end. */
export function characterAt(bytes: Uint8Array, at: number): number {
  const lead = bytes[at]!
  if (lead < 0x80) return 1
  const size =
    lead >= 0xc2 && lead <= 0xdf ? 2 : lead >= 0xe0 && lead <= 0xef ? 3 : lead >= 0xf0 && lead <= 0xf4 ? 4 : 0
  for (let i = 1; i < size; i++) {
    if (at + i >= bytes.length) return -1
    // The second byte reveals overlong forms, surrogates and values above U+10FFFF.
    const least = i > 1 ? 0x80 : lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80
    const most = i > 1 ? 0xbf : lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf
    const byte = bytes[at + i]!
    if (byte < least || byte > most) return 0
  }
  return size
}
