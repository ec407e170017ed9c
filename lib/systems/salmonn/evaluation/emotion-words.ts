import { isDenied } from './negation.js'

/** Emotions of the challenge, with their synonyms. */
const WORDS: Readonly<Record<string, readonly string[]>> = {
  neutral: ['neutral', 'calm', 'unemotional', '中性', '平静', '中立'],
  happy: ['happy', 'happiness', 'happily', 'joy', 'joyful', 'glad', 'cheerful', 'excited', '高兴', '开心', '快乐', '喜悦'],
  sad: ['sad', 'sadness', 'sadly', 'sorrow', 'unhappy', '难过', '悲伤', '伤心'],
  anger: ['anger', 'angry', 'angrily', 'furious', 'annoyed', '生气', '愤怒'],
  fear: ['fear', 'fearful', 'afraid', 'scared', 'frightened', 'anxious', '害怕', '恐惧', '担心'],
  surprise: ['surprise', 'surprised', 'astonished', '惊讶', '吃惊'],
  disgust: ['disgust', 'disgusted', '厌恶', '反感'],
} // biome-ignore format: a line for each

const ALL_WORDS = new Set(Object.values(WORDS).flat())

/**
 * Return the first emotion that an answer names and does not deny: one of `labels`, else an emotion of the challenge. Otherwise return the
 * answer itself if it has one or two words, and 'unknown' if it has more or none, or only denies emotions.
 */
export function emotionIn(answer: string, labels: readonly string[] = []): string {
  const text = answer.toLowerCase()
  const own = firstOf(
    text,
    labels.map((label) => [label.toLowerCase(), [label.toLowerCase()]]),
  )
  const challenge = firstOf(text, Object.entries(WORDS))
  const found = own.found ?? challenge.found
  if (found !== undefined) return found
  if (own.denied || challenge.denied) return 'unknown'
  const words = text.match(/[\p{L}\p{N}][\p{L}\p{M}\p{N}'-]*/gu) ?? []
  return words.length === 1 || words.length === 2 ? words.join(' ') : 'unknown'
}

/** Return the emotion that occurs first, and whether any was denied. */
function firstOf(
  text: string,
  emotions: readonly (readonly [string, readonly string[]])[],
): { found: string | undefined; denied: boolean } {
  let [found, at, denied]: [string | undefined, number, boolean] = [undefined, Number.POSITIVE_INFINITY, false]
  for (const [emotion, words] of emotions) {
    for (const place of words.flatMap((word) => placesOf(text, word))) {
      if (isDenied(text.slice(0, place), (word) => ALL_WORDS.has(word))) denied = true
      else if (place < at) [found, at] = [emotion, place]
    }
  }
  return { found, denied }
}

/** Return the positions of a whole word. Chinese has no spaces between words. */
function placesOf(text: string, word: string): number[] {
  const isWord = (character: string | undefined) => character !== undefined && /[a-z0-9]/.test(character)
  const places: number[] = []
  if (word === '') return places
  for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + 1)) {
    const inside = isWord(word[0]) && (isWord(text[at - 1]) || isWord(text[at + word.length]))
    if (!inside) places.push(at)
  }
  return places
}
