import { argumentError, requireObject, requireOptions, requireSignal, requireWhole, shown } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { KvCache } from '../generation/kv-cache.js'
import { arange, noGrad, ops, scope, type Tensor, tensor } from '../tensor/index.js'
import { Tokenizer } from '../text/index.js'
import { DecoderLM } from './decoder/decoder-lm.js'
import { InternVL, type InternVLImages } from './internvl/internvl.js'

/** One or several prompts; shorter ones are padded on the left. */
export interface ScoreLabelsInputs extends InternVLImages {
  /** Token ids [batch, time], int64; for an InternVL with the id of `<IMG_CONTEXT>` at images. */
  inputIds?: Tensor | null
  /** [batch, time, hiddenSize], instead of `inputIds`. */
  inputsEmbeds?: Tensor | null
  /** [batch, time], with a cache [batch, cache.length + time]: 1 for real tokens and 0 for padding on the left. */
  attentionMask?: Tensor | null
  /** Cache of what was read before, such as an image. It is left unchanged. */
  cache?: KvCache | null
}

export interface ScoreLabelsOptions {
  /** Tokenizer for labels that are strings. */
  tokenizer?: Tokenizer
  /** Text that ends an answer, such as `'<|im_end|>'`, appended to each label that is a string, and scored. Default ''. */
  end?: string
  /** Whether to divide by the number of tokens, so that long labels are not penalized. Default false. */
  perToken?: boolean
  /** Labels per batch; each needs the memory of a prompt's cache. Default 16. */
  batchSize?: number
  signal?: AbortSignal
}

/** Scores by prompt and label, in their order. */
export interface LabelScores {
  /** Natural logarithm of the likelihood of the label's tokens after the prompt; with `perToken` their mean. */
  logprobs: number[][]
  /** Softmax of `logprobs` over the labels. */
  probabilities: number[][]
  /** Index of the most likely label of each prompt. */
  best: number[]
}

const INPUTS: readonly (keyof ScoreLabelsInputs)[] = [
  'inputIds',
  'inputsEmbeds',
  'attentionMask',
  'cache',
  'pixelValues',
  'imageFeatures',
  'imageEmbeds',
]

/**
 * Score a closed set of answers after a prompt, which is read once. The answer is always one of them, and the probabilities allow
 * thresholds.
 *
 * ```ts
 * const { probabilities } = await scoreLabels(model, { inputIds, pixelValues }, ['Joy.', 'Anger.'], { tokenizer, end: '<|im_end|>' })
 * ```
 *
 * @param labels strings, or lists of token ids
 * @throws ConfigError for invalid labels and options; ShapeError for inputs whose shapes do not match
 */
export async function scoreLabels(
  model: DecoderLM | InternVL,
  inputs: ScoreLabelsInputs,
  labels: readonly string[] | readonly (readonly number[])[],
  options: ScoreLabelsOptions = {},
): Promise<LabelScores> {
  const where = 'scoreLabels'
  requireObject(where, 'inputs', inputs)
  requireOptions(where, inputs, INPUTS)
  requireOptions(where, options, ['tokenizer', 'end', 'perToken', 'batchSize', 'signal'])
  const { perToken = false, batchSize = 16, signal } = options
  if (typeof perToken !== 'boolean') throw argumentError(where, 'perToken', 'true or false', perToken)
  requireWhole(where, 'batchSize', batchSize, 1)
  requireSignal(where, signal)
  if (!(model instanceof DecoderLM) && !(model instanceof InternVL)) {
    throw argumentError(where, 'model', 'a DecoderLM or an InternVL', model)
  }
  const llm = model instanceof InternVL ? model.language_model : model
  const ids = labelIds(where, labels, options, llm.config.vocabSize ?? 32000)
  signal?.throwIfAborted()
  return scope(() =>
    noGrad(async () => {
      const prompt = await read(where, model, inputs)
      const cache = inputs.cache ?? new KvCache()
      try {
        const sums = await sumsOf({ llm, cache, prompt, ids, batchSize, signal })
        return finished(sums, ids, perToken)
      } finally {
        if (!inputs.cache) cache.dispose()
      }
    }),
  )
}

function labelIds(
  where: string,
  labels: readonly string[] | readonly (readonly number[])[],
  { tokenizer, end = '' }: ScoreLabelsOptions,
  vocabSize: number,
): number[][] {
  if (!Array.isArray(labels) || labels.length === 0)
    throw argumentError(where, 'labels', 'a list of strings or of lists of token ids', labels)
  if (typeof end !== 'string') throw argumentError(where, 'end', 'a string', end)
  return (labels as readonly (string | readonly number[])[]).map((label, i) => {
    let ids: readonly number[]
    if (typeof label === 'string') {
      if (!(tokenizer instanceof Tokenizer))
        throw argumentError(where, 'tokenizer', 'a Tokenizer, for labels that are strings', tokenizer)
      ids = [...tokenizer.encode(label + end, { addSpecialTokens: false }).inputIds]
    } else {
      ids = label
    }
    const good = (id: unknown) => Number.isSafeInteger(id) && (id as number) >= 0 && (id as number) < vocabSize
    if (Array.isArray(ids) && ids.length > 0 && ids.every(good)) return [...ids]
    throw new ConfigError(
      `${where}: labels[${i}]: expected at least one token id from 0 to ${vocabSize - 1}, got ${ids === undefined ? 'none' : shown(ids)}. Correct it.`,
      { label },
    )
  })
}

type Prompt = { inputIds?: Tensor; inputsEmbeds?: Tensor; attentionMask: Tensor | null; rows: number }

