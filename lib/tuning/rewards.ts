import { requireOptions, requireString, shown } from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'
import { Turns } from '../base/turn.js'
import type { BadRecords } from '../kit/records.js'
import type { ChatMessage } from '../text/chat.js'
import { wer } from '../train/metrics/error-rate.js'
import { normalizeText } from './normalize-text.js'

/** An answer for a reward function. */
export interface RewardAnswer {
  /** Prompt of the record: a text, or messages. */
  prompt: string | readonly ChatMessage[]
  /** Text of the answer, without special tokens. */
  completion: string
  /** Token ids of the answer, with the end-of-sequence token. */
  completionIds: readonly number[]
  /** The whole record, with further fields such as `reference`. */
  record: Readonly<Record<string, unknown>>
}

/**
 * Return the reward of an answer; higher is better. Null: the function does not score this answer. May be async: answers are scored
 * concurrently.
 */
export type RewardFunction = (answer: RewardAnswer) => number | null | Promise<number | null>

/**
 * Return a reward function, 1 − WER, at least 0: the word error rate of the answer against the record's `reference`, with both texts normalized
 * by Whisper's basic normalizer (lower case, without punctuation and bracketed texts).
 * @param options `field` of the record with the reference text, by default `'reference'`
 */
export function werReward(options: { field?: string } = {}): RewardFunction {
  requireOptions('werReward', options, ['field'])
  const { field = 'reference' } = options
  requireString('werReward', 'field', field)
  return Object.defineProperty(
    ({ completion, record }: RewardAnswer) => {
      const reference = record[field]
      if (typeof reference !== 'string') {
        throw new DataError(`werReward: expected a text in the record's ${field}, got ${shown(reference)}.`, { field })
      }
      return Math.max(0, 1 - wer(normalizeText(reference), normalizeText(completion)))
    },
    'name',
    { value: 'wer' },
  )
}

/** Reward functions with their names. */
export type NamedRewards = readonly (readonly [name: string, reward: RewardFunction])[]

/** Check reward functions, and return them with distinct names: those of the functions, or `reward0` and so on. */
export function namedRewards(where: string, rewards: unknown): NamedRewards {
  const list = Array.isArray(rewards) ? (rewards as unknown[]) : [rewards]
  const names = new Set<string>()
  if (list.length === 0)
    throw new ConfigError(`${where}: rewards: expected at least one reward function, got none.`, {})
  return list.map((reward, i) => {
    if (typeof reward !== 'function') {
      throw new ConfigError(`${where}: rewards[${i}]: expected a function, got ${shown(reward)}.`, {
        argument: 'rewards',
      })
    }
    const own = /^[\p{L}\p{N}_$]{1,64}$/u.test(reward.name) ? reward.name : `reward${i}`
    const name = names.has(own) ? `${own}${i}` : own
    names.add(name)
    return [name, reward as RewardFunction] as const
  })
}

/** An answer with the place of its record, for errors. */
export interface ScoredAnswer {
  answer: RewardAnswer
  place: string
  fields: Record<string, unknown>
}

/**
 * Return the rewards [answers][functions] of answers. A reward that is not a finite number or null, and a function that throws, go to `bad`;
 * the answer is then unscored by that function.
 */
export async function rewardsOf(
  where: string,
  rewards: NamedRewards,
  answers: readonly ScoredAnswer[],
  bad: BadRecords,
): Promise<(number | null)[][]> {
  const turns = new Turns()
  const pending: Promise<{ value?: unknown; cause?: unknown }>[][] = []
  for (const { answer } of answers) {
    await turns.pass()
    pending.push(
      rewards.map(async ([, reward]) => {
        try {
          return { value: await reward(answer) }
        } catch (cause) {
          return { cause }
        }
      }),
    )
  }
  const found: (number | null)[][] = []
  for (const [i, row] of pending.entries()) {
    const { place, fields } = answers[i] as ScoredAnswer
    const values = await Promise.all(row)
    found.push(
      values.map((outcome, j) => {
        const [name] = rewards[j] as NamedRewards[number]
        if ('value' in outcome && (outcome.value === null || Number.isFinite(outcome.value))) {
          return outcome.value as number | null
        }
        const got =
          'value' in outcome
            ? `expected a number or null, got ${shown(outcome.value)}`
            : `expected a number, but it threw ${outcome.cause instanceof Error ? outcome.cause.message : shown(outcome.cause)}`
        bad.note(name, `${where}: reward '${name}' of ${place}: ${got}`, {
          ...{ ...fields, reward: name },
          ...('cause' in outcome && { cause: outcome.cause }),
        })
        return null
      }),
    )
  }
  return found
}
