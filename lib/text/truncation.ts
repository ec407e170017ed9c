import { misuse, requireOneOf, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { TokenizerConfig } from './config.js'
import type { Encoding, Side } from './encoding.js'

export interface TruncationOptions {
  /**
   * Cut what is longer than `maxLength`: of a pair, `true` and `'longestFirst'` cut the longer one first, the others the
   * one they name. Default false.
   */
  truncation?: boolean | 'longestFirst' | 'onlyFirst' | 'onlySecond'
  /** In tokens, special ones included. Default: `modelMaxLength`. */
  maxLength?: number
  /** Which end is cut off. Default: that of the configuration. */
  truncationSide?: Side
}

/** Cuts one text or two so that with `added` special tokens they fit. */
export function truncate(
  first: Encoding,
  second: Encoding | null,
  added: number,
  options: TruncationOptions,
  config: TokenizerConfig,
): [Encoding, Encoding | null] {
  const {
    truncation = false,
    maxLength = config.modelMaxLength,
    truncationSide = config.truncationSide ?? 'right',
  } = options
  if (typeof truncation !== 'boolean' && !['longestFirst', 'onlyFirst', 'onlySecond'].includes(truncation)) {
    throw misuse('Tokenizer', 'truncation', "true, false, 'longestFirst', 'onlyFirst' or 'onlySecond'", truncation)
  }
  if (options.maxLength !== undefined) requireWhole('Tokenizer', 'maxLength', maxLength)
  requireOneOf('Tokenizer', 'truncationSide', truncationSide, ['left', 'right'])
  if (truncation === false) return [first, second]
  if (maxLength === null) {
    throw new ConfigError('truncation needs a maxLength: the files of this tokenizer name none', {
      argument: 'maxLength',
    })
  }
  const room = maxLength - added
  if (room < 0) {
    throw new ConfigError(`maxLength ${maxLength} has no room for the ${added} special tokens`, {
      argument: 'maxLength',
      value: maxLength,
    })
  }
  const [one, two] = lengths(first.length, second?.length ?? null, room, truncation)
  return [first.truncated(one, truncationSide), second?.truncated(two, truncationSide) ?? null]
}

function lengths(
  first: number,
  second: number | null,
  room: number,
  strategy: true | 'longestFirst' | 'onlyFirst' | 'onlySecond',
): [number, number] {
  const excess = first + (second ?? 0) - room
  if (excess <= 0) return [first, second ?? 0]
  if (strategy === 'onlyFirst' || strategy === 'onlySecond') {
    if (strategy === 'onlySecond' && second === null) {
      throw new ConfigError("truncation 'onlySecond' needs a pair of texts", { argument: 'truncation' })
    }
    const cut = (strategy === 'onlyFirst' ? first : second!) - excess
    if (cut <= 0) {
      throw new ConfigError(`truncation '${strategy}' cannot take ${excess} tokens from a text of ${cut + excess}`, {
        argument: 'truncation',
      })
    }
    return strategy === 'onlyFirst' ? [cut, second ?? 0] : [first, cut]
  }
  if (second === null) return [room, 0]
  // The shorter one stays whole while it fits into half of the room.
  const half = Math.floor(room / 2)
  if (Math.min(first, second) <= half) return first <= second ? [first, room - first] : [room - second, second]
  return first <= second ? [half, room - half] : [room - half, half]
}
