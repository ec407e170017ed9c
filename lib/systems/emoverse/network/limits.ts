import { requireWhole } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { EmoVerseSampleTokens } from '../data/collate.js'
import type { EmoVerseQuestion } from '../data/entry.js'
import type { EmoVerse } from './network.js'

/** Limits of the prompt length. */
export interface PromptLimits {
  /**
   * Maximum length in tokens, in training and generation, where each of the media counts as one, as in ms-swift. Longer prompts are an
   * error. Default: no limit.
   */
  maxLength?: number
  /** Maximum length with all tokens of the media. Default: no limit. */
  maxExpandedLength?: number
}

export const PROMPT_LIMITS = ['maxLength', 'maxExpandedLength'] as const satisfies readonly (keyof PromptLimits)[]

/** @throws ConfigError for a limit that is not a positive integer */
export function requireLimits(where: string, limits: PromptLimits): void {
  for (const name of PROMPT_LIMITS) if (limits[name] !== undefined) requireWhole(where, name, limits[name], 1)
}

/** Questions that are encoded already: `EmoVerseChat` counts the tokens of one before it scores labels and answers. */
export const encodedQuestions = new WeakMap<EmoVerseQuestion, EmoVerseSampleTokens>()

/**
 * Encode a question up to where the answer begins, and stop early at the first limit that it exceeds.
 * @throws DataError whose `reason` is 'length', with both numbers
 */
export async function encodeWithin(
  model: EmoVerse,
  record: EmoVerseQuestion,
  { maxLength, maxExpandedLength }: PromptLimits,
  place: { mediaRoot?: string | undefined; signal?: AbortSignal | undefined },
  what = 'prompt',
): Promise<EmoVerseSampleTokens> {
  const { mediaRoot, signal } = place
  const within = (length: number, most: number | undefined, tokens: string) => {
    if (most === undefined || length <= most) return
    throw new DataError(`${what}: expected at most ${most} ${tokens}, got ${length}.`, {
      reason: 'length',
      length,
      most,
    })
  }
  if (maxLength !== undefined) within(model.lengthOf({ ...record, response: null }), maxLength, 'tokens')
  const sample =
    encodedQuestions.get(record) ??
    (await model.encode(record, { answer: false, mediaRoot, ...(signal && { signal }) }))
  within(sample.inputIds.length, maxExpandedLength, 'tokens, media included')
  return sample
}

/** Return whether an error is about a prompt that is too long. */
export const isTooLong = (error: unknown): error is DataError =>
  error instanceof DataError && (error as DataError & { reason?: string }).reason === 'length'
