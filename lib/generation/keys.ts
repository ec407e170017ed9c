import { shown } from '../base/arguments.js'
import { ConfigError } from '../base/errors.js'
import type { GenerationConfig } from './config.js'

/** What a value of a generation configuration must be: the test, and the words for it. */
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
  words: most === undefined ? `a whole number from ${least}` : `a whole number from ${least} to ${most}`,
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

/** Rows of a prompt. Each is a text of its own in memory, so that more are a mistake. */
const MOST_ROWS = 16_384
/** Tokens that are guessed, or compared with the text, between two looks at the clock. */
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

/** What a file may say, where a caller may say more: a stranger's folder takes no memory out of proportion. */
export const fileKinds: Readonly<Record<string, Kind>> = {
  numBeams: whole(1, 256),
  numReturnSequences: whole(1, 256),
}

/** @throws ConfigError that begins with `where` and the key */
export function checkKey(where: string, key: string, value: unknown, kind: Kind): void {
  if (kind.test(value)) return
  throw new ConfigError(`${where}${key}: expected ${kind.words}, got ${shown(value)}.`, { [key]: value })
}
