import { DataError } from '../base/errors.js'
import type { Tokenizer } from '../text/tokenizer.js'

/**
 * Return a user's text without special tokens: in each special token, and in each text of `others`, insert a space after the first
 * character.
 * @throws DataError if special tokens remain
 */
export function harmlessText(tokenizer: Tokenizer, text: string, others: readonly string[] = []): string {
  let result = others.reduce((rest, other) => rest.replaceAll(other, `${other.slice(0, 1)} ${other.slice(1)}`), text)
  // The spaces may create new special tokens; one or two rounds remove them.
  for (let round = 0; round < 8; round++) {
    const { inputIds, starts, ends } = tokenizer.encode(result, { addSpecialTokens: false })
    const found = inputIds.flatMap((id, i) => {
      if (!tokenizer.isSpecial(id)) return []
      // A token may match in a normalized spelling, such as upper case, and may include whitespace.
      const part = result.slice(starts[i], ends[i])
      // A character outside the vocabulary becomes `<unk>`, although the text does not contain `<unk>`.
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
  throw new DataError(
    'harmlessText: text: expected a text without special tokens, got one that contains them even with spaces inserted. Remove them.',
    { text },
  )
}
