import { DataError } from '../../../base/errors.js'
import { LONGEST_STRING } from '../../../base/heap.js'
import { jsonValue } from '../../../files/json/json.js'
import { readJsonl } from '../../../files/json/jsonl.js'
import { chunksOf, utf8 } from '../../../files/text.js'
import type { PythonFault, ResultLine } from './strict.js'

/** A line of a result file with an answer and the truth. */
export interface EmoVerseResult {
  query: string
  label: string
  response: string
  /** How likely each label is, where answers were labels. */
  probabilities?: Record<string, number>
  /** Its number in the file, from 1. */
  line: number
}

/**
 * @throws DataError naming line and key, for a line that lacks label or response, or whose probabilities are no numbers; a response
 * that is null is ''
 */
export async function readResults(file: string): Promise<EmoVerseResult[]> {
  const found: EmoVerseResult[] = []
  let line = 0
  for await (const value of readJsonl(file, { skipBlank: true })) {
    line += 1
    const { query = '', label, response, probabilities } = (value ?? {}) as Record<string, unknown>
    const wrong =
      typeof label !== 'string' ? 'label' : typeof response !== 'string' && response !== null ? 'response' : undefined
    if (wrong !== undefined) {
      throw new DataError(`${file}, record ${line}: its ${wrong} is no text`, { file, line, key: wrong })
    }
    if (probabilities !== undefined && !areNumbers(probabilities)) {
      throw new DataError(`${file}, record ${line}: its probabilities are no numbers by label`, {
        ...{ file, line, key: 'probabilities' },
      })
    }
    found.push({
      query: String(query ?? ''),
      label: label as string,
      response: (response as string | null) ?? '',
      ...(probabilities !== undefined && { probabilities }),
      line,
    })
  }
  if (found.length === 0) throw new DataError(`${file} holds no result`, { file })
  return found
}

const areNumbers = (value: unknown): value is Record<string, number> =>
  typeof value === 'object' && value !== null && Object.values(value).every((one) => typeof one === 'number')

/**
 * The lines as Python reads them, one after the other: each is JSON, blank ones too.
 * @throws DataError with `kind` 'JSONDecodeError', when that line is reached
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
    throw new DataError(`The published evaluation ends with ${kind}: line ${line} ${what}`, { kind, file, line })
  }
  let value: unknown
  try {
    value = jsonValue(text, /\d{16}/.test(text), file, line)
  } catch {
    fail('JSONDecodeError', 'is no JSON')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return fail('TypeError', 'is no object')
  return value as ResultLine
}
