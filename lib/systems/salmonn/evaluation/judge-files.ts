import { listOf, requireOptions, requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { BadRecords } from '../../../kit/records.js'
import { recordsOf, type TrajectoryDialog } from '../answer/trajectory-dialogs.js'
import { type JudgeTask, judgeInput, judgePrompt } from './judge.js'

/** How the challenge has its judge, Qwen3-Omni-30B-A3B-Instruct, write. */
export const JUDGE_GENERATION = { temperature: 0.6, top_p: 0.95, top_k: 20, max_tokens: 16_384, seed: 1234 } as const

/**
 * What a judge is to be asked about each answer.
 * @throws ConfigError for a dialog whose turns are not known, such as a converted one
 */
export function judgePrompts(
  dialogs: readonly TrajectoryDialog[],
  answers: readonly { id: string; prediction: string }[],
  options: { task?: JudgeTask } = {},
): { id: string; prompt: string }[] {
  requireForm('judgePrompts', 'options', options, { 'task?': 'string' })
  requireOptions('judgePrompts', options, ['task'])
  const { task = 'task1' } = options
  const asked = listOf('judgePrompts', 'dialogs', dialogs, 'dialogs')
  requireForm('judgePrompts', 'dialogs', asked, [{ id: 'string' }])
  const known = new Map(asked.map((one) => [one.id, one]))
  const said = listOf('judgePrompts', 'answers', answers, 'answers')
  requireForm('judgePrompts', 'answers', said, [{ id: 'string', prediction: 'string' }])
  return said.map(({ id, prediction }) => {
    const { dialog } = known.get(id) ?? {}
    if (!dialog) {
      throw new ConfigError(
        `A judge reads the turns of a dialog, and ${id} has none: give the challenge's own file as references`,
        { id },
      )
    }
    return { id, prompt: judgePrompt(judgeInput(dialog, prediction), task) }
  })
}

/**
 * Reads what a judge replied, JSON Lines or JSON with `id` and `reply`.
 * @throws DataError naming file and line of what is no reply, of a second one to an answer, and of one to none of `ids`
 */
export async function readJudgeReplies(file: string, ids?: Iterable<string>): Promise<{ id: string; reply: string }[]> {
  requireString('readJudgeReplies', 'file', file)
  const wanted = ids === undefined ? undefined : new Set(listOf('readJudgeReplies', 'ids', ids, 'ids'))
  const replies = new Map<string, string>()
  for await (const { value, source } of recordsOf(file, new BadRecords('stop'))) {
    const { id, reply } = (value ?? {}) as { id?: unknown; reply?: unknown }
    const fault = (what: string) => new DataError(`${source}: ${what}`, { item: source })
    if (typeof id !== 'string' || typeof reply !== 'string') throw fault('it needs an id and a reply, both texts')
    if (replies.has(id)) throw fault(`${id} has a reply before`)
    if (wanted && !wanted.has(id)) throw fault(`no dialog of the references is called ${id}`)
    replies.set(id, reply)
  }
  return [...replies].map(([id, reply]) => ({ id, reply }))
}
