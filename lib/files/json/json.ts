import { writeAtomically } from '../../base/atomic.js'
import { defined, misuse, requireOptions, requireString, requireWhole } from '../../base/check.js'
import { CheckpointError, DataError } from '../../base/errors.js'
import { LONGEST_STRING } from '../../base/heap.js'
import { type Chunks, chunksOf, countLines, faultIn, refuseNul, utf8, withoutMark } from '../text.js'
import { JsonFault, parseCarefully } from './parse.js'
import { type JsonLimits, JsonScan, MAX_DEPTH } from './scan.js'
import { stringifyJson } from './write.js'

/**
 * Reads a JSON file (RFC 8259, UTF-8 with or without a byte order mark), with what Python's `json` adds and writes:
 * `NaN`, `Infinity` and `-Infinity`. Integers beyond 2^53 come as bigint, all others as number. Of a name that
 * stands twice in an object the last counts; `__proto__` is a name like any other.
 *
 * @throws DataError with `file`, `line`, `column` or `byte`, for anything that is not a whole JSON file, nests deeper
 * than 1000 levels or has more than 512 MB (that is work for `readJsonl`)
 */
export async function readJson(path: string): Promise<unknown> {
  requireString('readJson', 'path', path)
  return parseJson(chunksOf(path, LONGEST_STRING), path)
}

/** The value of JSON that comes in pieces. `file` is what errors call it. */
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

/** Of a checkpoint's configurations. */
const LONGEST_CONFIG = 2 ** 24

/** The object in a small file that belongs to a checkpoint. @throws CheckpointError naming the file */
export async function readCheckpointJson(path: string): Promise<Record<string, unknown>> {
  try {
    const value = await parseJson(chunksOf(path, LONGEST_CONFIG), path)
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('it is not an object')
    return value as Record<string, unknown>
  } catch (cause) {
    const { message } = cause as Error
    throw new CheckpointError(`${path} cannot be read as a configuration: ${message}`, { file: path, cause })
  }
}

/** Throws for JSON that would fill V8's heap, which ends the process. */
export function refuseTooMuch(scan: JsonScan, file: string, line?: number): void {
  const fault = scan.tooMuch()
  if (fault !== undefined) throw faultIn(file, fault, line === undefined ? {} : { line })
}

/**
 * The value of one JSON text that nests no deeper than allowed.
 * @param wide whether it may hold integers beyond 2^53
 * @param line number of the text's first line in the file
 */
export function jsonValue(text: string, wide: boolean, file: string, line = 1): unknown {
  if (!wide) {
    try {
      return JSON.parse(text)
    } catch {
      // Python's NaN, or an error whose place is still to be found.
    }
  }
  try {
    return parseCarefully(text)
  } catch (fault) {
    if (!(fault instanceof JsonFault)) throw fault
    if (text.trim() === '') throw faultIn(file, 'there is no JSON value, only blanks', { line })
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
 * Writes a value as a JSON file that ends in a line break. The file appears whole or not at all. Properties that are
 * undefined are left out and `toJSON` is called, as by `JSON.stringify`; a bigint is written as an integer.
 *
 * @throws DataError for NaN, infinities, typed arrays, cycles and whatever else has no form in JSON (naming its
 * `path`), or when the file cannot be written
 */
export async function writeJson(path: string, value: unknown, options: WriteJsonOptions = {}): Promise<void> {
  requireString('writeJson', 'path', path)
  requireOptions('writeJson', options, ['indent'])
  const { indent = 2 } = options
  requireWhole('writeJson', 'indent', indent)
  if (indent > 10) throw misuse('writeJson', 'indent', 'at most 10', indent)
  const bytes = Buffer.from(`${jsonFor(path, value, indent)}\n`)
  await writeAtomically(path, DataError, (write) => write(bytes))
}

/** The text of a value that is meant for a file. */
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
    // A string of more than 512 MB.
    if (error instanceof RangeError) {
      throw new DataError(`${path} cannot be written: its text is too long; use writeJsonl`, {
        file: path,
        cause: error,
      })
    }
    throw error
  }
}
