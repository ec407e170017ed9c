import { isUtf8 } from 'node:buffer'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { DataError } from '../base/errors.js'
import { LONGEST_STRING } from '../base/heap.js'

/** Bytes in pieces: a file's, or some that are in memory. */
export type Chunks = AsyncIterable<Uint8Array> | Iterable<Uint8Array>

export interface Place {
  line?: number
  column?: number
  byte?: number
  cause?: unknown
}

/** One sentence shape for every text file: which file, which line, what is wrong. */
export function faultIn(file: string, what: string, place: Place = {}): DataError {
  const { line, column } = place
  const where = line === undefined ? '' : ` line ${line}${column === undefined ? '' : `, column ${column}`}:`
  return new DataError(`${file}:${where} ${what}`, { file, ...place })
}

const CHUNK = 1 << 18
/** A line of a file that is read as text, with the chunk behind it. @internal */
export const LONGEST_LINE = LONGEST_STRING - CHUNK

/**
 * A regular file's bytes in pieces, at most `limit` of them.
 * @throws DataError when it cannot be read, is no regular file, or is longer than `limit`
 * @internal
 */
export async function* chunksOf(path: string, limit = Number.POSITIVE_INFINITY): AsyncGenerator<Buffer, void, void> {
  let file: FileHandle
  try {
    // A pipe without a writer would block a thread for ever.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (cause) {
    throw new DataError(`${path} cannot be opened: ${(cause as Error).message}`, { file: path, cause })
  }
  try {
    const facts = await file.stat()
    if (!facts.isFile()) {
      throw faultIn(path, `this is ${facts.isDirectory() ? 'a folder' : 'no regular file'}; give the path of a file`)
    }
    let total = 0
    const refuseAbove = (size: number) => {
      if (size > limit) {
        throw faultIn(path, `the file has ${size} bytes, more than the ${limit} that are read at once`, { byte: limit })
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
 * UTF-8 as text. What is not UTF-8 is refused, and so are NUL bytes, which no text holds but every torn or sparse file.
 * @param line number of the first line of `bytes` in the file
 * @param offset number of the first byte of `bytes` in the file
 */
export function utf8(bytes: Uint8Array, file: string, line = 1, offset = 0): string {
  if (bytes.length > LONGEST_STRING) {
    throw faultIn(file, `${bytes.length} bytes in one piece; JavaScript holds texts of ${LONGEST_STRING}`, { line })
  }
  refuseNul(bytes, file, line, offset)
  if (isUtf8(bytes)) return asBuffer(bytes).toString('utf8')
  const bad = firstNotUtf8(bytes)
  const wide = offset === 0 && bad === 0 && isUtf16(bytes)
  throw faultIn(
    file,
    wide ? 'this is UTF-16; save the file as UTF-8' : `byte ${offset + bad} is not UTF-8; save the file as UTF-8`,
    { line: line + countLines(bytes.subarray(0, bad)), byte: offset + bad },
  )
}

export function refuseNul(bytes: Uint8Array, file: string, line = 1, offset = 0): void {
  const nul = bytes.indexOf(0)
  if (nul < 0) return
  throw faultIn(
    file,
    isUtf16(bytes) && offset === 0
      ? 'this is UTF-16; save the file as UTF-8'
      : `byte ${offset + nul} is NUL; the file is damaged or not text`,
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
 * Where the first byte stands that is no part of a whole UTF-8 character (RFC 3629), or the length. With `open` a
 * character that is cut off by the end counts from its first byte too, so the two can be told apart by the length left.
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

/** Bytes of the character that begins here; 0 when it is none, -1 when the end cuts it off. */
export function characterAt(bytes: Uint8Array, at: number): number {
  const lead = bytes[at]!
  if (lead < 0x80) return 1
  const size =
    lead >= 0xc2 && lead <= 0xdf ? 2 : lead >= 0xe0 && lead <= 0xef ? 3 : lead >= 0xf0 && lead <= 0xf4 ? 4 : 0
  for (let i = 1; i < size; i++) {
    if (at + i >= bytes.length) return -1
    // Overlong forms, surrogates and what lies above U+10FFFF show in the second byte.
    const least = i > 1 ? 0x80 : lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80
    const most = i > 1 ? 0xbf : lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf
    const byte = bytes[at + i]!
    if (byte < least || byte > most) return 0
  }
  return size
}
