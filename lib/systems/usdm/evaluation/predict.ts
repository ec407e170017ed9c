import { existsSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { writeWav } from '../../../audio/write.js'
import { makeDirectory, writeAtomicallySync } from '../../../base/atomic.js'
import { argumentError, requireFunction, requireObject } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, functionOf, settings } from '../../../base/settings.js'
import { readJson } from '../../../files/json/json.js'
import { scope, tensor } from '../../../tensor/index.js'
import { pairsOf, type UsdmDialogs, type UsdmSpokenTurn } from '../data/dialogs.js'
import { readUsdmPredictions, type UsdmPrediction, writeUsdmPredictions } from './predictions.js'

/** A model that replies to speech: `Usdm`, or any object with `respond`. */
export interface AnswersSpeech {
  /** @param question the path of an audio file */
  respond(question: string): Promise<{
    transcript: string
    text: string
    wav?: { samples: Float32Array; sampleRate: number } | null
  }>
}

const SETTINGS = settings({
  /** File of predictions to write; spoken replies go to a folder of the same name. Turns in an existing file are skipped. */
  output: { type: 'string', required: true },
  /**
   * Identifies the model and its options, such as `usdm.fingerprint()`. It is saved next to the output, and an output with another
   * fingerprint is an error. Default: an existing output is assumed to be of this model.
   */
  fingerprint: { type: 'string' },
  /** Maximum number of turns. Default: all. */
  limit: { type: 'integer', min: 1 },
  /** Called with the number of finished turns, and the total. */
  onReply: { type: functionOf<(done: number, total: number) => void>() },
})

/** Options of `predictUsdm`. @interface */
export type PredictUsdmOptions = ChangesOf<typeof SETTINGS.table>

/**
 * Generate a reply to each turn of dialogs that has one, and write transcript, reply and audio with their references, for
 * {@link scoreUsdm}. A reply without units is written without audio. An interrupted run continues.
 *
 * ```ts
 * const answering = { respond: (wav: string) => usdm.respond(wav, { strict: true, maxUnits: 500 }) }
 * const predictions = await predictUsdm(answering, await readUsdmJsonl('test.jsonl'), {
 *   output: 'predictions.jsonl',
 *   fingerprint: await usdm.fingerprint(),
 * })
 * ```
 * @throws DataError naming the turn that failed, after writing the replies before it; ConfigError for an output of another model or
 * with other options
 */
export async function predictUsdm(
  model: AnswersSpeech,
  dialogs: Pick<UsdmDialogs, 'dialogs'>,
  options: PredictUsdmOptions,
): Promise<UsdmPrediction[]> {
  const where = 'predictUsdm'
  requireObject(where, 'model', model)
  requireFunction(where, 'model.respond', model.respond)
  const { output, fingerprint, limit, onReply } = SETTINGS.read(where, options)
  const turn = { dialog: 'string', turn: 'number', text: 'string', audio: { path: 'string' } } as const
  requireForm(where, 'dialogs', dialogs, { dialogs: [{ turns: [turn] }] })
  const turns = dialogs.dialogs.flatMap(({ turns: all }) =>
    pairsOf(all.length, 'single').map(([pair]) => {
      const [user, agent] = pair as [number, number]
      return [all[user] as UsdmSpokenTurn, all[agent] as UsdmSpokenTurn] as const
    }),
  )
  const selected = turns.slice(0, limit)
  const before = existsSync(output) ? (await readUsdmPredictions(output)).predictions : []
  const known = new Map(before.map((one) => [one.id, one]))
  const folder = resolve(output.replace(/\.jsonl?$/i, ''))
  makeDirectory(dirname(resolve(output)), DataError)
  await requireSameModel(output, `${folder}.made-by.json`, fingerprint)
  const predictions: UsdmPrediction[] = []
  let unwritten = 0
  // The whole file is rewritten each time, so that it is always complete.
  const save = async () => {
    const done = new Set(predictions.map(({ id }) => id))
    await writeUsdmPredictions(output, [...predictions, ...before.filter(({ id }) => !done.has(id))])
    unwritten = 0
  }
  try {
    for (const [i, [user, agent]] of selected.entries()) {
      const id = `${user.dialog}:${user.turn}`
      const found = known.get(id)
      predictions.push(found ?? (await predictionOf(model, user, agent, id, folder)))
      if (found) continue
      unwritten += 1
      if (unwritten === 20) await save()
      onReply?.(i + 1, selected.length)
    }
  } finally {
    if (unwritten > 0) await save()
  }
  if (!existsSync(output)) await save()
  return predictions
}

/** Refuse an output of another model: mixed predictions would be scored as one model's. */
async function requireSameModel(output: string, file: string, fingerprint: string | undefined): Promise<void> {
  if (existsSync(output)) {
    const recorded = existsSync(file) ? ((await readJson(file)) as { fingerprint?: unknown } | null) : null
    if (recorded?.fingerprint === fingerprint) return
    const before = recorded ? 'one of another model, or with other options' : 'one without a recorded model'
    const advice = fingerprint === undefined ? 'Set `fingerprint`, or use another output.' : 'Use another output.'
    throw new ConfigError(`${output}: expected predictions of this model, got ${before}. ${advice}`, {
      argument: 'output',
      file: output,
    })
  }
  if (fingerprint === undefined && !existsSync(file)) return
  writeAtomicallySync(file, DataError, `${JSON.stringify({ fingerprint }, null, 2)}\n`)
}

async function predictionOf(
  model: AnswersSpeech,
  user: UsdmSpokenTurn,
  agent: UsdmSpokenTurn,
  id: string,
  folder: string,
): Promise<UsdmPrediction> {
  const { path } = user.audio
  const reply = await model.respond(path).catch((cause: Error) => {
    const [transcript, text] = [Reflect.get(cause, 'transcript'), Reflect.get(cause, 'text')]
    // A reply without units has no audio, and is scored by its texts.
    if (typeof transcript === 'string' && typeof text === 'string') return { transcript, text, wav: null }
    throw new DataError(`${user.file}, line ${user.line}: ${path}: ${cause.message}`, {
      ...{ id, file: user.file, line: user.line, cause },
    })
  })
  const { transcript, text, wav } = reply ?? {}
  if (typeof transcript !== 'string' || typeof text !== 'string') {
    throw argumentError('predictUsdm', `the result of model.respond for ${path}`, '{ transcript, text }', reply)
  }
  const prediction = { id, user: user.text, agent: agent.text, transcript, reply: text }
  if (!wav || wav.samples.length === 0) return prediction
  makeDirectory(folder, DataError)
  const file = join(folder, `${id.replace(/[^\w.-]/g, '_')}.wav`)
  await scope(async () => writeWav(file, tensor(wav.samples), { sampleRate: wav.sampleRate }))
  return { ...prediction, wav: file }
}
