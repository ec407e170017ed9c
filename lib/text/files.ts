import { type FileHandle, open } from 'node:fs/promises'
import { DataError, VoxtorchError } from '../base/errors.js'
import { parseJson } from '../files/json/json.js'

/** Limits on tokenizer files, checked before parsing because files are not trusted. The largest published file has 35 MB. */
const MAX_BYTES = 64 << 20
const MAX_DEPTH = 100
// Most JSON values; 256,000 pieces and 600,000 merges have 2.5 million.
const MAX_VALUES = 6_000_000

/**
 * Read a file of at most 64 MiB.
 * @throws DataError with the field `file`
 */
export async function readBytes(path: string): Promise<Buffer> {
  let file: FileHandle | undefined
  try {
    file = await open(path, 'r')
    const stat = await file.stat()
    if (!stat.isFile()) throw new DataError(`${path}: expected a regular file`, { file: path })
    if (stat.size > MAX_BYTES) {
      throw new DataError(`${path}: expected at most ${MAX_BYTES} bytes for a tokenizer file, got ${stat.size}`, {
        file: path,
      })
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
    throw new DataError(`${path}: cannot be read: ${(cause as Error).message}`, { file: path, cause })
  } finally {
    await file?.close()
  }
}

/** Read JSON. Depth and number of values are checked before memory is allocated for them. */
export async function readJson(path: string): Promise<unknown> {
  return parseJson([await readBytes(path)], path, { depth: MAX_DEPTH, values: MAX_VALUES })
}

/** Decode UTF-8 text without a byte order mark. */
export function decodeText(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new DataError(`${file}: expected UTF-8 text`, { file, cause })
  }
}
