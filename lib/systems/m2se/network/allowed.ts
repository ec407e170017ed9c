import { ConfigError } from '../../../base/errors.js'
import type { GenerationConfig } from '../../../generation/config.js'
import { listGrammar } from '../../../generation/list-grammar.js'
import { INTERNVL_TEMPLATES } from '../../../models/internvl/prompt.js'
import { labelsAllowed, pairsAllowed } from '../published/wording.js'
import type { EmoVerse } from './network.js'

/**
 * What holds an answer to what its question allows: one of its labels, or pairs of its target and utterances that there are, none of
 * them too; nothing where a question allows all.
 * @throws ConfigError where the configuration holds it to something already
 */
export function allowedBy(model: EmoVerse, query: string, config: GenerationConfig): GenerationConfig {
  const { allowedSequences, prefixAllowedTokensFn } = config
  if (allowedSequences != null || prefixAllowedTokensFn != null) {
    throw new ConfigError('constrained holds answers to what their questions allow, and allowed ones are given too', {
      argument: 'constrained',
    })
  }
  const { tokenizer } = model
  const labels = labelsAllowed(query)
  if (labels) {
    const ids = labels.map((label) => [...tokenizer.encode(label, { addSpecialTokens: false }).inputIds])
    return { allowedSequences: ids }
  }
  const items = pairsAllowed(query)
  if (items.length === 0) return {}
  return { prefixAllowedTokensFn: pairGrammar(model, items).rule }
}

/** Between two pairs of an answer. */
export const PAIR_SEPARATOR = ';'

/** Answers that list pairs, or none, and the token that ends them. */
export function pairGrammar({ tokenizer, template }: EmoVerse, items: readonly string[]) {
  const { end } = INTERNVL_TEMPLATES[template]
  const own = tokenizer.tokenToId(end)
  const rule = listGrammar(tokenizer, {
    ...{ items, separator: PAIR_SEPARATOR, empty: true },
    ...(own !== undefined && { end }),
  })
  return { rule, endId: own ?? tokenizer.eosTokenId }
}
