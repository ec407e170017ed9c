const words = (text: string): ReadonlySet<string> => new Set(text.split(/\s+/))

const NEGATIONS = words(
  'not no non never neither nor without absence hardly barely scarcely cannot lack lacks lacked lacking far',
)
/** Words between a negation and the word that it denies: "does not seem to be very happy", "no sign of anger or fear". */
const BETWEEN = words(
  [
    'an a the any very so that too all at really quite particularly especially exactly entirely completely overly necessarily much longer more',
    'anymore or of to from in be been being as feel feels feeling felt seem seems sound sounds sounding look looks looking', // language: word list
    'appear appears become becoming get getting show shows showing express expressing sign signs trace traces hint hints',
  ].join(' '),
)
/** Negation and words between in Chinese, where the negation can be part of a word; 好不 means "very". */
const CHINESE =
  /(?<!好)(?:不|没|无|未)(?:再|是|有|很|太|怎么|那么|这么|那样|特别|非常|十分|感到|感觉到|觉得|显得|变得|听起来|看起来|表现出|流露出|会|能|算|法|上|任何|什么|一点|一丝|丝毫)*$/u
const CLAUSE_ENDS = /[.,;:!?()\n，。；：！？、（）…]/

/**
 * Return whether the text before a word denies it: "not happy", "isn't angry", "neither sad nor afraid", "no longer sad", 并不高兴, 不再难过.
 * Only the current clause counts, and "not only happy", 不仅高兴 is not a negation. Texts are in lower case.
 *
 * @param isListed whether a word can be part of a list of denied words: "not happy or glad" denies both
 */
export function isDenied(before: string, isListed: (word: string) => boolean): boolean {
  const clause = before.split(CLAUSE_ENDS).at(-1) ?? ''
  if (CHINESE.test(clause.trimEnd())) return true
  const tokens = clause.match(/[\p{L}\p{N}]+(?:['’][\p{L}]+)*/gu) ?? []
  for (const word of tokens.reverse()) {
    if (NEGATIONS.has(word) || /n['’]t$/.test(word)) return true
    if (!BETWEEN.has(word) && !isListed(word)) return false
  }
  return false
}
