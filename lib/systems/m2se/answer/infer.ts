import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs'
import { open, truncate } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { defined, misuse, requireString, requireWhole } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { Dataset } from '../../../data/dataset.js'
import { jsonFor, jsonValue } from '../../../files/json/json.js'
import { chunksOf, utf8 } from '../../../files/text.js'
import { MEDIA_KEYS, type SwiftRecord } from '../data/entry.js'
import { type EmoVerseRecords, openRecords } from '../data/open.js'
import type { EmoVerseGenerateOptions } from '../network/answers.js'
import { isTooLong } from '../network/limits.js'
import { EmoVerse } from '../network/network.js'
import { withVisionCache } from '../network/vision-cache.js'
import { labelsAllowed } from '../published/wording.js'

export interface InferEmoVerseOptions extends EmoVerseGenerateOptions {
  /** Instruction data; its answers, where it has any, become the `label` of a result. */
  data: EmoVerseRecords
  /**
   * The result file, whose name ends in `.jsonl`; or a folder, in which a file that is not finished is gone on with, and else one
   * is begun that is called by the time.
   */
  output: string
  /** What a record that cannot be used does: 'skip' (default) leaves it out, 'stop' throws. */
  onBadRecord?: 'skip' | 'stop'
  /**
   * Questions about sentiment and emotion are answered with the likeliest of the labels that they allow, and a result has the
   * `probabilities` of all. Default false: every answer is written freely.
   */
  byLabels?: boolean
  /** A folder that keeps what the vision part makes of each picture and frame, so that it is computed once by whatever run. */
  visionCache?: string
  /** Hears how many results there are, of how many. */
  onProgress?: (done: number, all: number) => void
}

export interface InferredEmoVerse {
  file: string
  /** Results in it, and those of them that were there already. */
  records: number
  continued: number
  /** What was left out of the data and why, in sentences. */
  notes: string[]
}

/** Records that are answered between two writes, for each that is answered at a time. */
const WAVES = 4

/**
 * Answers instruction data into a result file as ms-swift writes it: JSON lines in the order of the data, with `system`, `query`,
 * `response`, `label`, `history` and the media of each record; markers of media stand in front of the query, or of the history's
 * first, where they were missing. The same call goes on where a killed one stopped.
 *
 * ```ts
 * const { file } = await inferEmoVerse(model, { data: 'meld_test_data.json', output: 'infer_result', maxNewTokens: 8 })
 * console.log(await scoreEmoVerse(file))
 * ```
 * @throws DataError where the file has results of other data; ConfigError as `EmoVerse.generate`
 */
export async function inferEmoVerse(model: EmoVerse, options: InferEmoVerseOptions): Promise<InferredEmoVerse> {
  const where = 'inferEmoVerse'
  if (!(model instanceof EmoVerse)) throw misuse(where, 'model', 'an EmoVerse', model)
  // What is left is the generation's, which refuses what it does not know.
  const { data, output, onBadRecord = 'skip', byLabels = false, visionCache, onProgress, ...generation } = options ?? {}
  requireString(where, 'output', output)
  if (visionCache !== undefined) requireString(where, 'visionCache', visionCache)
  const { batchSize = 8, mediaRoot = '.' } = generation
  requireWhole(where, 'batchSize', batchSize, 1)
  if (typeof byLabels !== 'boolean') throw misuse(where, 'byLabels', 'a boolean', byLabels)
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw misuse(where, 'onProgress', 'a function', onProgress)
  }
  const { records, notes } = await openRecords(data, {
    ...{ onBadRecord, requireResponse: false },
    ...(model.seesMedia && { mediaRoot }),
  })
  const { file, done } = await resultFile(output, records)
  mkdirSync(dirname(file), { recursive: true })
  const wave = batchSize * WAVES
  await withVisionCache(model, visionCache, async () => {
    for (let i = done; i < records.length; i += wave) {
      const part = await Promise.all(
        Array.from({ length: Math.min(wave, records.length - i) }, (_, k) => records.get(i + k, 0)),
      )
      const answers = await answersTo(model, part, byLabels, generation)
      const lines = part.map((record, k) => {
        const { response, ...rest } = answers[k] as Answer
        return `${jsonFor(file, { ...resultOf(model, record, response), ...rest }, 0)}\n`
      })
      await appended(file, lines.join(''))
      onProgress?.(i + part.length, records.length)
    }
  })
  if (records.length === 0) await appended(file, '')
  return { file, records: records.length, continued: done, notes }
}

interface Answer {
  response: string
  probabilities?: Record<string, number>
}

