import { ConfigError, ShapeError } from '../base/errors.js'
import type { DecoderLM } from '../models/decoder/decoder-lm.js'
import { type OutputLayer, outputLayerOf } from '../nn/output-layer.js'
import { cat, scope, type Tensor, tensor, zeros } from '../tensor/index.js'
import { upload } from '../tensor/upload.js'
import { padTokens } from './pad.js'

export interface EmbedRowsOptions {
  /** Token id that marks the place of an embedding; one id per embedding, in order. It may be outside the vocabulary, such as -1. */
  placeholder: number
  /** Float [embeddings of all rows, hiddenSize], such as the output of an audio or vision encoder; null if there are none. */
  embeddings: Tensor | null
  /** Side of the padding. Default 'right'; use 'left' for generation. */
  side?: 'left' | 'right'
  /** Target token ids, one list per row and as long as it; -100 is ignored by the loss. Embeddings always get -100. */
  labels?: readonly (readonly number[])[] | undefined
}

/** Inputs of a language model. */
export interface EmbeddedRows {
  /** [rows, longest, hiddenSize], of the dtype and on the device of the token embeddings. */
  inputsEmbeds: Tensor
  /** int64 [rows, longest], 1 for tokens and embeddings, 0 for padding. */
  attentionMask: Tensor
}

/**
 * Embed rows of token ids and insert embeddings of another encoder at their placeholders. Rows are padded with zeros, which the
 * mask excludes. Gradients flow back to `embeddings`.
 *
 * ```ts
 * const ids = expandPlaceholders([1, 529, IMAGE, 1724], IMAGE, [256])
 * const inputs = embedRows(llm, [ids], { placeholder: IMAGE, embeddings: image, side: 'left' })
 * ```
 * @returns with `labels` also int64 [rows, longest], -100 at embeddings and padding
 * @throws ShapeError if the number or width of the embeddings does not match, or if labels and rows differ in length;
 * ConfigError for a token id outside the vocabulary
 */
export function embedRows(
  llm: DecoderLM,
  rows: readonly (readonly number[])[],
  options: EmbedRowsOptions & { labels: readonly (readonly number[])[] },
): EmbeddedRows & { labels: Tensor }
export function embedRows(llm: DecoderLM, rows: readonly (readonly number[])[], options: EmbedRowsOptions): EmbeddedRows
export function embedRows(
  llm: DecoderLM,
  rows: readonly (readonly number[])[],
  { placeholder, embeddings, side = 'right', labels }: EmbedRowsOptions,
): EmbeddedRows & { labels?: Tensor } {
  const tableOf = (path: string): Tensor => (llm.get(path) as unknown as { weight: Tensor }).weight
  const weight = tableOf((outputLayerOf(llm) as OutputLayer).embeddings)
  // Quantized embeddings are bytes with rows of another length, so the sizes come from the final norm.
  const states = tableOf('model.norm')
  const { device, dtype } = states
  const hiddenSize = states.size(0)
  const ids = rows.flatMap((row) => row.filter((id) => id !== placeholder))
  const count = rows.reduce((sum, { length }) => sum + length, 0) - ids.length
  requireFitting(count, embeddings, hiddenSize)
  requireTokens(ids, weight.size(0))
  if (labels) requireLike(rows, labels)
  return scope(() => {
    const int64 = { dtype: 'int64', device } as const
    // Rows of the table: token embeddings, then inserted embeddings, then one row of zeros for all padding.
    let [token, embedding] = [0, ids.length]
    const places = rows.map((row) => row.map((id) => (id === placeholder ? embedding++ : token++)))
    const index = upload(padTokens(places, { value: ids.length + count, side }), device)
    const table = [
      ...(ids.length > 0 ? [llm.embed(tensor(ids, int64))] : []),
      ...(embeddings ? [embeddings.to({ device, dtype })] : []),
      zeros([1, hiddenSize], { device, dtype }),
    ]
    const inputsEmbeds = cat(table, 0).indexSelect(0, index.flatten())
    const targets = labels?.map((row, r) => row.map((id, i) => (rows[r]?.[i] === placeholder ? -100 : id)))
    return {
      inputsEmbeds: inputsEmbeds.reshape([...index.shape, hiddenSize]),
      attentionMask: index.ne(ids.length + count).to({ dtype: 'int64' }),
      ...(targets && { labels: upload(padTokens(targets, { value: -100, side }), device) }),
    }
  })
}

/**
 * Repeat each placeholder in a row of token ids: the i-th one `counts[i]` times.
 * @param name name of the row in messages
 * @throws ConfigError if the numbers of placeholders and counts differ
 */
export function expandPlaceholders(
  ids: readonly number[],
  placeholder: number,
  counts: readonly number[],
  name = 'the row',
): number[] {
  let next = 0
  const row = ids.flatMap((id) => (id === placeholder ? new Array<number>(counts[next++] ?? 0).fill(id) : [id]))
  if (next === counts.length) return row
  throw new ConfigError(
    `${name}: expected ${counts.length} placeholders, one for each input with embeddings, got ${next}. Check the prompt.`,
    {
      placeholders: next,
      embeddings: counts.length,
    },
  )
}

function requireFitting(count: number, embeddings: Tensor | null, hiddenSize: number): void {
  const [found = 0, width] = embeddings?.shape ?? []
  if (embeddings && (embeddings.ndim !== 2 || width !== hiddenSize)) {
    const shape = embeddings.shape.join(', ')
    throw new ShapeError(
      `embedRows: embeddings: expected [${count}, ${hiddenSize}], got [${shape}]. Project them to the hidden size.`,
      { shape: embeddings.shape },
    )
  }
  if (found === count) return
  throw new ShapeError(
    `embedRows: embeddings: expected ${count} rows, one for each placeholder, got ${found}. Use expandPlaceholders.`,
    {
      placeholders: count,
      embeddings: found,
    },
  )
}

function requireTokens(ids: readonly number[], vocabSize: number): void {
  const wrong = ids.find((id) => !Number.isSafeInteger(id) || id < 0 || id >= vocabSize)
  if (wrong === undefined) return
  throw new ConfigError(
    `embedRows: expected token ids from 0 to ${vocabSize - 1}, got ${wrong}. Use the tokenizer of the language model.`,
    { id: wrong, vocabSize },
  )
}

function requireLike(rows: readonly (readonly number[])[], labels: readonly (readonly number[])[]): void {
  const sizes = (lists: readonly (readonly number[])[]) => lists.map(({ length }) => length).join(', ')
  if (sizes(rows) === sizes(labels)) return
  throw new ShapeError(
    `embedRows: labels: expected the lengths of the rows, ${sizes(rows)}, got ${sizes(labels)}. Pad them with -100.`,
    {},
  )
}
