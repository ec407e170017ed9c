const OPENING = new Set(['<', '['])
const CLOSING = new Set(['>', ']'])

/**
 * Normalize a text as Whisper's basic normalizer (Radford et al. 2022, https://arxiv.org/abs/2212.04356, appendix C): lower case, without texts in
 * brackets and parentheses, with a space for each mark, symbol and punctuation character, and single spaces. It does not change numbers and spellings,
 * as Whisper's normalizer for English does.
 */
export function normalizeBasic(text: string): string {
  const kept = withoutEnclosed(
    withoutEnclosed(text.toLowerCase(), OPENING, CLOSING, 0),
    new Set(['(']),
    new Set([')']),
    1,
  )
  let plain = ''
  for (const character of kept.normalize('NFKC')) plain += /[\p{M}\p{S}\p{P}]/u.test(character) ? ' ' : character
  return plain.toLowerCase().replace(/\s+/g, ' ')
}

/** Remove texts between brackets, from an opening one to the next closing one after at least `least` characters. */
function withoutEnclosed(
  text: string,
  opening: ReadonlySet<string>,
  closing: ReadonlySet<string>,
  least: number,
): string {
  let kept = ''
  // Index of the next closing bracket, searched from left to right once.
  let close = 0
  for (let at = 0; at < text.length; at++) {
    const character = text[at] as string
    if (opening.has(character)) {
      close = Math.max(close, at + 1)
      while (close < text.length && !closing.has(text[close] as string)) close++
      if (close < text.length && close - at - 1 >= least) {
        at = close
        continue
      }
    }
    kept += character
  }
  return kept
}
