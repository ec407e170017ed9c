import { shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { LONGEST_STRING } from '../../../base/heap.js'
import { shortened } from '../../../base/words.js'
import { jsonValue } from '../../../files/json/json.js'
import { readJsonl } from '../../../files/json/jsonl.js'
import { chunksOf, utf8 } from '../../../files/text.js'
import type { PythonFault, ResultLine } from './strict.js'

/** A line of a result file, with an answer and the true label. */
export interface EmoVerseResult {
  query: string
  label: string
  response: string
  /** Probabilities of the labels, if answers were chosen by label. */
  probabilities?: Record<string, number>
  /** Line number, from 1. */
  line: number
}

/**
 * Read a result file. A response of null becomes ''.
 * @throws DataError naming record and key, for a record without label or response, or whose probabilities are not numbers
 */
export async function readResults(file: string): Promise<EmoVerseResult[]> {
  const found: EmoVerseResult[] = []
  let line = 0
  for await (const value of readJsonl(file, { skipBlank: true })) {
    line += 1
    const { query = '', label, response, probabilities } = (value ?? {}) as Record<string, unknown>
    const key =
      typeof label !== 'string' ? 'label' : typeof response !== 'string' && response !== null ? 'response' : undefined
    if (key !== undefined) {
      throw new DataError(
        `${file}, record ${line}: expected ${key} to be a string, got ${shown(key === 'label' ? label : response)}.`,
        { file, line, key },
      )
    }
    if (probabilities !== undefined && !areNumbers(probabilities)) {
      throw new DataError(
        `${file}, record ${line}: expected probabilities to be numbers by label, got ${shown(probabilities)}.`,
        {
          ...{ file, line, key: 'probabilities' },
        },
      )
    }
    found.push({
      query: String(query ?? ''),
      label: label as string,
      response: (response as string | null) ?? '',
      ...(probabilities !== undefined && { probabilities }),
      line,
    })
  }
  if (found.length === 0) throw new DataError(`${file}: expected at least one result, got an empty file.`, { file })
  return found
}

const areNumbers = (value: unknown): value is Record<string, number> =>
  typeof value === 'object' && value !== null && Object.values(value).every((one) => typeof one === 'number')

/**
 * Split a file into lines as Python reads them. Each must be JSON, blank ones too.
 * @throws DataError with `kind` 'JSONDecodeError', when iteration reaches an invalid line
 */
export async function readStrictLines(file: string): Promise<{ count: number; lines: Iterable<ResultLine> }> {
  const parts: Uint8Array[] = []
  for await (const chunk of chunksOf(file, LONGEST_STRING)) parts.push(chunk)
  const texts = utf8(Buffer.concat(parts), file).split(/\r\n|\r|\n/)
  if (texts.at(-1) === '') texts.pop()
  function* lines(): Generator<ResultLine> {
    for (const [i, text] of texts.entries()) yield strictLine(text, file, i + 1)
  }
  return { count: texts.length, lines: lines() }
}

function strictLine(text: string, file: string, line: number): ResultLine {
  const fail = (kind: PythonFault, what: string): never => {
    throw new DataError(
      `${file} line ${line}: expected a JSON object, got ${what}. The published evaluation ends here with ${kind}.`,
      { kind, file, line },
    )
  }
  let value: unknown
  try {
    value = jsonValue(text, /\d{16}/.test(text), file, line)
  } catch {
    fail('JSONDecodeError', shortened(text, 80))
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return fail('TypeError', shown(value))
  return value as ResultLine
}
