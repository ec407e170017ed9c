import { existsSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { writeWav } from '../../../audio/write.js'
import { makeDirectory } from '../../../base/atomic.js'
import {
  misuse,
  requireFunction,
  requireObject,
  requireOptions,
  requireString,
  requireWhole,
} from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
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
  /** No more turns than these. Default: all. */
  limit?: number
  /** Called with how many are done, and how many there are. */
  onReply?: (done: number, total: number) => void
}

/**
 * Has a model answer each turn of dialogs that has an answer, and writes what it heard, answered and said beside what is right,
 * for {@link scoreUsdm}. Of a reply that has no units the texts stay. A run that was ended goes on.
 *
 * ```ts
 * const answering = { respond: (wav: string) => usdm.respond(wav, { strict: true, maxUnits: 500 }) }
 * const predictions = await predictUsdm(answering, await readUsdmJsonl('test.jsonl'), { output: 'predictions.jsonl' })
 * ```
 * @throws DataError naming the turn that cannot be answered
 */
export async function predictUsdm(
  model: AnswersSpeech,
  dialogs: Pick<UsdmDialogs, 'dialogs'>,
  options: PredictUsdmOptions,
): Promise<UsdmPrediction[]> {
  const where = 'predictUsdm'
  requireObject(where, 'model', model)
  requireFunction(where, 'model.respond', model.respond)
  requireObject(where, 'dialogs', dialogs)
  requireOptions(where, options, ['output', 'limit', 'onReply'])
  const { output, limit = Number.MAX_SAFE_INTEGER, onReply } = options
  requireString(where, 'output', output)
  requireWhole(where, 'limit', limit, 1)
  if (onReply !== undefined) requireFunction(where, 'onReply', onReply)
  if (!Array.isArray(dialogs.dialogs)) throw misuse(where, 'dialogs', 'what readUsdmJsonl gives', dialogs)
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
  const predictions: UsdmPrediction[] = []
  let unwritten = 0
  // All again, so that there is always a whole file.
  const save = async () => {
    const done = new Set(predictions.map(({ id }) => id))
    await writeUsdmPredictions(output, [...predictions, ...before.filter(({ id }) => !done.has(id))])
    unwritten = 0
  }
  for (const [i, [user, agent]] of wanted.entries()) {
    const id = `${user.dialog}:${user.turn}`
    const found = known.get(id)
    predictions.push(found ?? (await answered(model, user, agent, id, folder)))
    if (found) continue
    onReply?.(i + 1, wanted.length)
    unwritten += 1
    if (unwritten === 20) await save()
  }
  if (unwritten > 0 || !existsSync(output)) await save()
  return predictions
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
