import { DataError } from '../base/errors.js'
import type { Tokenizer } from '../text/tokenizer.js'

/**
 * A text of a user's of which nothing is a special token, nor one of `others`: in each that it spells, a space follows the first
 * character.
 * @throws DataError where that does not help
 */
export function harmlessText(tokenizer: Tokenizer, text: string, others: readonly string[] = []): string {
  let result = others.reduce((rest, other) => rest.replaceAll(other, `${other.slice(0, 1)} ${other.slice(1)}`), text)
  // What is spelt anew by the spaces themselves ends after a round or two.
  for (let round = 0; round < 8; round++) {
    const { inputIds, starts, ends } = tokenizer.encode(result, { addSpecialTokens: false })
    const found = inputIds.flatMap((id, i) => {
      if (!tokenizer.isSpecial(id)) return []
      // A normalizer may find a token in another spelling, such as upper case, and a token may take blanks along.
      const part = result.slice(starts[i], ends[i])
      // A character that is in no vocabulary becomes `<unk>` without spelling it.
      const token = tokenizer.idToToken(id) ?? ''
      if (id === tokenizer.unkTokenId && !part.toLowerCase().includes(token.toLowerCase())) return []
      return [(starts[i] as number) + Math.max(0, part.search(/\S/)) + 1]
    })
    if (found.length === 0) return result
    const cuts = [0, ...found, result.length]
    result = cuts
      .slice(1)
      .map((to, i) => result.slice(cuts[i], to))
      .join(' ')
  }
  throw new DataError('the text spells special tokens whatever is put between their characters', { text })
}
