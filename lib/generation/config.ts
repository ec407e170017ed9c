import { optionsOf, shown } from '../base/arguments.js'
import { ConfigError } from '../base/errors.js'
import { didYouMean, shortened } from '../base/words.js'
import { checkKey, type Kind, kinds } from './keys.js'

/**
 * Settings of token generation, with the names and meanings of transformers' `GenerationConfig`. Lengths count the columns of the batch:
 * the prompt with its padding, then the generated tokens.
 */
export interface GenerationConfig {
  /** Whether to sample tokens by probability, instead of taking the most likely one. Default false. */
  doSample?: boolean
  /** Number of beams; more than 1 selects beam search. At most 16384 (256 from a file). Default 1. */
  numBeams?: number
  /**
   * Number of answers per prompt: with beams at most `numBeams`, otherwise only with sampling. At most 16384 (256 from a file). Default 1.
   */
  numReturnSequences?: number

  /** Maximum number of new tokens. Default 20, if `maxLength` is not set either. */
  maxNewTokens?: number | null
  /** Maximum number of columns of prompt and answer; `maxNewTokens` has precedence. */
  maxLength?: number | null
  /** Minimum number of columns before `eosTokenId` is allowed. */
  minLength?: number | null
  /** Minimum number of new tokens before `eosTokenId` is allowed. */
  minNewTokens?: number | null
  /** Token or tokens that end an answer. */
  eosTokenId?: number | number[] | null
  /** Padding token after shorter answers. Default: the first of `eosTokenId`, otherwise 0. */
  padTokenId?: number | null
  /** Begin-of-sequence token. It does not start generation without a prompt; only processors use it. */
  bosTokenId?: number | null
  /** Token sequences that end an answer and stay part of it. */
  stopSequences?: number[][] | null

  /** Sampling: temperature, by which scores are divided. */
  temperature?: number | null
  /** Sampling: keep only the k most likely tokens; 0 for all. Default 50, as in transformers. */
  topK?: number | null
  /** Sampling: keep the fewest top tokens whose probabilities sum to at least this value. */
  topP?: number | null
  /** Sampling: keep tokens with at least this fraction of the top probability. */
  minP?: number | null
  /** Sampling: keep those of the top 100 tokens that lie within this fraction of their entropy. */
  topH?: number | null
  /** Sampling: keep the tokens closest to the expected information whose probabilities sum to this value. */
  typicalP?: number | null
  /** Sampling: keep tokens of at least this probability. */
  epsilonCutoff?: number | null
  /** Sampling: `epsilonCutoff` that is relaxed at high entropy. */
  etaCutoff?: number | null
  /** Whether to renormalize the processed scores to log probabilities. */
  renormalizeLogits?: boolean

  /** Penalty of tokens that occur in prompt or answer, if above 1. */
  repetitionPenalty?: number | null
  /** Length of n-grams that must not repeat, in prompt and answer. */
  noRepeatNgramSize?: number | null
  /** Token sequences that are never generated. */
  badWordsIds?: number[][] | null
  /** Bias of the score of a sequence's last token, if its other tokens precede it. */
  sequenceBias?: [ids: number[], bias: number][] | null
  /** Tokens that are never generated. */
  suppressTokens?: number[] | null
  /** Tokens that are not generated first. */
  beginSuppressTokens?: number[] | null
  /**
   * Whether to apply Whisper's timestamp rules. Timestamps are the tokens above `noTimestampsTokenId`: the first token is one, they come in
   * pairs, never decrease, and are forced if their total probability exceeds that of any other token.
   */
  returnTimestamps?: boolean
  noTimestampsTokenId?: number | null
  /**
   * Id of the last timestamp: tokens above it, such as those added by fine-tuning, follow the rules of text. Default: `Whisper`
   * derives it from its tokenizer; elsewhere all tokens above `noTimestampsTokenId` are timestamps, as in transformers.
   */
  lastTimestampTokenId?: number | null
  /** Maximum index of the first timestamp, such as 50 for one second. */
  maxInitialTimestampIndex?: number | null
  /** Forced second token of a text whose prompt is one token. */
  forcedBosTokenId?: number | null
  /** Forced last token at the length limit. */
  forcedEosTokenId?: number | number[] | null
  /** From `start` new tokens on, the score of `eosTokenId` grows by `factor` at each step. */
  exponentialDecayLengthPenalty?: [start: number, factor: number] | null
  /** Whether to replace NaN scores by 0, and infinite ones by the largest value. */
  removeInvalidValues?: boolean

  /** Only these tokens are generated. */
  allowedTokens?: number[] | null
  /** Allowed answers; each is followed by `eosTokenId`. */
  allowedSequences?: number[][] | null
  /**
   * Function that returns the allowed next tokens. It is called before each step for each row, with the index of the prompt and the tokens
   * so far (without padding on the left). transformers' `prefix_allowed_tokens_fn`. Its errors reach the caller; it must not be async.
   */
  prefixAllowedTokensFn?: ((batchId: number, inputIds: number[]) => Iterable<number>) | null