async function answersTo(
  model: EmoVerse,
  records: readonly SwiftRecord[],
  byLabels: boolean,
  generation: EmoVerseGenerateOptions,
): Promise<Answer[]> {
  const allowed = records.map(({ query }) => (byLabels ? labelsAllowed(query) : undefined))
  const written = await model.generate(
    records.filter((_, i) => allowed[i] === undefined),
    generation,
  )
  const answers: Answer[] = []
  for (const [i, record] of records.entries()) {
    const labels = allowed[i]
    if (labels === undefined) {
      answers.push({ response: written.shift()?.text as string })
      continue
    }
    const { mediaRoot, signal, maxLength, maxExpandedLength, compat } = generation
    const options = defined({ mediaRoot, signal, maxLength, maxExpandedLength })
    try {
      const probabilities = await model.scoreLabels(record, labels, options)
      const [best] = Object.entries(probabilities).sort(([, a], [, b]) => b - a)
      answers.push({ response: (best as [string, number])[0], probabilities })
    } catch (error) {
      if (compat !== 'published' || !isTooLong(error)) throw error
      answers.push({ response: '' })
    }
  }
  return answers
}

function resultOf(model: EmoVerse, record: SwiftRecord, response: string): Record<string, unknown> {
  const { query, response: label, history = [], system = model.system } = record
  const media = MEDIA_KEYS.flatMap((key) => (record[key] ? [[key, record[key]]] : []))
  return { system, query, response, label, history, ...Object.fromEntries(media) }
}

/** A wave stands in the file before the next one begins. */
async function appended(file: string, text: string): Promise<void> {
  try {
    const handle = await open(file, 'a')
    try {
      await handle.write(text)
      await handle.datasync()
    } finally {
      await handle.close()
    }
  } catch (cause) {
    throw new DataError(`${file} cannot be written: ${(cause as Error).message}`, { file, cause })
  }
}

/** The file to write, and how many results it has already. */
async function resultFile(output: string, records: Dataset<SwiftRecord>): Promise<{ file: string; done: number }> {
  if (output.endsWith('.jsonl')) {
    if (!existsSync(output)) return { file: output, done: 0 }
    return { file: output, done: await resumed(output, records, true) }
  }
  const last = existsSync(output) && statSync(output).isDirectory() ? lastResult(output) : undefined
  if (last !== undefined) {
    const done = await resumed(last, records, false)
    if (done > 0 && done < records.length) return { file: last, done }
  }
  let name = timestamp(new Date())
  for (let i = 2; existsSync(join(output, `${name}.jsonl`)); i++) name = `${timestamp(new Date())}-${i}`
  return { file: join(output, `${name}.jsonl`), done: 0 }
}

/** The file that was written to last. */
const lastResult = (folder: string): string | undefined =>
  readdirSync(folder)
    .filter((name) => name.endsWith('.jsonl'))
    .map((name) => join(folder, name))
    .sort((a, b) => statSync(a).mtimeMs - statSync(b).mtimeMs)
    .at(-1)

/** As ms-swift calls its files: `20261123-140509`. */
function timestamp(now: Date): string {
  const two = (value: number) => String(value).padStart(2, '0')
  const day = `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}`
  return `${day}-${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`
}

/**
 * How many whole results a file has, whose last line is cut off where it is no whole one.
 * @throws DataError where they are of other data, if that is `required`; else 0 then
 */
async function resumed(file: string, records: Dataset<SwiftRecord>, required: boolean): Promise<number> {
  let [count, bytes, line] = [0, 0, 1]
  let open: Uint8Array[] = []
  for await (const chunk of chunksOf(file)) {
    let from = 0
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      const whole = Buffer.concat([...open, chunk.subarray(from, end)])
      const query = queryOf(whole, file, line)
      const expected = count < records.length ? (await records.get(count, 0)).query : undefined
      if (query === undefined || query !== expected) {
        if (!required) return 0
        const what = expected === undefined ? 'is one more than the data has' : 'has another question than the data'
        throw new DataError(`${file} line ${line}: this result ${what}: give another file`, { file, line })
      }
      open = []
      from = end + 1
      bytes += whole.length + 1
      count += 1
      line += 1
    }
    open.push(chunk.subarray(from))
  }
  if (statSync(file).size > bytes) await truncate(file, bytes)
  return count
}

function queryOf(bytes: Uint8Array, file: string, line: number): string | undefined {
  try {
    return (jsonValue(utf8(bytes, file, line), false, file, line) as { query?: string } | null)?.query
  } catch (error) {
    if (error instanceof DataError) return undefined
    throw error
  }
}
