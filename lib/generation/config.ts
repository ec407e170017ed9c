import { optionsOf, shown } from '../base/arguments.js'
import { ConfigError } from '../base/errors.js'
import { didYouMean, shortened } from '../base/words.js'
import { checkKey, type Kind, kinds } from './keys.js'

/**
 * How tokens are chosen, with the names and meanings of transformers' `GenerationConfig`. Lengths count the columns of the
 * batch: the prompt with its padding, then what was generated.
 */
export interface GenerationConfig {
  /** Draws each token by its probability; else the likeliest is taken. Default false. */
  doSample?: boolean
  /** With more than 1, the texts with the best total score are looked for. At most 16384 (256 from a file). Default 1. */
  numBeams?: number
  /**
   * Answers for each prompt; with beams at most `numBeams`, else only while sampling, at most 16384 (256 from a file).
   * Default 1.
   */
  numReturnSequences?: number

  /** Most tokens of an answer. Default 20, where `maxLength` is not given either. */
  maxNewTokens?: number | null
  /** Most columns of prompt and answer; `maxNewTokens` goes before it. */
  maxLength?: number | null
  /** `eosTokenId` is forbidden below so many columns. */
  minLength?: number | null
  /** `eosTokenId` is forbidden below so many new tokens. */
  minNewTokens?: number | null
  /** What ends an answer. */
  eosTokenId?: number | number[] | null
  /** What stands behind the end of the shorter answers; default the first of `eosTokenId`, else 0. */
  padTokenId?: number | null
  /** Where no prompt is given, nothing is begun with it: it only tells processors. */
  bosTokenId?: number | null
  /** Sequences of new tokens that end an answer; they stay in it. */
  stopSequences?: number[][] | null

  /** While sampling: scores are divided by it. */
  temperature?: number | null
  /** While sampling: only so many of the likeliest tokens; 0 for all. Default 50, as transformers has it. */
  topK?: number | null
  /** While sampling: the fewest tokens that hold so much probability. */
  topP?: number | null
  /** While sampling: only tokens that are at least so many times as likely as the likeliest. */
  minP?: number | null
  /** While sampling: among the hundred likeliest tokens, those within this share of their entropy. */
  topH?: number | null
  /** While sampling: the tokens nearest to the expected information that hold so much probability. */
  typicalP?: number | null
  /** While sampling: only tokens at least so likely. */
  epsilonCutoff?: number | null
  /** While sampling: the same, less strict where the entropy is high. */
  etaCutoff?: number | null
  /** The processed scores are made log probabilities again. */
  renormalizeLogits?: boolean

  /** Above 1: what stands in prompt or answer becomes less likely. */
  repetitionPenalty?: number | null
  /** No sequence of so many tokens comes twice, in prompt and answer. */
  noRepeatNgramSize?: number | null
  /** Sequences that never come. */
  badWordsIds?: number[][] | null
  /** What is added to the score of the last token of a sequence, where the others stand before it. */
  sequenceBias?: [ids: number[], bias: number][] | null
  /** Tokens that never come. */
  suppressTokens?: number[] | null
  /** Tokens that do not come first. */
  beginSuppressTokens?: number[] | null
  /**
   * Whisper's rules of timestamps, which are the tokens above `noTimestampsTokenId`: the first token is one, then they come
   * in pairs, never go back, and one comes where all of them together are likelier than any other token.
   */
  returnTimestamps?: boolean
  noTimestampsTokenId?: number | null
  /**
   * The id of the last timestamp: tokens above it, such as those that fine-tuning added, follow the rules of text. Default:
   * `Whisper` takes it from its tokenizer; elsewhere all tokens above `noTimestampsTokenId` are timestamps, as in transformers.
   */
  lastTimestampTokenId?: number | null
  /** How far above the first timestamp the first token may be, such as 50 for one second. */
  maxInitialTimestampIndex?: number | null
  /** The second token of a text, where the prompt is one token. */
  forcedBosTokenId?: number | null
  /** The last token where the limit is reached. */
  forcedEosTokenId?: number | number[] | null
  /** From so many new tokens on, `eosTokenId` becomes likelier by this factor at each. */
  exponentialDecayLengthPenalty?: [start: number, factor: number] | null
  /** A score that is not a number becomes 0, an infinite one the largest. */
  removeInvalidValues?: boolean

