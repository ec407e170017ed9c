import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs'
import { open, truncate } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { argumentError, defined, requireString, requireWhole } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import type { Dataset } from '../../../data/dataset.js'
import { jsonFor, jsonValue, readJson, writeJson } from '../../../files/json/json.js'
import { chunksOf, utf8 } from '../../../files/text.js'
import { peftModelOf } from '../../../peft/model.js'
import { withRecordIndex } from '../data/dataset.js'
import { MEDIA_KEYS, type SwiftRecord } from '../data/entry.js'
import { type EmoVerseRecords, LeftOut, openRecords } from '../data/open.js'
import { type LabelThresholds, requireThresholds, selectCauses, selectLabel } from '../evaluation/thresholds.js'
import { type EmoVerseGenerateOptions, generateAnswers } from '../network/answers.js'
import { baseHash } from '../network/files.js'
import { isTooLong } from '../network/limits.js'
import { EmoVerse } from '../network/network.js'
import type { EmoVerseScoreOptions } from '../network/probabilities.js'
import { withVisionCache } from '../network/vision-cache.js'
import { allowedLabels, allowedPairs } from '../published/wording.js'

export interface InferEmoVerseOptions extends EmoVerseGenerateOptions, LabelThresholds {
  /** Instruction data. Its answers, if it has any, become the `label` of a result. */
  data: EmoVerseRecords
  /**
   * Result file, whose name ends in `.jsonl`, or a folder. In a folder the newest file is continued if it is unfinished and comes from
   * this model with these settings; otherwise a new file is named by the time. Settings are stored next to it in `.run.json`.
   */
  output: string
  /**
   * Policy for a record that cannot be used or whose media cannot be read. 'skip' (default) leaves it out and counts it by cause; 'stop'
   * throws. With `compat` a record with unreadable media is answered with ''.
   */
  onBadRecord?: 'skip' | 'stop'
  /**
   * Answer by probability. Questions about sentiment and emotion get the most likely allowed label, or with `thresholds` the most likely
   * one that reaches its threshold. Questions about causes get the most likely one, and with `causeThreshold` all that reach it. Results
   * have the `probabilities` of all candidates. Default false: answers are generated freely.
   */
  byLabels?: boolean
  /** Folder that caches the vision encoder's output for each image and frame, across runs. */
  visionCache?: string
  /** Called with the number of records done, and of all. */
  onProgress?: (done: number, all: number) => void
}

export interface InferredEmoVerse {
  file: string
  /** Results in the file. */
  records: number
  /** Results that an earlier run had written to it. */
  continued: number
  /** Sentences about records that were left out, and why. */
  notes: string[]
}

/** Batches that are answered between two writes. */
const WAVES = 4

/**
 * Answer instruction data into a result file as ms-swift writes it: JSON lines in the order of the data, with `system`, `query`,
 * `response`, `label`, `history` and the media of each record. Missing media markers are put in front of the query, or of the history's
 * first query. Calling it again continues a killed run.
 *
 * ```ts
 * const { file } = await inferEmoVerse(model, { data: 'meld_test_data.json', output: 'infer_result', maxNewTokens: 8 })
 * console.log(await scoreEmoVerse(file))
 * ```
 * @throws DataError if the file has results of other data, and for a prompt that is too long; ConfigError if the named file has results
 * of another model or other settings; otherwise as `EmoVerse.generate`
 */
