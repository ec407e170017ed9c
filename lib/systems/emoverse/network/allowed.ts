import { ConfigError } from '../../../base/errors.js'
import type { GenerationConfig } from '../../../generation/config.js'
import { listGrammar } from '../../../generation/list-grammar.js'
import { INTERNVL_TEMPLATES } from '../../../models/internvl/prompt.js'
import { allowedLabels, allowedPairs } from '../published/wording.js'
import type { EmoVerse } from './network.js'

/**
 * Return the constraint of an answer to what its question allows: one of its labels, or any number of pairs of its target and existing
 * utterances; {} for an open question.
 * @throws ConfigError if the configuration has a constraint already
 */
export function allowedBy(model: EmoVerse, query: string, config: GenerationConfig): GenerationConfig {
  const { allowedSequences, prefixAllowedTokensFn } = config
  if (allowedSequences != null || prefixAllowedTokensFn != null) {
    throw new ConfigError(
      'constrained: expected no allowedSequences or prefixAllowedTokensFn with it, got one. Leave one of them out.',
      {
        argument: 'constrained',
      },
    )
  }
  const { tokenizer } = model
  const labels = allowedLabels(query)
  if (labels) {
    const ids = labels.map((label) => [...tokenizer.encode(label, { addSpecialTokens: false }).inputIds])
    return { allowedSequences: ids }
  }
  const items = allowedPairs(query)
  if (items.length === 0) return {}
  return { prefixAllowedTokensFn: pairGrammar(model, items).rule }
}

/** Separator of pairs in an answer. */
export const PAIR_SEPARATOR = ';'

/** Return a grammar of answers that list any number of pairs, and the token that ends an answer. */
export function pairGrammar({ tokenizer, template }: EmoVerse, items: readonly string[]) {
  const { end } = INTERNVL_TEMPLATES[template]
  const own = tokenizer.tokenToId(end)
  const rule = listGrammar(tokenizer, {
    ...{ items, separator: PAIR_SEPARATOR, empty: true },
    ...(own !== undefined && { end }),
  })
  return { rule, endId: own ?? tokenizer.eosTokenId }
}
