import { existsSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { writeWav } from '../../../audio/write.js'
import { makeDirectory, writeAtomicallySync } from '../../../base/atomic.js'
import {
  misuse,
  requireFunction,
  requireObject,
  requireOptions,
  requireString,
  requireWhole,
} from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { readJson } from '../../../files/json/json.js'
import { scope, tensor } from '../../../tensor/index.js'
import { pairsOf, type UsdmDialogs, type UsdmSpokenTurn } from '../data/dialogs.js'
import { readUsdmPredictions, type UsdmPrediction, writeUsdmPredictions } from './predictions.js'

/** What answers: `Usdm`, or anything like it. */
export interface AnswersSpeech {
  /** @param question the path of a sound file */
  respond(question: string): Promise<{
    transcript: string
    text: string
    wav?: { samples: Float32Array; sampleRate: number } | null
  }>
}

export interface PredictUsdmOptions {
  /** The file of predictions to write; spoken replies stand beside it, in a folder of its name. What is there is not asked again. */
  output: string
  /**
   * By which model and options answers are made, such as `usdm.fingerprint()` and what it is asked with. It is kept beside the
   * output, and answers that were made by others are refused. Default: whatever is there counts as this model's.
   */
  fingerprint?: string
  /** No more turns than these. Default: all. */
  limit?: number
  /** Called with how many are done, and how many there are. */
  onReply?: (done: number, total: number) => void
}

/**
 * Has a model answer each turn of dialogs that has an answer, and writes what it heard, answered and said beside what is right,
 * for {@link scoreUsdm}. Of a reply that has no units the texts stay. A run that was ended, or broke off, goes on.
 *
 * ```ts
 * const answering = { respond: (wav: string) => usdm.respond(wav, { strict: true, maxUnits: 500 }) }
 * const predictions = await predictUsdm(answering, await readUsdmJsonl('test.jsonl'), {
 *   output: 'predictions.jsonl',
 *   fingerprint: await usdm.fingerprint(),
 * })
 * ```
 * @throws DataError naming the turn that cannot be answered, the answers before it are written; ConfigError for an output that
 * another model, or other options, answered
 */
export async function predictUsdm(
  model: AnswersSpeech,
  dialogs: Pick<UsdmDialogs, 'dialogs'>,
  options: PredictUsdmOptions,
): Promise<UsdmPrediction[]> {
  const where = 'predictUsdm'
  requireObject(where, 'model', model)
  requireFunction(where, 'model.respond', model.respond)
  requireOptions(where, options, ['output', 'fingerprint', 'limit', 'onReply'])
  const { output, fingerprint, limit = Number.MAX_SAFE_INTEGER, onReply } = options
  requireString(where, 'output', output)
  if (fingerprint !== undefined) requireString(where, 'fingerprint', fingerprint)
  requireWhole(where, 'limit', limit, 1)
  if (onReply !== undefined) requireFunction(where, 'onReply', onReply)
  const turn = { dialog: 'string', turn: 'number', text: 'string', audio: { path: 'string' } } as const
  requireForm(where, 'dialogs', dialogs, { dialogs: [{ turns: [turn] }] })
  const turns = dialogs.dialogs.flatMap(({ turns: all }) =>
    pairsOf(all.length, 'single').map(([pair]) => {
      const [user, agent] = pair as [number, number]
      return [all[user] as UsdmSpokenTurn, all[agent] as UsdmSpokenTurn] as const
    }),
  )
  const wanted = turns.slice(0, limit)
  const before = existsSync(output) ? (await readUsdmPredictions(output)).predictions : []
  const known = new Map(before.map((one) => [one.id, one]))
  const folder = resolve(output.replace(/\.jsonl?$/i, ''))
  makeDirectory(dirname(resolve(output)), DataError)
  await requireSame(output, `${folder}.made-by.json`, fingerprint)
  const predictions: UsdmPrediction[] = []
  let unwritten = 0
  // All again, so that there is always a whole file.
  const save = async () => {
    const done = new Set(predictions.map(({ id }) => id))
    await writeUsdmPredictions(output, [...predictions, ...before.filter(({ id }) => !done.has(id))])
    unwritten = 0
  }
  try {
    for (const [i, [user, agent]] of wanted.entries()) {
      const id = `${user.dialog}:${user.turn}`
      const found = known.get(id)
      predictions.push(found ?? (await answered(model, user, agent, id, folder)))
      if (found) continue
      unwritten += 1
      if (unwritten === 20) await save()
      onReply?.(i + 1, wanted.length)
    }
  } finally {
    if (unwritten > 0) await save()
  }
  if (!existsSync(output)) await save()
  return predictions
}

/** Answers of two models in one file would be scored as one's. */
async function requireSame(output: string, file: string, fingerprint: string | undefined): Promise<void> {
  if (existsSync(output)) {
    const made = existsSync(file) ? ((await readJson(file)) as { fingerprint?: unknown } | null) : null
    if (made?.fingerprint === fingerprint) return
    const before = made ? 'another model, or by one with other options' : 'a model of which nothing is known'
    const how = fingerprint === undefined ? '; say `fingerprint`, or take another output' : '; take another output'
    throw new ConfigError(`${output} was answered by ${before}${how}`, { argument: 'output', file: output })
  }
  if (fingerprint === undefined && !existsSync(file)) return
  writeAtomicallySync(file, DataError, `${JSON.stringify({ fingerprint }, null, 2)}\n`)
}

async function answered(
  model: AnswersSpeech,
  user: UsdmSpokenTurn,
  agent: UsdmSpokenTurn,
  id: string,
  folder: string,
): Promise<UsdmPrediction> {
  const { path } = user.audio
  const reply = await model.respond(path).catch((cause: Error) => {
    const [transcript, text] = [Reflect.get(cause, 'transcript'), Reflect.get(cause, 'text')]
    // A reply without units cannot be heard, and is scored by its texts.
    if (typeof transcript === 'string' && typeof text === 'string') return { transcript, text, wav: null }
    throw new DataError(`${user.file}, line ${user.line}: ${path}: ${cause.message}`, {
      ...{ id, file: user.file, line: user.line, cause },
    })
  })
  const { transcript, text, wav } = reply ?? {}
  if (typeof transcript !== 'string' || typeof text !== 'string') {
    throw misuse('predictUsdm', `what model.respond gives for ${path}`, '{ transcript, text }', reply)
  }
  const prediction = { id, user: user.text, agent: agent.text, transcript, reply: text }
  if (!wav || wav.samples.length === 0) return prediction
  makeDirectory(folder, DataError)
  const file = join(folder, `${id.replace(/[^\w.-]/g, '_')}.wav`)
  await scope(async () => writeWav(file, tensor(wav.samples), { sampleRate: wav.sampleRate }))
  return { ...prediction, wav: file }
}
