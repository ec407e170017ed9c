import { argumentError, requireOneOf, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { TokenizerConfig } from './config.js'
import type { Encoding, Side } from './encoding.js'

export interface TruncationOptions {
  /**
   * Cut texts that are longer than `maxLength`. For a pair, `true` and `'longestFirst'` cut the longer text first, the others the
   * named one. Default false.
   */
  truncation?: boolean | 'longestFirst' | 'onlyFirst' | 'onlySecond'
  /** Maximum number of tokens, including special ones. Default: `modelMaxLength`. */
  maxLength?: number
  /** Side that is cut. Default: that of the configuration. */
  truncationSide?: Side
}

/** Cut one text or two to fit `maxLength` with `added` special tokens. */
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
    throw argumentError(
      'Tokenizer',
      'truncation',
      "true, false, 'longestFirst', 'onlyFirst' or 'onlySecond'",
      truncation,
    )
  }
  if (options.maxLength !== undefined) requireWhole('Tokenizer', 'maxLength', maxLength)
  requireOneOf('Tokenizer', 'truncationSide', truncationSide, ['left', 'right'])
  if (truncation === false) return [first, second]
  if (maxLength === null) {
    throw new ConfigError('Tokenizer: maxLength: expected a number for truncation, got none. Set maxLength.', {
      argument: 'maxLength',
    })
  }
  const most = maxLength - added
  if (most < 0) {
    throw new ConfigError(`Tokenizer: maxLength: expected at least ${added}, the special tokens, got ${maxLength}.`, {
      argument: 'maxLength',
      value: maxLength,
    })
  }
  const [one, two] = lengths(first.length, second?.length ?? null, most, truncation)
  return [first.truncated(one, truncationSide), second?.truncated(two, truncationSide) ?? null]
}

function lengths(
  first: number,
  second: number | null,
  most: number,
  strategy: true | 'longestFirst' | 'onlyFirst' | 'onlySecond',
): [number, number] {
  const excess = first + (second ?? 0) - most
  if (excess <= 0) return [first, second ?? 0]
  if (strategy === 'onlyFirst' || strategy === 'onlySecond') {
    if (strategy === 'onlySecond' && second === null) {
      throw new ConfigError("Tokenizer: truncation: 'onlySecond' expected a pair of texts, got one text.", {
        argument: 'truncation',
      })
    }
    const cut = (strategy === 'onlyFirst' ? first : second!) - excess
    if (cut <= 0) {
      throw new ConfigError(
        `Tokenizer: truncation: '${strategy}' cannot cut ${excess} tokens from a text of ${cut + excess}.`,
        {
          argument: 'truncation',
        },
      )
    }
    return strategy === 'onlyFirst' ? [cut, second ?? 0] : [first, cut]
  }
  if (second === null) return [most, 0]
  // The shorter text is not cut if it fits into half of the length.
  const half = Math.floor(most / 2)
  if (Math.min(first, second) <= half) return first <= second ? [first, most - first] : [most - second, second]
  return first <= second ? [half, most - half] : [most - half, half]
}
