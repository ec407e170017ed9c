import { writeAtomically } from '../../base/atomic.js'
import { argumentError, defined, requireOptions, requireString, requireWhole } from '../../base/check.js'
import { CheckpointError, DataError } from '../../base/errors.js'
import { LONGEST_STRING } from '../../base/heap.js'
import { type Chunks, chunksOf, countLines, faultIn, refuseNul, utf8, withoutMark } from '../text.js'
import { JsonFault, parseCarefully } from './parse.js'
import { type JsonLimits, JsonScan, MAX_DEPTH } from './scan.js'
import { stringifyJson } from './write.js'

/**
 * Read a JSON file (RFC 8259, UTF-8 with or without a byte order mark), with the extensions of Python's `json`: `NaN`,
 * `Infinity` and `-Infinity`. Integers beyond 2^53 are returned as bigint, all others as number. Of duplicate names in an
 * object the last counts; `__proto__` is an ordinary name.
 *
 * @throws DataError with `file`, `line`, `column` or `byte`, for any file that is not complete JSON, is nested deeper than 1000
 *   levels or larger than 512 MB (use `readJsonl`)
 */
export async function readJson(path: string): Promise<unknown> {
  requireString('readJson', 'path', path)
  return parseJson(chunksOf(path, LONGEST_STRING), path)
}

/** Parse JSON that arrives in pieces. Errors name `file`. */
export async function parseJson(chunks: Chunks, file: string, limits: JsonLimits = {}): Promise<unknown> {
  const scan = new JsonScan(limits)
  const parts: Uint8Array[] = []
  let line = 1
  let offset = 0
  for await (const chunk of chunks) {
    refuseNul(chunk, file, line, offset)
    const deep = scan.push(chunk)
    if (deep >= 0) {
      throw faultIn(file, `nested deeper than ${limits.depth ?? MAX_DEPTH} levels`, {
        line: line + countLines(chunk.subarray(0, deep)),
        byte: offset + deep,
      })
    }
    line += countLines(chunk)
    offset += chunk.length
    parts.push(chunk)
  }
  refuseTooMuch(scan, file)
  const text = utf8(withoutMark(Buffer.concat(parts)), file)
  return jsonValue(text, scan.wide, file)
}

/** Maximum size of a checkpoint's configuration. */
const LONGEST_CONFIG = 2 ** 24

/** Read the object in a small file of a checkpoint. @throws CheckpointError that names the file */
export async function readCheckpointJson(path: string): Promise<Record<string, unknown>> {
  try {
    const value = await parseJson(chunksOf(path, LONGEST_CONFIG), path)
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('expected an object')
    return value as Record<string, unknown>
  } catch (cause) {
    const { message } = cause as Error
    throw new CheckpointError(`${path} cannot be read as a configuration: ${message}`, { file: path, cause })
  }
}

/** Throw for JSON that would fill V8's heap, which ends the process. */
export function refuseTooMuch(scan: JsonScan, file: string, line?: number): void {
  const fault = scan.tooMuch()
  if (fault !== undefined) throw faultIn(file, fault, line === undefined ? {} : { line })
}

/**
 * Parse one JSON text that is not nested deeper than allowed.
 * @param wide whether it may contain integers beyond 2^53
 * @param line number of the text's first line in the file
 */
export function jsonValue(text: string, wide: boolean, file: string, line = 1): unknown {
  if (!wide) {
    try {
      return JSON.parse(text)
    } catch {
      // Python's NaN, or an error whose position has to be found.
    }
  }
  try {
    return parseCarefully(text)
  } catch (fault) {
    if (!(fault instanceof JsonFault)) throw fault
    if (text.trim() === '') throw faultIn(file, 'expected a JSON value, got only blanks', { line })
    const last = fault.offset === 0 ? -1 : text.lastIndexOf('\n', fault.offset - 1)
    let lines = 0
    for (let at = text.indexOf('\n'); at >= 0 && at <= last; at = text.indexOf('\n', at + 1)) lines++
    throw faultIn(file, fault.message, { line: line + lines, column: fault.offset - last })
  }
}

export interface WriteJsonOptions {
  /** Spaces per level, 0 … 10. 0 writes everything on one line. Default 2. */
  indent?: number
}

/**
 * Write a value as a JSON file that ends in a line break. The file is written atomically. Undefined properties are left out and
 * `toJSON` is called, as by `JSON.stringify`; a bigint is written as an integer.
 *
 * @throws DataError for NaN, infinities, typed arrays, cycles and other values that JSON cannot store (with their `path`), or
 *   if the file cannot be written
 */
export async function writeJson(path: string, value: unknown, options: WriteJsonOptions = {}): Promise<void> {
  requireString('writeJson', 'path', path)
  requireOptions('writeJson', options, ['indent'])
  const { indent = 2 } = options
  requireWhole('writeJson', 'indent', indent)
  if (indent > 10) throw argumentError('writeJson', 'indent', 'at most 10', indent)
  const bytes = Buffer.from(`${jsonFor(path, value, indent)}\n`)
  await writeAtomically(path, DataError, (write) => write(bytes))
}

/** Return the JSON text of a value for a file. */
export function jsonFor(path: string, value: unknown, indent: number, line?: number): string {
  try {
    return stringifyJson(value, indent)
  } catch (error) {
    if (error instanceof DataError) {
      const { path: where } = error as DataError & { path?: unknown }
      throw new DataError(`${path}${line === undefined ? '' : ` line ${line}`} cannot be written: ${error.message}`, {
        file: path,
        path: where,
        ...defined({ line }),
      })
    }
    // The error for a string of more than 512 MB.
    if (error instanceof RangeError) {
      throw new DataError(`${path} cannot be written: its text is too long. Use writeJsonl`, {
        file: path,
        cause: error,
      })
    }
    throw error
  }
}
