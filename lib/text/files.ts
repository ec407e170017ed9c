import { type FileHandle, open } from 'node:fs/promises'
import { DataError, VoxtorchError } from '../base/errors.js'
import { parseJson } from '../files/json/json.js'

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

/** Reads JSON whose depth and number of values are bounded before memory is taken for them. */
export async function readJson(path: string): Promise<unknown> {
  return parseJson([await readBytes(path)], path, { depth: MAX_DEPTH, values: MAX_VALUES })
}

/** UTF-8 text without a byte order mark. */
export function decodeText(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new DataError(`${file} is not UTF-8 text`, { file, cause })
  }
}
