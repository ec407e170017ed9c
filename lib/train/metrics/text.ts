// Python's idea of white space, which decides what sacrebleu and jiwer take for a word. JavaScript's \s has U+FEFF and
// lacks U+001C to U+001F and U+0085.
const SPACE = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000'
const SPACES = new RegExp(`[${SPACE}]+`, 'u')
const SEVERAL = new RegExp(`[${SPACE}]{2,}`, 'gu')
const ENDS = new RegExp(`^[${SPACE}]+|[${SPACE}]+$`, 'gu')
const END = new RegExp(`[${SPACE}]+$`, 'u')

/** Python's `text.split()`. */
export const splitWords = (text: string): string[] => text.split(SPACES).filter((word) => word !== '')

/** Python's `text.strip()`. */
export const strip = (text: string): string => text.replace(ENDS, '')

/** Python's `text.rstrip()`. */
export const stripEnd = (text: string): string => text.replace(END, '')

/** Runs of two or more white characters become one space. */
export const squeeze = (text: string): string => text.replace(SEVERAL, ' ')
