import { ConfigError, ShapeError } from '../base/errors.js'
import type { DecoderLM } from '../models/decoder/decoder-lm.js'
import { type OutputLayer, outputLayerOf } from '../nn/output-layer.js'
import { cat, scope, type Tensor, tensor, zeros } from '../tensor/index.js'
import { upload } from '../tensor/upload.js'
import { padTokens } from './pad.js'

export interface EmbedRowsOptions {
  /** The id in whose place an embedding stands, one each, in order. It may be no token at all, such as -1. */
  placeholder: number
  /** Float [embeddings of all rows, hiddenSize], such as another network made of audio or pictures; null where there are none. */
  embeddings: Tensor | null
  /** The side that is padded. Default 'right'; 'left' for generation. */
  side?: 'left' | 'right'
  /** What each place is to be predicted as, as long as its row; -100 for nothing, which is so at every embedding. */
  labels?: readonly (readonly number[])[] | undefined
}

/** What a language model reads. */
export interface EmbeddedRows {
  /** [rows, longest, hiddenSize], of the dtype and on the device of the token embeddings. */
  inputsEmbeds: Tensor
  /** int64 [rows, longest], 1 for what is real. */
  attentionMask: Tensor
}

/**
 * Rows of token ids, some of whose places hold the embeddings of something that is no text, as what a language model reads:
 * side by side, padded with zeros that nothing attends to. Gradients go back into `embeddings`.
 *
 * ```ts
 * const ids = expandPlaceholders([1, 529, IMAGE, 1724], IMAGE, [256])
 * const inputs = embedRows(llm, [ids], { placeholder: IMAGE, embeddings: picture, side: 'left' })
 * ```
 * @returns with `labels`: int64 [rows, longest] too, -100 at embeddings and padding
 * @throws ShapeError where there are not as many embeddings as placeholders, where they are of another width, or where labels
 * and rows are not equally long; ConfigError for an id that is no token
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
  // Packed embeddings are bytes, in rows of another length.
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
    // Rows of the table: tokens, then embeddings, then one of zeros for all padding.
    let [token, embedding] = [0, ids.length]
    const places = rows.map((row) => row.map((id) => (id === placeholder ? embedding++ : token++)))
    const index = upload(padTokens(places, { value: ids.length + count, side }), device)
    const table = [
      ...(ids.length > 0 ? [llm.embed(tensor(ids, int64))] : []),
      ...(embeddings ? [embeddings.to({ device, dtype })] : []),
      zeros([1, hiddenSize], { device, dtype }),
    ]
    const inputsEmbeds = cat(table, 0).indexSelect(0, index.flatten())
    const wanted = labels?.map((row, r) => row.map((id, i) => (rows[r]?.[i] === placeholder ? -100 : id)))
    return {
      inputsEmbeds: inputsEmbeds.reshape([...index.shape, hiddenSize]),
      attentionMask: index.ne(ids.length + count).to({ dtype: 'int64' }),
      ...(wanted && { labels: upload(padTokens(wanted, { value: -100, side }), device) }),
    }
  })
}

/**
 * Row of token ids in which each placeholder stands once for each of its embeddings: the i-th `counts[i]` times.
 * @param name of the row, for messages
 * @throws ConfigError where there are not as many placeholders as counts
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
  throw new ConfigError(`${name} has ${next} placeholders, and there are embeddings for ${counts.length}`, {
    placeholders: next,
    embeddings: counts.length,
  })
}

function requireFitting(count: number, embeddings: Tensor | null, hiddenSize: number): void {
  const [found = 0, width] = embeddings?.shape ?? []
  if (embeddings && (embeddings.ndim !== 2 || width !== hiddenSize)) {
    const shape = embeddings.shape.join(', ')
    throw new ShapeError(`embeddings must be [${count}, ${hiddenSize}], not [${shape}]`, { shape: embeddings.shape })
  }
  if (found === count) return
  throw new ShapeError(`there are ${count} placeholders in all rows, and ${found} embeddings for them`, {
    placeholders: count,
    embeddings: found,
  })
}

function requireTokens(ids: readonly number[], vocabSize: number): void {
  const wrong = ids.find((id) => !Number.isSafeInteger(id) || id < 0 || id >= vocabSize)
  if (wrong === undefined) return
  throw new ConfigError(`${wrong} is none of the language model's ${vocabSize} tokens`, { id: wrong, vocabSize })
}

function requireLike(rows: readonly (readonly number[])[], labels: readonly (readonly number[])[]): void {
  const sizes = (lists: readonly (readonly number[])[]) => lists.map(({ length }) => length).join(', ')
  if (sizes(rows) === sizes(labels)) return
  throw new ShapeError(`labels must be as long as their rows: ${sizes(labels)} instead of ${sizes(rows)}`, {})
}