export async function inferEmoVerse(model: EmoVerse, options: InferEmoVerseOptions): Promise<InferredEmoVerse> {
  const where = 'inferEmoVerse'
  if (!(model instanceof EmoVerse)) throw argumentError(where, 'model', 'an EmoVerse', model)
  // The remaining options go to generateAnswers, which rejects unknown ones.
  const { data, output, onBadRecord = 'skip', byLabels = false, visionCache, onProgress, ...others } = options ?? {}
  const { thresholds, fallback, causeThreshold, ...generation } = others
  const naming = defined({ thresholds, fallback, causeThreshold })
  requireString(where, 'output', output)
  if (visionCache !== undefined) requireString(where, 'visionCache', visionCache)
  const { batchSize = 8, mediaRoot = '.' } = generation
  requireWhole(where, 'batchSize', batchSize, 1)
  if (typeof byLabels !== 'boolean') throw argumentError(where, 'byLabels', 'a boolean', byLabels)
  requireThresholds(where, naming)
  for (const argument of byLabels ? [] : Object.keys(naming)) {
    throw new ConfigError(
      `${where}: expected ${argument} only together with byLabels: true, got byLabels: false. Set byLabels, or leave ${argument} out.`,
      { argument },
    )
  }
  if (byLabels && generation.constrained) {
    throw new ConfigError(`${where}: expected either byLabels or constrained, got both. byLabels generates no text.`, {
      argument: 'constrained',
    })
  }
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw argumentError(where, 'onProgress', 'a function', onProgress)
  }
  const opened = await openRecords(data, {
    ...{ onBadRecord, requireResponse: false },
    // Media files must exist only if the model reads them.
    ...((model.seesMedia || model.hearsMedia) && { mediaRoot }),
  })
  const { records, notes } = opened
  const settings = await settingsOf(model, generation, { byLabels, ...naming })
  const { file, next, results, skipped } = await resultFile(output, model, records, settings)
  mkdirSync(dirname(file), { recursive: true })
  const saved = () => writeJson(runFile(file), { settings, skipped } satisfies ResultRun)
  const wave = batchSize * WAVES
  const empty = new LeftOut()
  let written = results
  await withVisionCache(model, visionCache, async () => {
    for (let i = next; i < records.length; i += wave) {
      const part = await Promise.all(
        Array.from({ length: Math.min(wave, records.length - i) }, (_, k) => records.get(i + k, 0)),
      )
      const left: Skipped[] = []
      let stop: { error: DataError; at: number } | undefined
      const onBad = (error: DataError, k: number) => {
        const record = i + k
        const { message, reason } = error as DataError & { reason?: string }
        if (onBadRecord === 'stop' || isTooLong(error)) {
          const named = withRecordIndex(error, opened.name, record)
          if (k === 0) throw named
          if (k < (stop?.at ?? part.length)) stop = { error: named, at: k }
          return
        }
        const isMarkers = reason === 'markers'
        const why = isMarkers ? 'that have other markers than media' : 'whose media or texts cannot be read'
        left.push({ record, why, message })
      }
      const answers = await answersTo(model, part, i, byLabels ? naming : undefined, generation, onBad)
      // Keep the answers before the record that stops the run: the next call continues there.
      const kept = part.slice(0, stop?.at)
      if (generation.compat === 'published') {
        for (const { why, record, message } of left.splice(0)) empty.add(why, `record ${record + 1}: ${message}`)
      }
      skipped.push(...left.filter(({ record }) => record < i + kept.length).sort((a, b) => a.record - b.record))
      // Save settings and skipped records before the results, so that a file can always be continued.
      if (i === next || left.length > 0) await saved()
      const lines = kept.flatMap((record, k) => {
        if (left.some((one) => one.record === i + k)) return []
        const { response, ...rest } = answers[k] as Answer
        return [`${jsonFor(file, { ...resultOf(model, record, response), ...rest }, 0)}\n`]
      })
      await appended(file, lines.join(''))
      written += lines.length
      if (stop) throw stop.error
      onProgress?.(i + part.length, records.length)
    }
  })
  if (written === 0) {
    await saved()
    await appended(file, '')
  }
  const out = new LeftOut()
  for (const { why, record, message } of skipped) out.add(why, `record ${record + 1}: ${message}`)
  const all = [...notes, ...out.notes(), ...empty.notes('were answered with nothing')]
  return { file, records: written, continued: results, notes: all }
}

interface Answer {
  response: string
  probabilities?: Record<string, number>
}

/**
 * Answer a batch of records, by label probability or by generation.
 * @param first index in the data of the first record
 * @param naming thresholds if label probabilities decide the answers
 * @param onBad called for a record that cannot be encoded, whose answer is then ''
 */
