import { requireWhole } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { EmoVerseSampleTokens } from '../data/collate.js'
import type { EmoVerseQuestion } from '../data/entry.js'
import type { EmoVerse } from './network.js'

/** How long a prompt may be. */
export interface PromptLimits {
  /**
   * Longer prompts are refused; each of their media counts as one token, in training as in answering, as ms-swift counts them.
   * Default: no limit.
   */
  maxLength?: number
  /** The same with all tokens that media become. Default: no limit. */
  maxExpandedLength?: number
}

export const PROMPT_LIMITS = ['maxLength', 'maxExpandedLength'] as const satisfies readonly (keyof PromptLimits)[]

/** @throws ConfigError for a limit that is no whole number from 1 */
export function requireLimits(where: string, limits: PromptLimits): void {
  for (const name of PROMPT_LIMITS) if (limits[name] !== undefined) requireWhole(where, name, limits[name], 1)
}

/**
 * A question as tokens, where the answer begins, which is not read further than to the limit it is over.
 * @throws DataError whose `reason` is 'length', with both numbers
 */
export async function encodeWithin(
  model: EmoVerse,
  record: EmoVerseQuestion,
  { maxLength, maxExpandedLength }: PromptLimits,
  place: { mediaRoot?: string | undefined; signal?: AbortSignal | undefined },
  what = 'The prompt',
): Promise<EmoVerseSampleTokens> {
  const { mediaRoot, signal } = place
  const within = (length: number, most: number | undefined, tokens: string) => {
    if (most === undefined || length <= most) return
    throw new DataError(`${what} has ${length} ${tokens}, more than ${most}`, { reason: 'length', length, most })
  }
  if (maxLength !== undefined) within(model.lengthOf({ ...record, response: null }), maxLength, 'tokens')
  const sample = await model.encode(record, { answer: false, mediaRoot, ...(signal && { signal }) })
  within(sample.inputIds.length, maxExpandedLength, 'tokens with those of its media')
  return sample
}

/** Whether an error says that a prompt is too long. */
export const isTooLong = (error: unknown): error is DataError =>
  error instanceof DataError && (error as DataError & { reason?: string }).reason === 'length'
