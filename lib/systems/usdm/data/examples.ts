import { writeAtomically } from '../../../base/atomic.js'
import { requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { chunksOf, utf8 } from '../../../files/text.js'
import { IGNORED, type UsdmExample } from './prompt.js'

/** A line of a file of examples: `id id id ...|label label label ...`. */
export function formatExample({ inputIds, labels }: UsdmExample): string {
  return `${inputIds.join(' ')}|${labels.join(' ')}`
}

/**
 * Reads such a line.
 * @throws DataError with `file` and `line` for one that is none: other than two lists of one length, or a label that is neither
 * -100 nor the id in its place
 */
export function parseExample(text: string, file: string, line: number): UsdmExample {
  const fault = (what: string) => new DataError(`${file}, line ${line}: ${what}`, { file, line })
  const halves = text.split('|')
  if (halves.length !== 2) throw fault(`there are ${halves.length} lists, expected 2: ids|labels`)
  const [inputIds = [], labels = []] = halves.map((half) =>
    half.split(' ').map((word) => {
      if (!/^(-100|\d{1,10})$/.test(word)) throw fault(`${JSON.stringify(word.slice(0, 40))} is no id`)
      return Number(word)
    }),
  )
  if (inputIds.length !== labels.length) {
    throw fault(`there are ${inputIds.length} ids and ${labels.length} labels, which must be as many`)
  }
  if (inputIds.includes(IGNORED)) throw fault(`${IGNORED} stands among the ids`)
  const wrong = labels.findIndex((label, i) => label !== IGNORED && label !== inputIds[i])
  if (wrong >= 0) throw fault(`label ${wrong + 1} is ${labels[wrong]}, and the id in its place ${inputIds[wrong]}`)
  return { inputIds, labels }
}

/**
 * Reads examples that `preprocessDailyTalk` or the original wrote, one after the other.
 * @throws DataError with `file` and `line`, when the loop gets there
 */
export async function* readUsdmExamples(path: string): AsyncGenerator<UsdmExample, void, void> {
  requireString('readUsdmExamples', 'path', path)
  let rest = ''
  let line = 0
  for await (const chunk of chunksOf(path)) {
    const lines = (rest + utf8(chunk, path, line + 1)).split('\n')
    rest = lines.pop() as string
    if (rest.length > LONGEST)
      throw new DataError(`${path}, line ${line + 1}: it is too long`, { file: path, line: line + 1 })
    for (const text of lines) yield parseExample(text, path, ++line)
  }
  if (rest !== '') yield parseExample(rest, path, ++line)
}

const LONGEST = 1 << 26

/** Writes examples in the original's form: a line each, with no line break behind the last. @throws DataError */
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