async function answersTo(
  model: EmoVerse,
  records: readonly SwiftRecord[],
  first: number,
  naming: LabelThresholds | undefined,
  generation: EmoVerseGenerateOptions,
  onBad: (error: DataError, index: number) => void,
): Promise<Answer[]> {
  const { mediaRoot, signal, maxLength, maxExpandedLength, compat } = generation
  const options = defined({ mediaRoot, signal, maxLength, maxExpandedLength })
  const scored = records.map((record) => (naming ? scoredBy(model, record, naming, options) : undefined))
  const free = [...records.keys()].filter((i) => scored[i] === undefined)
  const written = await generateAnswers(
    model,
    free.map((i) => records[i] as SwiftRecord),
    generation,
    { onBad: (error, k) => onBad(error, free[k] as number), placeOf: (k) => first + (free[k] as number) },
  )
  const answers: Answer[] = []
  for (const [i, score] of scored.entries()) {
    if (score === undefined) {
      answers.push({ response: written.shift()?.text as string })
      continue
    }
    try {
      answers.push(await score())
    } catch (error) {
      if (!(error instanceof DataError)) throw error
      if (compat !== 'published' || !isTooLong(error)) onBad(error, i)
      answers.push({ response: '' })
    }
  }
  return answers
}

/** Return a function that answers a question with a fixed set of answers; undefined for an open question. */
function scoredBy(
  model: EmoVerse,
  record: SwiftRecord,
  naming: LabelThresholds,
  options: EmoVerseScoreOptions,
): (() => Promise<Answer>) | undefined {
  const labels = allowedLabels(record.query)
  if (labels) {
    return async () => {
      const probabilities = await model.scoreLabels(record, labels, options)
      return { response: selectLabel(probabilities, naming), probabilities }
    }
  }
  if (allowedPairs(record.query).length === 0) return undefined
  return async () => {
    const probabilities = await model.scoreCauses(record, options)
    return { response: selectCauses(probabilities, naming), probabilities }
  }
}

function resultOf(model: EmoVerse, record: SwiftRecord, response: string): Record<string, unknown> {
  const { query, response: label, history = [], system = model.system } = record
  const media = MEDIA_KEYS.flatMap((key) => (record[key] ? [[key, record[key]]] : []))
  return { system, query, response, label, history, ...Object.fromEntries(media) }
}

/** Append text to the file, and flush it to disk before the next batches start. */
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
    throw new DataError(`${file}: expected a writable file, got ${(cause as Error).message}.`, { file, cause })
  }
}

/** Settings that change results, as JSON. All results of one file have the same. */
type Settings = Readonly<Record<string, unknown>>

/** A record without a result, by its index in the data. */
interface Skipped {
  record: number
  why: string
  message: string
}

/** Contents of `.run.json` next to a result file, whose own lines have only the published keys. */
interface ResultRun {
  settings: Settings
  skipped: Skipped[]
}

const runFile = (file: string): string => file.replace(/jsonl$/, 'run.json')

async function settingsOf(model: EmoVerse, generation: EmoVerseGenerateOptions, own: Settings): Promise<Settings> {
  // Batch size and location of the media do not change answers.
  const { batchSize: _, mediaRoot: __, signal: ___, ...settings } = generation
  const adapters = peftModelOf(model.model)?.activeAdapters ?? []
  const text = JSON.stringify({ ...settings, ...own }, (_key, value) =>
    typeof value === 'function' ? String(value) : value,
  )
  return { model: await baseHash(model), adapters, ...(jsonValue(text, false, 'settings') as Settings) }
}

interface Resumed {
  /** Index of the first record without a result. */
  next: number
  results: number
  skipped: Skipped[]
}

/** Return the file to write and its existing results. @throws ConfigError if the named file belongs to another run */
async function resultFile(
  output: string,
  model: EmoVerse,
  records: Dataset<SwiftRecord>,
  settings: Settings,
): Promise<Resumed & { file: string }> {
  const none = { next: 0, results: 0, skipped: [] }
  if (output.endsWith('.jsonl')) {
    if (!existsSync(output) || statSync(output).size === 0) return { file: output, ...none }
    const { run, differs } = await runOf(output, settings)
    if (differs.length > 0) {
      const what = run
        ? `results of another model or other settings (${differs.join(', ')})`
        : `results without ${runFile(output)}, which records their model`
      throw new ConfigError(
        `${output}: expected results of this model and these settings, got ${what}. Name another file.`,
        {
          ...{ argument: 'output', before: run?.settings, now: settings },
        },
      )
    }
    return { file: output, ...(await resumed(output, model, records, run?.skipped ?? [])) }
  }
  const last = existsSync(output) && statSync(output).isDirectory() ? lastResult(output) : undefined
  const { run, differs } = last === undefined ? { run: undefined, differs: [] } : await runOf(last, settings)
  if (last !== undefined && run && differs.length === 0) {
    const found = await resumed(last, model, records, run.skipped).catch((error: unknown) => {
      if (error instanceof DataError) return none
      throw error
    })
    if (found.next > 0 && found.next < records.length) return { file: last, ...found }
  }
  let name = timestamp(new Date())
  for (let i = 2; existsSync(join(output, `${name}.jsonl`)); i++) name = `${timestamp(new Date())}-${i}`
  return { file: join(output, `${name}.jsonl`), ...none }
}

