/** The challenge's emotions, and words for them. */
const WORDS: Readonly<Record<string, readonly string[]>> = {
  neutral: ['neutral', 'calm', 'unemotional', '中性', '平静', '中立'],
  happy: ['happy', 'happiness', 'happily', 'joy', 'joyful', 'glad', 'cheerful', 'excited', '高兴', '开心', '快乐', '喜悦'],
  sad: ['sad', 'sadness', 'sadly', 'sorrow', 'unhappy', '难过', '悲伤', '伤心'],
  anger: ['anger', 'angry', 'angrily', 'furious', 'annoyed', '生气', '愤怒'],
  fear: ['fear', 'fearful', 'afraid', 'scared', 'frightened', 'anxious', '害怕', '恐惧', '担心'],
  surprise: ['surprise', 'surprised', 'astonished', '惊讶', '吃惊'],
  disgust: ['disgust', 'disgusted', '厌恶', '反感'],
} // biome-ignore format: a line for each

/**
 * The first emotion that an answer in plain words names: one of `labels`, else one of the challenge's under its label there;
 * else the answer itself where it is a word or two, and 'unknown' where it is none or more.
 */
export function emotionIn(answer: string, labels: readonly string[] = []): string {
  const text = answer.toLowerCase()
  const own = firstOf(
    text,
    labels.map((label) => [label.toLowerCase(), [label.toLowerCase()]]),
  )
  const found = own ?? firstOf(text, Object.entries(WORDS))
  if (found !== undefined) return found
  const words = text.match(/[\p{L}\p{N}][\p{L}\p{M}\p{N}'-]*/gu) ?? []
  return words.length === 1 || words.length === 2 ? words.join(' ') : 'unknown'
}

function firstOf(text: string, emotions: readonly (readonly [string, readonly string[]])[]): string | undefined {
  let [found, at]: [string | undefined, number] = [undefined, Number.POSITIVE_INFINITY]
  for (const [emotion, words] of emotions) {
    for (const word of words) {
      const place = placeOf(text, word)
      if (place < at) [found, at] = [emotion, place]
    }
  }
  return found
}

/** Where a word stands as a whole; Chinese has no blanks between words. */
function placeOf(text: string, word: string): number {
  const isWord = (character: string | undefined) => character !== undefined && /[a-z0-9]/.test(character)
  for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + 1)) {
    const inside = isWord(word[0]) && (isWord(text[at - 1]) || isWord(text[at + word.length]))
    if (!inside) return at
  }
  return Number.POSITIVE_INFINITY
}
