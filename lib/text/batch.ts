import { argumentError, requireOneOf, requireOptions, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { scope, type Tensor, tensor } from '../tensor/index.js'
import type { TokenizerConfig } from './config.js'
import type { Encoding, Side } from './encoding.js'
import type { EncodeOptions, Tokenizer } from './tokenizer.js'

export interface BatchOptions extends EncodeOptions {
  /**
   * `true` and `'longest'` pad to the longest text of the batch, `'maxLength'` to `maxLength` (default `modelMaxLength`). Default
   * false.
   */
  padding?: boolean | 'longest' | 'maxLength'
  /** Side of the padding. Default: that of the configuration. */
  paddingSide?: Side
  /** Pad to a multiple of this length. Default 1. */
  padToMultipleOf?: number
  /** Second texts of pairs. */
  textPairs?: readonly string[]
  /** Return int64 tensors of shape `[batch, length]`, which belong to the caller's scope. Default false: arrays. */
  returnTensors?: boolean
}

interface BatchColumns<T> {
  inputIds: T
  /** 1 for tokens, 0 for padding. */
  attentionMask: T
  tokenTypeIds: T
  /** 1 for special tokens and padding. */
  specialTokensMask: T
  /** See {@link Encoding.offsets}. */
  offsets: [number, number][][]
  /** See {@link Encoding.wordIds}. */
  wordIds: (number | null)[][]
}

export type BatchEncoding = BatchColumns<number[][]>
export type TensorBatch = BatchColumns<Tensor>

export function encodeBatch(
  tokenizer: Tokenizer,
  config: TokenizerConfig,
  texts: readonly (string | readonly [string, string])[],
  options: BatchOptions,
): BatchEncoding | TensorBatch {
  const where = 'Tokenizer.encodeBatch'
  requireOptions(where, options, [
    'padding',
    'paddingSide',
    'padToMultipleOf',
    'textPairs',
    'returnTensors',
    'addSpecialTokens',
    'truncation',
    'maxLength',
    'truncationSide',
  ])
  if (!Array.isArray(texts)) throw argumentError(where, 'texts', 'an array of texts', texts)
  const { padding: _, paddingSide: __, padToMultipleOf: ___, textPairs, returnTensors, ...each } = options
  const rows = padded(
    pairsOf(where, texts, textPairs).map((text) => tokenizer.encode(text, each)),
    tokenizer,
    options,
    config,
  )
  const shared = {
    get offsets() {
      return rows.map((row) => row.offsets)
    },
    get wordIds() {
      return rows.map((row) => row.wordIds)
    },
  }
  const column = (name: Column): number[][] => rows.map((row) => row[name])
  if (returnTensors !== true) return Object.assign(shared, columnsOf(column))
  const length = rows[0]?.length ?? 0
  const odd = rows.find((row) => row.length !== length)
  if (odd !== undefined) {
    throw new ConfigError(
      `${where}: returnTensors: expected texts of equal length, got ${length} and ${odd.length} tokens. Set padding, and truncation for long texts.`,
      { argument: 'returnTensors' },
    )
  }
  return Object.assign(
    shared,
    scope(() => columnsOf((name) => int64(column(name), length))),
  )
}

type Column = 'inputIds' | 'attentionMask' | 'tokenTypeIds' | 'specialTokensMask'

function columnsOf<T>(column: (name: Column) => T): Record<Column, T> {
  return {
    inputIds: column('inputIds'),
    attentionMask: column('attentionMask'),
    tokenTypeIds: column('tokenTypeIds'),
    specialTokensMask: column('specialTokensMask'),
  }
}

function int64(rows: readonly number[][], length: number): Tensor {
  const values = new BigInt64Array(rows.length * length)
  for (const [i, row] of rows.entries()) {
    for (let k = 0; k < length; k++) values[i * length + k] = BigInt(row[k]!)
  }
  return tensor(values, { dtype: 'int64', shape: [rows.length, length] })
}

function pairsOf(
  where: string,
  texts: readonly (string | readonly [string, string])[],
  pairs: readonly string[] | undefined,
): readonly (string | readonly [string, string])[] {
  if (pairs === undefined) return texts
  if (!Array.isArray(pairs) || pairs.length !== texts.length) {
    throw argumentError(where, 'textPairs', `an array of ${texts.length} texts`, pairs)
  }
  return texts.map((text, i) => {
    if (typeof text !== 'string') throw argumentError(where, `texts[${i}]`, 'a string where textPairs are given', text)
    return [text, pairs[i]!]
  })
}

function padded(rows: Encoding[], tokenizer: Tokenizer, options: BatchOptions, config: TokenizerConfig): Encoding[] {
  const { padding = false, paddingSide = config.paddingSide ?? 'right', padToMultipleOf: multiple = 1 } = options
  const where = 'Tokenizer.encodeBatch'
  if (typeof padding !== 'boolean') requireOneOf(where, 'padding', padding, ['longest', 'maxLength'])
  requireOneOf(where, 'paddingSide', paddingSide, ['left', 'right'])
  requireWhole(where, 'padToMultipleOf', multiple, 1)
  if (padding === false) return rows
  const id = tokenizer.padTokenId
  if (id === null) {
    throw new ConfigError(
      `${where}: padding: expected a tokenizer with a pad token, got one without. Set tokenizer.padToken, for example to tokenizer.eosToken.`,
      { argument: 'padding' },
    )
  }
  const { maxLength = config.modelMaxLength } = options
  let length = rows.reduce((longest, row) => Math.max(longest, row.length), 0)
  if (padding === 'maxLength') {
    if (maxLength === null) {
      throw new ConfigError(
        `${where}: maxLength: expected a number for padding 'maxLength', got none. Set maxLength.`,
        {
          argument: 'maxLength',
        },
      )
    }
    length = maxLength
  }
  length = Math.ceil(length / multiple) * multiple
  return rows.map((row) => row.padded(length, paddingSide, id, 0))
}
