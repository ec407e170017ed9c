/**
 * Normalize a text as Whisper's `BasicTextNormalizer` does, for error rates: lower case, without text in brackets, and spaces in place of
 * punctuation and symbols.
 */
export function normalizeText(text: string): string {
  const outside = withoutParentheses(withoutTags(text.toLowerCase()))
  return outside
    .normalize('NFKC')
    .replace(/[\p{M}\p{S}\p{P}]/gu, ' ')
    .toLowerCase()
    .replace(/\s+/g, ' ')
    .trim()
}

/** Remove texts between < or [ and the next > or ]. */
const withoutTags = (text: string): string => without(text, '<[', '>]', false)

/** Remove texts of at least one character between ( and the next ). */
const withoutParentheses = (text: string): string => without(text, '(', ')', true)

function without(text: string, openers: string, closers: string, needsText: boolean): string {
  let kept = ''
  let from = 0
  let next = -1
  for (let at = 0; at < text.length; at++) {
    if (!openers.includes(text[at] as string)) continue
    if (next <= at) next = firstOf(text, closers, at + 1)
    // Without another closer, everything from here on stays.
    if (next < 0) break
    if (needsText && next === at + 1) continue
    kept += text.slice(from, at)
    from = next + 1
    at = next
  }
  return kept + text.slice(from)
}

function firstOf(text: string, characters: string, from: number): number {
  for (let at = from; at < text.length; at++) if (characters.includes(text[at] as string)) return at
  return -1
}