  /** The only tokens that come. */
  allowedTokens?: number[] | null
  /** The answer is one of these, followed by `eosTokenId`. */
  allowedSequences?: number[][] | null
  /**
   * Called before each step for each row, with the number of the prompt and the text so far (without padding on the left):
   * the tokens that may follow. transformers' `prefix_allowed_tokens_fn`. What it throws reaches the caller; it must not be
   * async.
   */
  prefixAllowedTokensFn?: ((batchId: number, inputIds: number[]) => Iterable<number>) | null

  /** With beams: scores are divided by length to this power. Above 0 prefers long answers. Default 1. */
  lengthPenalty?: number | null
  /** With beams: true ends with as many answers as beams; false when none better is likely; 'never' when none can be. */
  earlyStopping?: boolean | 'never' | null

  /**
   * Classifier-free guidance (https://arxiv.org/abs/2306.17806): the log probabilities are led away, by this factor, from
   * those behind `negativePromptIds`. 1 and null: none. For language models.
   */
  guidanceScale?: number | null

  /** With an `assistantModel`: tokens that it guesses at once. Default 20. */
  numAssistantTokens?: number | null
  /** With an `assistantModel`: its guess ends with a token less likely than that. Default 0.4. */
  assistantConfidenceThreshold?: number | null
  /**
   * Without an assistant: so many tokens are guessed from the text itself, behind where its last tokens stood before. For
   * answers that repeat the prompt; one row, without beams. What holds of greedy text with an `assistantModel` holds here.
   */
  promptLookupNumTokens?: number | null
  /** How many last tokens are looked for, at most. Default 2. */
  maxMatchingNgramSize?: number | null

  /** Keeps the processed scores of every step. */
  outputScores?: boolean
  /** Keeps the network's own scores of every step. */
  outputLogits?: boolean
  /** Keeps the log probability of each chosen token under the processed scores. */
  outputLogprobs?: boolean
}

/**
 * Checks a configuration and fills it up: what it leaves out is `base`'s.
 * @throws ConfigError for an unknown key, naming the nearest, and for a value of the wrong kind or range
 */
export function generationConfig(config: GenerationConfig = {}, base: GenerationConfig = {}): GenerationConfig {
  const given = optionsOf(config) as Record<string, unknown>
  const whole: Record<string, unknown> = { ...base }
  for (const [key, value] of Object.entries(given)) {
    const kind = Object.hasOwn(kinds, key) ? (kinds[key as keyof GenerationConfig] as Kind) : undefined
    if (kind === undefined) throw unknownKey(key)
    if (value === undefined) continue
    if (value !== null) checkKey('generation.', key, value, kind)
    whole[key] = value
  }
  // Whoever limits the answer otherwise than the model's file does not mean its limit too.
  if (given.maxLength != null && given.maxNewTokens == null) delete whole.maxNewTokens
  checkTogether(whole as GenerationConfig)
  return whole as GenerationConfig
}

const unknownKey = (key: string): ConfigError =>
  new ConfigError(`a generation configuration has no '${shortened(key)}'${didYouMean(key, Object.keys(kinds))}`, {
    key,
  })

function checkTogether(config: GenerationConfig): void {
  const { numBeams = 1, numReturnSequences = 1, doSample = false } = config
  const bad = (problem: string): never => {
    throw new ConfigError(`generation: ${problem}`, { ...config })
  }
  if (numBeams > 1 && numReturnSequences > numBeams) {
    bad(`numReturnSequences is ${numReturnSequences}, more than the ${numBeams} beams`)
  }
  if (numBeams === 1 && numReturnSequences > 1 && !doSample) {
    bad(`numReturnSequences ${numReturnSequences} needs doSample or beams: the likeliest text is one`)
  }
  const ends = config.eosTokenId ?? []
  const none = Array.isArray(ends) && ends.length === 0
  if (config.returnTimestamps && (none || config.noTimestampsTokenId == null)) {
    bad('returnTimestamps needs a noTimestampsTokenId and an eosTokenId')
  }
  if (config.allowedSequences && none) bad('allowedSequences needs an eosTokenId, which ends the answer')
  if (config.exponentialDecayLengthPenalty && none) bad('exponentialDecayLengthPenalty needs an eosTokenId')
  for (const key of ['badWordsIds', 'stopSequences', 'allowedSequences'] as const) {
    if (config[key]?.some((ids) => ids.length === 0)) bad(`${key} has a sequence without tokens`)
  }
  if (config.sequenceBias?.some(([ids]) => ids.length === 0)) bad('sequenceBias has a sequence without tokens')
  if (config.allowedTokens?.length === 0) bad(`allowedTokens is empty, got ${shown(config.allowedTokens)}`)
}