async function read(where: string, model: DecoderLM | InternVL, inputs: ScoreLabelsInputs): Promise<Prompt> {
  const { inputIds, inputsEmbeds, attentionMask = null, cache: _, ...images } = inputs
  const hasImages = Object.values(images).some((value) => value != null)
  if (hasImages && !(model instanceof InternVL && inputIds && !inputsEmbeds)) {
    throw new ConfigError(
      `${where}: expected an InternVL and inputIds with images, got others. Leave the images out.`,
      {},
    )
  }
  if ((inputIds == null) === (inputsEmbeds == null)) {
    throw new ConfigError(
      `${where}: expected either inputIds or inputsEmbeds, got ${inputIds == null ? 'neither' : 'both'}. Pass one of them.`,
      {},
    )
  }
  if (attentionMask && Number((await attentionMask.select(1, -1).ne(0).all().data())[0]) === 0) {
    throw new ConfigError(
      `${where}: attentionMask: expected 1 at the end of each row, got 0. Pad the prompts on the left.`,
      {},
    )
  }
  const tokens = (inputIds ?? inputsEmbeds) as Tensor
  const base = { attentionMask, rows: tokens.size(0) }
  if (inputsEmbeds) return { ...base, inputsEmbeds }
  if (model instanceof InternVL) return { ...base, inputsEmbeds: await model.embed(inputIds as Tensor, images) }
  return { ...base, inputIds: inputIds as Tensor }
}

interface Work {
  llm: DecoderLM
  cache: KvCache
  prompt: Prompt
  ids: readonly number[][]
  batchSize: number
  signal: AbortSignal | undefined
}

/** Compute the sum of the log-probabilities of each label's tokens, by prompt. */
async function sumsOf({ llm, cache, prompt, ids, batchSize, signal }: Work): Promise<number[][]> {
  const { rows, ...first } = prompt
  const past = cache.length
  const { logits } = await llm.forward({ ...first, cache, logitsToKeep: 1 })
  const device = (logits as Tensor).device
  try {
    const begins = ops.logSoftmax((logits as Tensor).select(1, 0).float(), -1)
    const firstIds = tensor(
      ids.map(([id]) => id as number),
      { dtype: 'int64', device },
    )
    const sums = listOf(await begins.indexSelect(1, firstIds).double().data(), rows, ids.length)
    const longer = ids.flatMap((label, i) => (label.length > 1 ? [i] : []))
    const length = cache.length
    // A group has the prompts once per label. Its first rows are the prompts themselves.
    const width = Math.min(batchSize, longer.length)
    if (width > 1) {
      await cache.reorder(arange(rows, { dtype: 'int64' }).repeat([width]))
    }
    for (let from = 0; from < longer.length; from += width) {
      signal?.throwIfAborted()
      const group = Array.from({ length: width }, (_, k) => longer[Math.min(from + k, longer.length - 1)] as number)
      const scored = await scope(() => restOf({ llm, cache, prompt, ids, group, device }))
      for (const [k, label] of group.slice(0, longer.length - from).entries()) {
        for (let row = 0; row < rows; row++) (sums[row] as number[])[label] += scored[k * rows + row] as number
      }
      await cache.crop(length)
    }
    return sums
  } finally {
    // Restore the caller's cache.
    if (cache.length > past) {
      await cache.reorder(arange(rows, { dtype: 'int64' }))
      await cache.crop(past)
    }
  }
}

/** Compute the sums of the log-probabilities of the tokens after the first, for each label of `group` and all prompts. */
async function restOf({
  llm,
  cache,
  prompt,
  ids,
  group,
  device,
}: Pick<Work, 'llm' | 'cache' | 'prompt' | 'ids'> & { group: number[]; device: Tensor['device'] }): Promise<number[]> {
  const { rows, attentionMask } = prompt
  const labels = group.map((i) => ids[i] as number[])
  const time = Math.max(...labels.map(({ length }) => length)) - 1
  const padded = (list: readonly number[], value: number) => [
    ...list,
    ...new Array<number>(time - list.length).fill(value),
  ]
  const repeated = (lists: number[][]) =>
    tensor(
      lists.flatMap((list) => new Array(rows).fill(list)),
      { dtype: 'int64', device },
    )
  const inputIds = repeated(labels.map((label) => padded(label.slice(0, -1), 0)))
  const targets = repeated(labels.map((label) => padded(label.slice(1), 0)))
  const counted = repeated(
    labels.map((label) =>
      padded(
        label.slice(1).map(() => 1),
        0,
      ),
    ),
  )
  const mask = attentionMask
    ? ops.cat([attentionMask.to({ dtype: 'int64', device }).repeat([group.length, 1]), ops.onesLike(inputIds)], 1)
    : null
  const { logits } = await llm.forward({ inputIds, attentionMask: mask, cache, logitsToKeep: 0 })
  const chosen = ops
    .logSoftmax((logits as Tensor).float(), -1)
    .gather(2, targets.unsqueeze(2))
    .squeeze(2)
  return Array.from((await chosen.double().mul(counted).sum(1).data()) as Float64Array)
}

const listOf = (values: ArrayLike<number | bigint>, rows: number, columns: number): number[][] =>
  Array.from({ length: rows }, (_, row) => Array.from({ length: columns }, (_, i) => Number(values[row * columns + i])))

function finished(sums: number[][], ids: readonly number[][], perToken: boolean): LabelScores {
  const logprobs = sums.map((row) => row.map((sum, i) => (perToken ? sum / (ids[i] as number[]).length : sum)))
  const best = logprobs.map((row) => row.indexOf(Math.max(...row)))
  const probabilities = logprobs.map((row, i) => {
    const most = row[best[i] as number] as number
    const exponentials = row.map((value) => Math.exp(value - most))
    const sum = exponentials.reduce((a, b) => a + b, 0)
    return exponentials.map((value) => value / sum)
  })
  return { logprobs, probabilities, best }
}
