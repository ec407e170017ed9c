import { argumentError, requireOptions, requireString } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { Tokenizer } from '../text/index.js'
import type { GenerationConfig } from './config.js'

export interface ListGrammarOptions {
  /** Texts that an answer may list, such as `'3_joy,1'`. */
  items: readonly string[]
  /** Separator between two items. Default `';'`. */
  separator?: string
  /** Special token that ends an answer. Default: the tokenizer's end-of-sequence token. */
  end?: string
  /** Maximum number of items in an answer. Default: all. */
  most?: number
  /** Whether an answer may be empty. Default false. */
  empty?: boolean
}

/**
 * Return a `prefixAllowedTokensFn` for one call of `generate`: answers list some of the items, without repetition, in any order. Tokens are
 * those that the tokenizer produces for the whole answer, as in training.
 *
 * ```ts
 * const items = causes.map((cause) => `5_surprise,${cause}`)
 * await model.generate(inputs, { prefixAllowedTokensFn: listGrammar(tokenizer, { items }), maxNewTokens: 64 })
 * ```
 * For exactly one item, `allowedSequences` of the configuration is faster.
 * @throws ConfigError for items that are empty, duplicate, or contain the separator, and for an end that is not a single token
 */
export function listGrammar(
  tokenizer: Tokenizer,
  options: ListGrammarOptions,
): NonNullable<GenerationConfig['prefixAllowedTokensFn']> {
  const where = 'listGrammar'
  if (typeof tokenizer?.encode !== 'function') throw argumentError(where, 'tokenizer', 'a Tokenizer', tokenizer)
  requireOptions(where, options, ['items', 'separator', 'end', 'most', 'empty'])
  const { items, separator = ';', end = tokenizer.eosToken, most = items?.length, empty = false } = options
  requireString(where, 'separator', separator)
  const isList =
    Array.isArray(items) && items.length > 0 && items.every((item) => typeof item === 'string' && item !== '')
  if (!isList || separator === '')
    throw argumentError(where, 'items', 'a non-empty list of strings with a separator', items)
  if (new Set(items).size < items.length || items.some((item) => item.includes(separator))) {
    throw new ConfigError(
      `${where}.items: expected unique items without the separator ${JSON.stringify(separator)}, got a duplicate or one with it.`,
      {
        items,
      },
    )
  }
  if (!Number.isSafeInteger(most) || most < 1) throw argumentError(where, 'most', 'an integer of at least 1', most)
  const endId = end === null || end === undefined ? undefined : tokenizer.tokenToId(end)
  if (endId === undefined)
    throw new ConfigError(`${where}.end: expected a token of the tokenizer, got ${JSON.stringify(end)}.`, { end })
  const idsOf = (text: string): number[] => [...tokenizer.encode(text, { addSpecialTokens: false }).inputIds]
  const rules = { items, separator, most, empty }
  const begins = new Map<number, number>()
  const known = new Map<string, number[]>()
  return (prompt, ids) => {
    // The first call for a prompt has only the text before the answer.
    const begin = begins.get(prompt) ?? ids.length
    begins.set(prompt, begin)
    const written = ids.slice(begin)
    if (written.at(-1) === endId) return [endId]
    const key = written.join()
    const found = known.get(key) ?? nextTokens(written, tokenizer.decode(written), rules, endId, idsOf)
    known.set(key, found)
    return found
  }
}

type Rules = Required<Pick<ListGrammarOptions, 'items' | 'separator' | 'most' | 'empty'>>

/** Return the next tokens of all answers that begin with `text` and whose tokens begin with `written`. */
function nextTokens(
  written: readonly number[],
  text: string,
  rules: Rules,
  endId: number,
  idsOf: (text: string) => number[],
): number[] {
  const allowed = new Set<number>()
  for (const { answer, ends } of answersOf(text, rules)) {
    const ids = idsOf(answer)
    if (ids.length < written.length || written.some((id, i) => ids[i] !== id)) continue
    const next = ids[written.length]
    if (next !== undefined) allowed.add(next)
    else if (ends) allowed.add(endId)
  }
  // The tokens so far differ from the tokenizer's own segmentation: only an end is safe.
  return allowed.size > 0 ? [...allowed] : [endId]
}

/** Return answers that complete `text` by at most one item, and those that begin another one. */
function answersOf(text: string, { items, separator, most, empty }: Rules): { answer: string; ends: boolean }[] {
  const parts = text.split(separator)
  const begun = parts.pop() as string
  const left = items.filter((item) => !parts.includes(item))
  const before = parts.map((part) => `${part}${separator}`).join('')
  const answers: { answer: string; ends: boolean }[] = text === '' && empty ? [{ answer: '', ends: true }] : []
  for (const item of left) {
    if (!item.startsWith(begun)) continue
    const answer = before + item
    answers.push({ answer, ends: true })
    if (parts.length + 1 >= most) continue
    // A token can span the separator: add one more item for each letter that can follow it.
    const letters = new Map(left.filter((other) => other !== item).map((other) => [other[0], other]))
    for (const other of letters.values()) answers.push({ answer: `${answer}${separator}${other}`, ends: false })
  }
  return answers
}
