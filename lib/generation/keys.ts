import { shown } from '../base/arguments.js'
import { ConfigError } from '../base/errors.js'
import type { GenerationConfig } from './config.js'

/** Type of a value in a generation configuration: its check, and its description. */
export interface Kind {
  test(value: unknown): boolean
  words: string
}

const isNumber = (value: unknown): value is number => typeof value === 'number' && !Number.isNaN(value)
const isWhole = (value: unknown, least: number) => Number.isSafeInteger(value) && (value as number) >= least
const areIds = (value: unknown) => Array.isArray(value) && value.every((id) => isWhole(id, 0))

const boolean: Kind = { test: (value) => typeof value === 'boolean', words: 'true or false' }
const whole = (least: number, most?: number): Kind => ({
  test: (value) => isWhole(value, least) && (most === undefined || (value as number) <= most),
  words: most === undefined ? `an integer of at least ${least}` : `an integer from ${least} to ${most}`,
})
const between = (low: number, high: number, open = false): Kind => ({
  test: (value) => isNumber(value) && (open ? value > low : value >= low) && value <= high,
  words: open
    ? `a number above ${low}${high === Number.POSITIVE_INFINITY ? '' : `, at most ${high}`}`
    : `a number from ${low} to ${high}`,
})
const above0 = between(0, Number.POSITIVE_INFINITY, true)
const number: Kind = { test: (value) => isNumber(value) && Number.isFinite(value), words: 'a number' }
const ids: Kind = { test: areIds, words: 'a list of token ids' }
const idOrIds: Kind = { test: (value) => isWhole(value, 0) || areIds(value), words: 'a token id or a list of them' }
const lists: Kind = {
  test: (value) => Array.isArray(value) && value.every(areIds),
  words: 'a list of lists of token ids',
}
const pair = (first: (value: unknown) => boolean) => (value: unknown) =>
  Array.isArray(value) && value.length === 2 && first(value[0]) && isNumber(value[1])

/** Maximum number of rows per prompt. Each has its own keys and values, so more are a mistake. */
const MOST_ROWS = 16_384
/** Maximum number of tokens that are drafted, or compared with the text, without a check for cancellation. */
const MOST_GUESSES = 1024

export const kinds: Record<keyof GenerationConfig, Kind> = {
  doSample: boolean,
  numBeams: whole(1, MOST_ROWS),
  numReturnSequences: whole(1, MOST_ROWS),
  maxNewTokens: whole(1),
  maxLength: whole(1),
  minLength: whole(0),
  minNewTokens: whole(0),
  eosTokenId: idOrIds,
  padTokenId: whole(0),
  bosTokenId: whole(0),
  stopSequences: lists,
  temperature: above0,
  topK: whole(0),
  topP: between(0, 1),
  minP: between(0, 1),
  topH: between(0, 1, true),
  typicalP: between(0, 1, true),
  epsilonCutoff: between(0, 1),
  etaCutoff: between(0, 1),
  renormalizeLogits: boolean,
  repetitionPenalty: above0,
  noRepeatNgramSize: whole(0),
  badWordsIds: lists,
  sequenceBias: {
    test: (value) => Array.isArray(value) && value.every(pair(areIds)),
    words: 'a list of [token ids, bias]',
  },
  suppressTokens: ids,
  beginSuppressTokens: ids,
  returnTimestamps: boolean,
  noTimestampsTokenId: whole(0),
  lastTimestampTokenId: whole(0),
  maxInitialTimestampIndex: whole(0),
  forcedBosTokenId: whole(0),
  forcedEosTokenId: idOrIds,
  exponentialDecayLengthPenalty: { test: pair((value) => isWhole(value, 0)), words: '[start, factor]' },
  removeInvalidValues: boolean,
  allowedTokens: ids,
  allowedSequences: lists,
  prefixAllowedTokensFn: { test: (value) => typeof value === 'function', words: 'a function' },
  lengthPenalty: number,
  earlyStopping: { test: (value) => typeof value === 'boolean' || value === 'never', words: "true, false or 'never'" },
  guidanceScale: number,
  numAssistantTokens: whole(1, MOST_GUESSES),
  assistantConfidenceThreshold: between(0, 1),
  promptLookupNumTokens: whole(1, MOST_GUESSES),
  maxMatchingNgramSize: whole(1, MOST_GUESSES),
  outputScores: boolean,
  outputLogits: boolean,
  outputLogprobs: boolean,
}

/** Stricter limits for values from files, so that a downloaded folder cannot use excessive memory. */
export const fileKinds: Readonly<Record<string, Kind>> = {
  numBeams: whole(1, 256),
  numReturnSequences: whole(1, 256),
}

/** @throws ConfigError whose message begins with `where` and the key */
export function checkKey(where: string, key: string, value: unknown, kind: Kind): void {
  if (kind.test(value)) return
  throw new ConfigError(`${where}${key}: expected ${kind.words}, got ${shown(value)}.`, { [key]: value })
}