  /** Beam search: exponent of the length by which scores are divided. Above 0 prefers long answers. Default 1. */
  lengthPenalty?: number | null
  /** Beam search: true stops at as many answers as beams; false if no better one is likely; 'never' if no better one is possible. */
  earlyStopping?: boolean | 'never' | null

  /**
   * Scale of classifier-free guidance (https://arxiv.org/abs/2306.17806) for language models: moves the log probabilities away from those
   * after `negativePromptIds`. 1 or null: no guidance.
   */
  guidanceScale?: number | null

  /** With an `assistantModel`: number of tokens that it drafts at once. Default 20. */
  numAssistantTokens?: number | null
  /** With an `assistantModel`: its draft stops at a token below this probability. Default 0.4. */
  assistantConfidenceThreshold?: number | null
  /**
   * Prompt lookup decoding without an assistant: number of tokens to draft from the text itself, after an earlier occurrence of its last
   * tokens. For answers that repeat the prompt; one row, without beams. Greedy output has the same guarantee as with an `assistantModel`.
   */
  promptLookupNumTokens?: number | null
  /** Maximum number of last tokens to search for. Default 2. */
  maxMatchingNgramSize?: number | null

  /** Whether to return the processed scores of every step. */
  outputScores?: boolean
  /** Whether to return the network's raw logits of every step. */
  outputLogits?: boolean
  /** Whether to return each token's log probability under the processed scores. */
  outputLogprobs?: boolean
}

/**
 * Check a configuration, and fill in missing values from `base`.
 * @throws ConfigError for an unknown key, naming the nearest, and for a value of the wrong kind or range
 */
export function generationConfig(config: GenerationConfig = {}, base: GenerationConfig = {}): GenerationConfig {
  const given = optionsOf(config, 'generation configuration') as Record<string, unknown>
  const whole: Record<string, unknown> = { ...base }
  for (const [key, value] of Object.entries(given)) {
    const kind = Object.hasOwn(kinds, key) ? (kinds[key as keyof GenerationConfig] as Kind) : undefined
    if (kind === undefined) throw unknownKey(key)
    if (value === undefined) continue
    if (value !== null) checkKey('generation.', key, value, kind)
    whole[key] = value
  }
  // A maxLength of the caller replaces the maxNewTokens of the model's file.
  if (given.maxLength != null && given.maxNewTokens == null) delete whole.maxNewTokens
  checkTogether(whole as GenerationConfig)
  return whole as GenerationConfig
}

const unknownKey = (key: string): ConfigError => {
  const hint = /^stream(er|ing)?$/.test(key)
    ? '. Use model.stream, and streamText for text'
    : didYouMean(key, Object.keys(kinds))
  return new ConfigError(`generation: expected a key of GenerationConfig, got '${shortened(key)}'${hint}`, { key })
}

function checkTogether(config: GenerationConfig): void {
  const { numBeams = 1, numReturnSequences = 1, doSample = false } = config
  const bad = (problem: string): never => {
    throw new ConfigError(`generation: ${problem}`, { ...config })
  }
  if (numBeams > 1 && numReturnSequences > numBeams) {
    bad(`expected numReturnSequences of at most numBeams, ${numBeams}, got ${numReturnSequences}.`)
  }
  if (numBeams === 1 && numReturnSequences > 1 && !doSample) {
    bad(
      `expected doSample or beams with numReturnSequences ${numReturnSequences}, got greedy decoding, which has one answer.`,
    )
  }
  const ends = config.eosTokenId ?? []
  const none = Array.isArray(ends) && ends.length === 0
  if (config.returnTimestamps && (none || config.noTimestampsTokenId == null)) {
    bad('expected noTimestampsTokenId and eosTokenId with returnTimestamps, got at most one of them.')
  }
  if (config.allowedSequences && none)
    bad('expected an eosTokenId with allowedSequences, which ends the answer, got none.')
  if (config.exponentialDecayLengthPenalty && none)
    bad('expected an eosTokenId with exponentialDecayLengthPenalty, got none.')
  for (const key of ['badWordsIds', 'stopSequences', 'allowedSequences'] as const) {
    if (config[key]?.some((ids) => ids.length === 0))
      bad(`${key}: expected sequences of at least one token, got an empty one.`)
  }
  if (config.sequenceBias?.some(([ids]) => ids.length === 0))
    bad('sequenceBias: expected sequences of at least one token, got an empty one.')
  if (config.allowedTokens?.length === 0)
    bad(`allowedTokens: expected at least one token, got ${shown(config.allowedTokens)}.`)
}
