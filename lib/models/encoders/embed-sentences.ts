import { argumentError, isArrayLike, requireOneOf, requireOptions, requireWhole } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { noGrad, ops, scope, type Tensor, tensor } from '../../tensor/index.js'
import { Tokenizer } from '../../text/index.js'
import { Bert } from './bert.js'
import { Roberta, type RobertaConfig } from './roberta.js'

export interface EmbedSentencesOptions {
  /** `'mean'` over the tokens, or the state of the first token, `'cls'`. Default `'mean'`. */
  pooling?: 'mean' | 'cls'
  /** Whether to return unit vectors, whose dot products are cosines. Default false. */
  normalize?: boolean
  /** Texts per batch, which are sorted by length. Default 32. */
  batchSize?: number
  /** Maximum number of tokens of a text, with special tokens; longer texts are cut. Default: the limit of network and tokenizer. */
  maxLength?: number
}

/** Return the maximum number of tokens of a text. RoBERTa's positions start after that of the padding token. */
export function longestText(model: Bert | Roberta): number {
  return model instanceof Bert ? (model.config.maxPositionEmbeddings ?? 512) : longestOfRoberta(model.config)
}

export const longestOfRoberta = ({ maxPositionEmbeddings = 512, padTokenId = 1 }: RobertaConfig): number =>
  maxPositionEmbeddings - padTokenId - 1

/** Check that a tokenizer's ids are ids of the network, as they are not with the tokenizer of another one. */
export function requireVocabulary(
  where: string,
  tokenizer: Tokenizer,
  { config }: { config: { vocabSize?: number } },
): void {
  const { vocabSize } = config
  if (vocabSize === undefined || tokenizer.vocabSize <= vocabSize) return
  throw new ConfigError(
    `${where}: tokenizer: expected the tokenizer of the network, with at most ${vocabSize} tokens, got one with ${tokenizer.vocabSize}. Load it from the network's folder.`,
    { argument: 'tokenizer' },
  )
}

/**
 * Embed texts as sentence-transformers does (Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084): float [texts, hiddenSize], on
 * the network's device, without gradients.
 *
 * ```ts
 * const model = await Bert.fromPretrained('minilm')
 * const tokenizer = await Tokenizer.fromPretrained('minilm')
 * const vectors = await embedSentences(model, tokenizer, ['It rains.', 'The weather is bad.'], { normalize: true })
 * ```
 * @throws ConfigError for wrong arguments
 */
export async function embedSentences(
  model: Bert | Roberta,
  tokenizer: Tokenizer,
  texts: readonly string[],
  options: EmbedSentencesOptions = {},
): Promise<Tensor> {
  const where = 'embedSentences'
  if (!(model instanceof Bert) && !(model instanceof Roberta))
    throw argumentError(where, 'model', 'a Bert or a Roberta', model)
  if (!(tokenizer instanceof Tokenizer)) throw argumentError(where, 'tokenizer', 'a Tokenizer', tokenizer)
  if (!isArrayLike(texts) || texts.length === 0) {
    throw argumentError(where, 'texts', 'a list of at least one string', texts)
  }
  Array.from(texts).forEach((text: unknown, i) => {
    if (typeof text !== 'string') throw argumentError(where, `texts[${i}]`, 'a string', text)
  })
  requireVocabulary(where, tokenizer, model)
  requireOptions(where, options, ['pooling', 'normalize', 'batchSize', 'maxLength'])
  const longest = Math.min(longestText(model), tokenizer.modelMaxLength ?? Number.POSITIVE_INFINITY)
  const { pooling = 'mean', normalize = false, batchSize = 32, maxLength = longest } = options
  requireOneOf(where, 'pooling', pooling, ['mean', 'cls'])
  if (typeof normalize !== 'boolean') throw argumentError(where, 'normalize', 'true or false', normalize)
  requireWhole(where, 'batchSize', batchSize, 1)
  requireWhole(where, 'maxLength', maxLength, 1)
  // Sort by length, to limit padding.
  const order = Array.from(texts, (text, i) => ({ length: text.length, i })).sort((a, b) => b.length - a.length)
  const device = model.parameters()[0]?.device ?? 'cpu'
  return noGrad(() =>
    scope(async () => {
      const rows: Tensor[] = []
      for (let from = 0; from < order.length; from += batchSize) {
        const batch = order.slice(from, from + batchSize).map(({ i }) => texts[i] as string)
        rows.push(
          await scope(async () => {
            const { inputIds, attentionMask, tokenTypeIds } = tokenizer.encodeBatch(batch, {
              padding: true,
              truncation: true,
              maxLength,
              returnTensors: true,
            })
            const mask = attentionMask.to({ device })
            const inputs = { inputIds: inputIds.to({ device }), attentionMask: mask }
            const { lastHiddenState } = await model.forward(
              model instanceof Bert ? { ...inputs, tokenTypeIds: tokenTypeIds.to({ device }) } : inputs,
            )
            return pooling === 'cls' ? lastHiddenState.select(1, 0).clone() : meanOf(lastHiddenState, mask)
          }),
        )
      }
      const places = new Array<bigint>(order.length)
      for (const [place, { i }] of order.entries()) places[i] = BigInt(place)
      const vectors = ops.cat(rows, 0).indexSelect(0, tensor(places, { dtype: 'int64', device }))
      return normalize ? vectors.div(ops.linalgVectorNorm(vectors, 2, [-1], true).clampMin(1e-12)) : vectors
    }),
  )
}

/** Return the mean over tokens without padding: [batch, time, dim] -> [batch, dim]. */
function meanOf(states: Tensor, mask: Tensor): Tensor {
  const weights = mask.to(states.dtype).unsqueeze(-1)
  return states
    .mul(weights)
    .sum([1])
    .div(weights.sum([1]).clampMin(1e-9))
}