/** Read the `.run.json` of a result file, and return it with the names of settings that differ; without a file, all of them. */
async function runOf(file: string, settings: Settings): Promise<{ run: ResultRun | undefined; differs: string[] }> {
  const path = runFile(file)
  if (!existsSync(path)) return { run: undefined, differs: Object.keys(settings) }
  const run = (await readJson(path)) as ResultRun
  const form = { settings: 'object', skipped: [{ record: 'number', why: 'string', message: 'string' }] } as const
  requireForm(path, 'the file', run, form)
  const keys = [...new Set([...Object.keys(run.settings), ...Object.keys(settings)])]
  return { run, differs: keys.filter((key) => JSON.stringify(run.settings[key]) !== JSON.stringify(settings[key])) }
}

/** Return the result file that was modified last. */
const lastResult = (folder: string): string | undefined =>
  readdirSync(folder)
    .filter((name) => name.endsWith('.jsonl'))
    .map((name) => join(folder, name))
    .sort((a, b) => statSync(a).mtimeMs - statSync(b).mtimeMs)
    .at(-1)

/** Format a time as ms-swift names its files: `20261123-140509`. */
function timestamp(now: Date): string {
  const two = (value: number) => String(value).padStart(2, '0')
  const day = `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}`
  return `${day}-${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`
}

/**
 * Count the results that a file has already, and cut off an incomplete last line.
 * @throws DataError for a result of another record
 */
async function resumed(
  file: string,
  model: EmoVerse,
  records: Dataset<SwiftRecord>,
  skipped: readonly Skipped[],
): Promise<Resumed> {
  const left = new Set(skipped.map(({ record }) => record))
  const afterSkipped = (place: number): number => {
    let next = place
    while (left.has(next)) next += 1
    return next
  }
  let [next, results, bytes] = [afterSkipped(0), 0, 0]
  let open: Uint8Array[] = []
  for await (const chunk of chunksOf(file)) {
    let from = 0
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      const whole = Buffer.concat([...open, chunk.subarray(from, end)])
      const expected = next < records.length ? await records.get(next, 0) : undefined
      const line = results + 1
      const wrong = expected ? otherKey(resultIn(whole, file, line), resultOf(model, expected, '')) : undefined
      if (expected === undefined || wrong !== undefined) {
        const what = expected ? `another ${wrong}` : 'more results than records'
        throw new DataError(
          `${file} line ${line}: expected the results of this data, got ${what}. Name another file.`,
          {
            file,
            line,
          },
        )
      }
      open = []
      from = end + 1
      bytes += whole.length + 1
      results += 1
      next = afterSkipped(next + 1)
    }
    open.push(chunk.subarray(from))
  }
  if (statSync(file).size > bytes) await truncate(file, bytes)
  return { next, results, skipped: skipped.filter(({ record }) => record < next) }
}

/** Return the first key in which a result differs from its record, or undefined. */
function otherKey(found: Record<string, unknown>, expected: Record<string, unknown>): string | undefined {
  const keys = ['query', 'system', 'label', 'history', ...MEDIA_KEYS]
  const key = keys.find((one) => JSON.stringify(found[one]) !== JSON.stringify(expected[one]))
  return key === 'query' ? 'question' : key
}

function resultIn(bytes: Uint8Array, file: string, line: number): Record<string, unknown> {
  try {
    return (jsonValue(utf8(bytes, file, line), false, file, line) ?? {}) as Record<string, unknown>
  } catch (error) {
    if (error instanceof DataError) return {}
    throw error
  }
}
