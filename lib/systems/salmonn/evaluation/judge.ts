import { requireOneOf, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { withoutEnd } from '../../../base/words.js'
import type { HumDialDialog } from '../published/humdial.js'

/** Criteria of the challenge's judge, for its first and second task. The texts are part of the judge's prompt. */
export const JUDGE_CRITERIA = {
  task1: {
    Accuracy_Completeness: 'all emotions of the user are named, neutral ones too, and none that is not there',
    Depth_Granularity: 'how strong emotions are and how they change is told, without idle words', // language: prompt
    Added_Value: 'emotions are tied to what happened',
  },
  task2: {
    Information_Integration: 'what is said in different turns is brought together', // language: prompt
    Insight_RootCause: 'the cause behind the emotions is found', // language: prompt
    Clarity_Logic: 'the reasoning is clear and in order',
  },
} as const

export type JudgeTask = keyof typeof JUDGE_CRITERIA
export type JudgeScore = 1 | 3 | 5

export interface JudgeInput {
  /** Lines `user(happy): …` and `AI: …`. */
  history: string[]
  question: string
  answer: string
}

/** Return a judge's input for an answer. Of an answer that repeats its prompt, only the text after the last `assistant` line counts. */
export function judgeInput(dialog: Pick<HumDialDialog, 'turns'>, answer: string): JudgeInput {
  requireForm('judgeInput', 'dialog', dialog, { turns: [{ text: 'string', emotion: 'string', reply: 'string' }] })
  requireString('judgeInput', 'answer', answer)
  const { turns } = dialog
  if (turns.length === 0) throw new DataError('judgeInput.dialog: expected at least one turn, got none.')
  const history = turns.flatMap(({ text, emotion, reply }, i) => [
    `user(${emotion === '' ? 'unknown' : emotion}): ${text}`,
    ...(i < turns.length - 1 ? [`AI: ${reply}`] : []),
  ])
  return { history, question: turns.at(-1)?.text ?? '', answer: afterAssistant(answer) }
}

/** Build the judge's prompt, with the criteria and the format of its reply. */
export function judgePrompt(input: JudgeInput, task: JudgeTask = 'task1'): string {
  requireForm('judgePrompt', 'input', input, { history: ['string'], question: 'string', answer: 'string' })
  const { history, question, answer } = input
  requireOneOf('judgePrompt', 'task', task, Object.keys(JUDGE_CRITERIA))
  const criteria = Object.entries(JUDGE_CRITERIA[task])
  return [
    'Grade an answer about a conversation. For each criterion give 1 (poor), 3 (fair) or 5 (good):',
    ...criteria.map(([name, meaning]) => `- ${name}: ${meaning}`),
    '',
    'Conversation, with the emotion of each turn of the user:',
    ...history,
    '',
    `Question: ${question}`,
    `Answer: ${answer}`,
    '',
    `Reply with JSON alone: {${criteria.map(([name]) => `"${name}": 1`).join(', ')}}`,
  ].join('\n')
}

/**
 * Parse the scores in a judge's reply; null if it has no JSON object, complete or cut off. Values up to 2 count as 1, up to 4 as 3, above as
 * 5; anything that is not a number counts as 1.
 */
export function parseJudgeReply(reply: string, task: JudgeTask = 'task1'): Record<string, JudgeScore> | null {
  requireOneOf('parseJudgeReply', 'task', task, Object.keys(JUDGE_CRITERIA))
  requireString('parseJudgeReply', 'reply', reply)
  const found = jsonIn(reply)
  if (found === null) return null
  return Object.fromEntries(Object.keys(JUDGE_CRITERIA[task]).map((name) => [name, judgeScore(found[name])]))
}

/** Convert any value of a judge to 1, 3 or 5. */
export function judgeScore(value: unknown): JudgeScore {
  const inside = typeof value === 'object' && value !== null ? (value as { score?: unknown }).score : value
  const number = typeof inside === 'string' ? Number.parseFloat(inside) : inside
  if (typeof number !== 'number' || Number.isNaN(number) || number <= 2) return 1
  return number <= 4 ? 3 : 5
}

export interface JudgeSummary {
  judged: number
  /** Number of replies without JSON. */
  excluded: number
  /** Mean score of each criterion. */
  means: Record<string, number>
  /** Mean of these means; null without scores. */
  overall: number | null
}

export function judgeSummary(replies: readonly string[], task: JudgeTask = 'task1'): JudgeSummary {
  requireForm('judgeSummary', 'replies', replies, ['string'])
  requireOneOf('judgeSummary', 'task', task, Object.keys(JUDGE_CRITERIA))
  const parsed = replies.map((reply) => parseJudgeReply(reply, task))
  const scores = parsed.filter((found) => found !== null)
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
  const names = scores.length === 0 ? [] : Object.keys(JUDGE_CRITERIA[task])
  const means = Object.fromEntries(names.map((name) => [name, mean(scores.map((found) => found[name] as number))]))
  return {
    judged: scores.length,
    excluded: parsed.length - scores.length,
    means,
    overall: names.length === 0 ? null : mean(Object.values(means)),
  }
}

function afterAssistant(answer: string): string {
  const parts = `\n${answer}`.split(/\n[ \t]*assistant[ \t]*\r?\n/i)
  return (parts.at(-1) as string).trim()
}

/** Parse the first JSON object in a text, and close open braces and quotes. */
function jsonIn(text: string): Record<string, unknown> | null {
  const begin = text.indexOf('{')
  if (begin < 0) return null
  let [depth, quoted, escaped] = [0, false, false]
  let end = text.length
  for (let i = begin; i < text.length; i += 1) {
    const character = text[i]
    if (escaped) escaped = false
    else if (quoted) {
      if (character === '\\') escaped = true
      else if (character === '"') quoted = false
    } else if (character === '"') quoted = true
    else if (character === '{') depth += 1
    else if (character === '}' && --depth === 0) {
      end = i + 1
      break
    }
  }
  const open = text.slice(begin, end) + (quoted ? '"' : '')
  const closed = `${withoutEnd(open.replace(/```\s*$/, ''), /[,\s]/)}${'}'.repeat(depth)}`
  try {
    const value: unknown = JSON.parse(closed)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null
  } catch {
    return null
  }
}
