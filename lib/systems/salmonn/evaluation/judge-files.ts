import { listOf, requireOptions, requireString, shown } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { BadRecords } from '../../../kit/records.js'
import { recordsOf, type TrajectoryDialog } from '../answer/trajectory-dialogs.js'
import { type JudgeTask, judgeInput, judgePrompt } from './judge.js'

/** Generation settings of the challenge's judge, Qwen3-Omni-30B-A3B-Instruct. */
export const JUDGE_GENERATION = { temperature: 0.6, top_p: 0.95, top_k: 20, max_tokens: 16_384, seed: 1234 } as const

/**
 * Build a judge's prompt for each answer.
 * @throws ConfigError for a dialog without its turns, such as a converted one
 */
export function judgePrompts(
  dialogs: readonly TrajectoryDialog[],
  answers: readonly { id: string; prediction: string }[],
  options: { task?: JudgeTask } = {},
): { id: string; prompt: string }[] {
  requireForm('judgePrompts', 'options', options, { 'task?': 'string' })
  requireOptions('judgePrompts', options, ['task'])
  const { task = 'task1' } = options
  const dialogList = listOf('judgePrompts', 'dialogs', dialogs, 'dialogs')
  requireForm('judgePrompts', 'dialogs', dialogList, [{ id: 'string' }])
  const known = new Map(dialogList.map((one) => [one.id, one]))
  const answerList = listOf('judgePrompts', 'answers', answers, 'answers')
  requireForm('judgePrompts', 'answers', answerList, [{ id: 'string', prediction: 'string' }])
  return answerList.map(({ id, prediction }) => {
    const { dialog } = known.get(id) ?? {}
    if (!dialog) {
      throw new ConfigError(
        `judgePrompts: expected dialogs with turns, got ${id} without. Use a file of the challenge as references.`,
        { id },
      )
    }
    return { id, prompt: judgePrompt(judgeInput(dialog, prediction), task) }
  })
}

/**
 * Read a judge's replies, JSON Lines or JSON with `id` and `reply`.
 * @throws DataError naming file and line of an invalid reply, of a duplicate, and of one whose id is not in `ids`
 */
export async function readJudgeReplies(file: string, ids?: Iterable<string>): Promise<{ id: string; reply: string }[]> {
  requireString('readJudgeReplies', 'file', file)
  const wanted = ids === undefined ? undefined : new Set(listOf('readJudgeReplies', 'ids', ids, 'ids'))
  const replies = new Map<string, string>()
  for await (const { value, source } of recordsOf(file, new BadRecords('stop'))) {
    const { id, reply } = (value ?? {}) as { id?: unknown; reply?: unknown }
    const fault = (what: string) => new DataError(`${source}: ${what}`, { item: source })
    if (typeof id !== 'string' || typeof reply !== 'string')
      throw fault(`expected id and reply to be strings, got ${shown(id)} and ${shown(reply)}.`)
    if (replies.has(id)) throw fault(`expected one reply for ${id}, got a second one.`)
    if (wanted && !wanted.has(id)) throw fault(`expected the id of a dialog of the references, got ${id}.`)
    replies.set(id, reply)
  }
  return [...replies].map(([id, reply]) => ({ id, reply }))
}
