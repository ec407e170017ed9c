import { defined, requireSignal, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { shortened } from '../../../base/words.js'
import type { KvCache } from '../../../generation/kv-cache.js'
import { INTERNVL_TEMPLATES } from '../../../models/internvl/prompt.js'
import { scoreLabels } from '../../../models/score-labels.js'
import { withEvalMode } from '../../../nn/index.js'
import { noGrad, ops, scope, type Tensor, tensor } from '../../../tensor/index.js'
import type { EmoVerseQuestion } from '../data/entry.js'
import type { MediaPlace } from '../data/media.js'
import { allowedPairs } from '../published/wording.js'
import { PAIR_SEPARATOR, pairGrammar } from './allowed.js'
import { deviceOf, promptOf } from './answers.js'
import { encodeWithin, type PromptLimits, requireLimits } from './limits.js'
import type { EmoVerse } from './network.js'

/** Prompt limits, location of media, and abort signal. */
export type EmoVerseScoreOptions = MediaPlace & PromptLimits & { signal?: AbortSignal }

/** Return the probability of each allowed answer. @see EmoVerse.scoreLabels */
export async function labelProbabilities(
  model: EmoVerse,
  record: EmoVerseQuestion,
  labels: readonly string[],
  options: EmoVerseScoreOptions,
): Promise<Record<string, number>> {
  const { tokenizer, llm, template } = model
  const { end } = INTERNVL_TEMPLATES[template]
  return afterPrompt('EmoVerse.scoreLabels', model, record, options, async (last, cache) => {
    const inputIds = tensor([[last]], { dtype: 'int64', device: deviceOf(model) })
    const { probabilities } = await scoreLabels(llm, { inputIds, cache }, labels, {
      ...{ tokenizer, end },
      ...defined({ signal: options.signal }),
    })
    return Object.fromEntries(labels.map((label, i) => [label, probabilities[0]?.[i] as number]))
  })
}

/** Search prunes answers below this probability, if there are others. */
const LEAST = 0.03

/** Return the probability that an answer contains each pair. @see EmoVerse.scoreCauses */
export async function causeProbabilities(
  model: EmoVerse,
  record: EmoVerseQuestion,
  options: EmoVerseScoreOptions,
): Promise<Record<string, number>> {
  const where = 'EmoVerse.scoreCauses'
  const pairs = allowedPairs(record.query)
  if (pairs.length === 0) {
    throw new DataError(
      `${where}.query: expected a question about causes with a conversation, got ${shown(shortened(record.query, 80))}.`,
      { query: record.query },
    )
  }
  const { tokenizer } = model
  const { rule, endId } = pairGrammar(model, pairs)
  return afterPrompt(where, model, record, options, async (last, cache) => {
    const prompt = cache.length
    const probabilities = new Map(pairs.map((pair) => [pair, 0]))
    let whole = 0
    let least = LEAST
    /** Continue the search from `written`, of which the cache holds the first `read` tokens. */
    const follow = async (written: readonly number[], read: number, probability: number): Promise<void> => {
      options.signal?.throwIfAborted()
      let text = written
      let allowed = [...rule(0, [...text])]
      while (allowed.length === 1 && allowed[0] !== endId) {
        text = [...text, ...allowed]
        allowed = [...rule(0, [...text])]
      }
      const unread = read < 0 ? [last, ...text] : text.slice(read)
      const chances = allowed.length === 1 ? [1] : await chancesOf(model, cache, unread, allowed)
      const there = cache.length
      for (const [i, id] of allowed.entries()) {
        const own = probability * (chances[i] as number)
        if (!(own >= least)) continue
        if (id === endId) {
          whole += own
          const named = tokenizer.decode([...text]).split(PAIR_SEPARATOR)
          for (const pair of pairs)
            if (named.includes(pair)) probabilities.set(pair, (probabilities.get(pair) as number) + own)
          continue
        }
        await follow([...text, id], text.length, own)
        await cache.crop(there)
      }
    }
    // A barely trained network may give every answer a low probability.
    for (; whole === 0; least /= 10) {
      if (least < 1e-12)
        throw new DataError(
          `${where}: expected finite probabilities of answers, got none. Check the model's weights.`,
          {},
        )
      await follow([], -1, 1)
      await cache.crop(prompt)
    }
    return Object.fromEntries([...probabilities].map(([pair, probability]) => [pair, probability / whole]))
  })
}

/** Append tokens to the cache, and return the probabilities of the next token, normalized over `next`. */
function chancesOf(
  model: EmoVerse,
  cache: KvCache,
  read: readonly number[],
  next: readonly number[],
): Promise<number[]> {
  const device = deviceOf(model)
  return scope(async () => {
    const inputIds = tensor([[...read]], { dtype: 'int64', device })
    const { logits } = await model.llm.forward({ inputIds, cache, logitsToKeep: 1 })
    const ids = tensor([...next], { dtype: 'int64', device })
    const own = (logits as Tensor).select(0, 0).select(0, 0).indexSelect(0, ids)
    return Array.from((await ops.softmax(own.double(), -1).data()) as Float64Array)
  })
}

/** Encode a prompt without its last token, reusing cached prefixes, and run `ask` on it. `ask` must restore the cache's length. */
async function afterPrompt<T>(
  where: string,
  model: EmoVerse,
  record: EmoVerseQuestion,
  { signal, mediaRoot, ...limits }: EmoVerseScoreOptions,
  ask: (last: number, cache: KvCache) => Promise<T>,
): Promise<T> {
  requireLimits(where, limits)
  requireSignal(where, signal)
  const sample = await encodeWithin(model, record, limits, { mediaRoot, signal })
  const marks = model.marksOf(sample)
  const prefix = await model.prefixCaches.take(marks)
  const { cache } = prefix
  let isRead = false
  try {
    return await withEvalMode(model.whole, () =>
      scope(() =>
        noGrad(async () => {
          const last = sample.inputIds.length - 1
          if (prefix.known < last) {
            await scope(async () => {
              const { inputIds, inputsEmbeds } = await promptOf(model, sample, prefix.known, last)
              const inputs = inputsEmbeds ? { inputsEmbeds } : { inputIds }
              await model.llm.forward({ ...inputs, cache, logitsToKeep: 1 })
            })
          }
          const answer = await ask(sample.inputIds[last] as number, cache)
          isRead = true
          return answer
        }),
      ),
    )
  } finally {
    prefix.leave(isRead ? marks.slice(0, -1) : undefined)
  }
}
