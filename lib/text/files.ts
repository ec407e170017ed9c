import { type FileHandle, open } from 'node:fs/promises'
import { DataError, VoxtorchError } from '../base/errors.js'

/** Tokenizer files are hostile: what one may hold is checked before it is parsed. The largest published are 35 MB. */
const MAX_BYTES = 64 << 20
const MAX_DEPTH = 100
// Nodes of the JSON tree; 256,000 pieces and 600,000 merges are 2.5 million.
const MAX_VALUES = 6_000_000

/**
 * The bytes of a file of at most 64 MB.
 * @throws DataError with the field `file`
 */
export async function readBytes(path: string): Promise<Buffer> {
  let file: FileHandle | undefined
  try {
    file = await open(path, 'r')
    const stat = await file.stat()
    if (!stat.isFile()) throw new DataError(`${path} is not a file`, { file: path })
    if (stat.size > MAX_BYTES) {
      throw new DataError(`${path} has ${stat.size} bytes; a tokenizer file may have ${MAX_BYTES}`, { file: path })
    }
    const bytes = Buffer.allocUnsafe(stat.size)
    let done = 0
    while (done < bytes.length) {
      const { bytesRead } = await file.read(bytes, done, bytes.length - done, done)
      if (bytesRead === 0) break
      done += bytesRead
    }
    return bytes.subarray(0, done)
  } catch (cause) {
    if (cause instanceof VoxtorchError) throw cause
    throw new DataError(`${path} cannot be read: ${(cause as Error).message}`, { file: path, cause })
  } finally {
    await file?.close()
  }
}

/** Reads JSON, see {@link parseJson}. */
export async function readJson(path: string): Promise<unknown> {
  return parseJson(await readBytes(path), path)
}

/** UTF-8 text without a byte order mark. */
export function decodeText(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new DataError(`${file} is not UTF-8 text`, { file, cause })
  }
}

/**
 * Parses JSON whose depth and number of values are bounded before the parser takes memory for them.
 * @throws DataError with the fields `file` and, where known, `byte`
 */
export function parseJson(bytes: Uint8Array, file: string): unknown {
  requireModest(bytes, file)
  try {
    return JSON.parse(decodeText(bytes, file))
  } catch (cause) {
    if (cause instanceof VoxtorchError) throw cause
    throw new DataError(`${file} is not JSON: ${(cause as Error).message}`, { file, cause })
  }
}

function requireModest(bytes: Uint8Array, file: string): void {
  let depth = 0
  let values = 0
  let inText = false
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i]
    if (inText) {
      if (byte === 0x5c) i++
      else if (byte === 0x22) inText = false
      continue
    }
    switch (byte) {
      case 0x22:
        inText = true
        break
      case 0x5b:
      case 0x7b:
        values++
        if (++depth > MAX_DEPTH) {
          throw new DataError(`${file} nests deeper than ${MAX_DEPTH} levels at byte ${i}`, { file, byte: i })
        }
        break
      case 0x5d:
      case 0x7d:
        depth--
        break
      case 0x2c:
        if (++values > MAX_VALUES) {
          throw new DataError(`${file} has more than ${MAX_VALUES} values by byte ${i}`, { file, byte: i })
        }
    }
  }
}
