import { writeAtomically } from '../../../base/atomic.js'
import { requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { chunksOf, utf8 } from '../../../files/text.js'
import { IGNORED, type UsdmExample } from './prompt.js'

/** Return the line of an example in a file: `id id id ...|label label label ...`. */
export function formatExample({ inputIds, labels }: UsdmExample): string {
  return `${inputIds.join(' ')}|${labels.join(' ')}`
}

/**
 * Parse a line of a file of examples.
 * @throws DataError with `file` and `line` unless the line has two lists of the same length, and each label is -100 or the id at its
 * position
 */
export function parseExample(text: string, file: string, line: number): UsdmExample {
  const fault = (expected: string) => new DataError(`${file}, line ${line}: expected ${expected}.`, { file, line })
  const halves = text.split('|')
  if (halves.length !== 2) throw fault(`2 lists, ids|labels, got ${halves.length}`)
  const [inputIds = [], labels = []] = halves.map((half) =>
    half.split(' ').map((word) => {
      if (!/^(-100|\d{1,10})$/.test(word)) throw fault(`an id, got ${JSON.stringify(word.slice(0, 40))}`)
      return Number(word)
    }),
  )
  if (inputIds.length !== labels.length) {
    throw fault(`as many labels as ids, got ${labels.length} labels and ${inputIds.length} ids`)
  }
  if (inputIds.includes(IGNORED)) throw fault(`ids of at least 0, got ${IGNORED}`)
  const wrong = labels.findIndex((label, i) => label !== IGNORED && label !== inputIds[i])
  if (wrong >= 0) throw fault(`label ${wrong + 1} to be -100 or its id, ${inputIds[wrong]}, got ${labels[wrong]}`)
  return { inputIds, labels }
}

/**
 * Read examples that `preprocessDailyTalk` or the original wrote, one at a time.
 * @throws DataError with `file` and `line`, when the loop reaches a malformed line
 */
export const readUsdmExamples = (path: string): AsyncGenerator<UsdmExample, void, void> =>
  parsedLines('readUsdmExamples', path, parseExample)

/** Parse the lines of a file, one at a time. */
export async function* parsedLines<T>(
  where: string,
  path: string,
  parse: (text: string, file: string, line: number) => T,
): AsyncGenerator<T, void, void> {
  requireString(where, 'path', path)
  let rest = ''
  let line = 0
  for await (const chunk of chunksOf(path)) {
    const lines = (rest + utf8(chunk, path, line + 1)).split('\n')
    rest = lines.pop() as string
    if (rest.length > LONGEST)
      throw new DataError(`${path}, line ${line + 1}: expected at most ${LONGEST} characters, got more.`, {
        file: path,
        line: line + 1,
      })
    for (const text of lines) yield parse(text, path, ++line)
  }
  if (rest !== '') yield parse(rest, path, ++line)
}

const LONGEST = 1 << 26

/** Write examples in the original's format: one per line, without a line break at the end. @throws DataError */
export async function writeUsdmExamples(path: string, examples: Iterable<UsdmExample>): Promise<void> {
  requireString('writeUsdmExamples', 'path', path)
  requireForm('writeUsdmExamples', 'examples', examples, 'iterable')
  await writeAtomically(path, DataError, async (write) => {
    let parts: string[] = []
    let size = 0
    let first = true
    const flush = async () => {
      await write(Buffer.from(parts.join('')))
      parts = []
      size = 0
    }
    for (const example of examples) {
      requireForm('writeUsdmExamples', 'an example', example, { inputIds: 'list', labels: 'list' })
      const text = formatExample(example)
      parts.push(first ? text : `\n${text}`)
      first = false
      size += text.length
      if (size > 1 << 22) await flush()
    }
    await flush()
  })
}
