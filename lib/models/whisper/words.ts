import type { Tokenizer } from '../../text/index.js'

/** A word of a transcript with the punctuation at it. */
export interface WhisperWord {
  /** With the space before it, where there is one. */
  text: string
  /** In seconds from the beginning of the recording. */
  start: number
  end: number
  /** The mean of its tokens' probabilities. */
  probability: number
}

/** Tokens that are one piece of text, by their places. */
export interface Piece {
  text: string
  places: number[]
}

/** Their writing has no spaces between words; each piece of whole characters is one. */
const WITHOUT_SPACES = new Set(['zh', 'ja', 'th', 'lo', 'my', 'yue'])
const PUNCTUATION = '!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~'
const OPENING = '"\'“¡¿([{-'
const CLOSING = '"\'.。,，!！?？:：”)]}、'

/** Text tokens cut into words as transformers and openai/whisper do. */
export function wordsOf(tokenizer: Tokenizer, tokens: number[], language: string | null): Piece[] {
  return withPunctuation(piecesOf(tokenizer, tokens, language))
}

/** The same before punctuation is joined to its words. */
export function piecesOf(tokenizer: Tokenizer, tokens: number[], language: string | null): Piece[] {
  const pieces = wholeCharacters(tokenizer, tokens)
  return WITHOUT_SPACES.has(language ?? 'en') ? pieces : atSpaces(pieces)
}

/** A character may take several tokens, and is cut nowhere. */
function wholeCharacters(tokenizer: Tokenizer, tokens: number[]): Piece[] {
  const whole = tokenizer.decode(tokens)
  const pieces: Piece[] = []
  let done = 0
  let places: number[] = []
  for (const place of tokens.keys()) {
    places.push(place)
    const text = tokenizer.decode(places.map((one) => tokens[one] as number))
    const broken = text.indexOf('\ufffd')
    // The text itself may have that character, where what was written is no text.
    const isWhole = broken < 0 || done + broken >= whole.length || whole[done + broken] === '\ufffd'
    if (!isWhole) continue
    pieces.push({ text, places })
    done += text.length
    places = []
  }
  return pieces
}

function atSpaces(pieces: Piece[]): Piece[] {
  const words: Piece[] = []
  for (const { text, places } of pieces) {
    const last = words.at(-1)
    if (last === undefined || text.startsWith(' ') || PUNCTUATION.includes(text.trim())) words.push({ text, places })
    else words[words.length - 1] = joined(last, last, { text, places })
  }
  return words
}

/** What opens goes with the word behind it, what closes with the word before it; whatever else is known is the word's. */
export function withPunctuation<T extends Piece>(words: T[]): T[] {
  const opened: T[] = []
  for (const word of [...words].reverse()) {
    const next = opened.at(-1)
    const opens = word.text.startsWith(' ') && OPENING.includes(word.text.trim())
    if (opens && next !== undefined) opened[opened.length - 1] = joined(next, word, next)
    else opened.push(word)
  }
  const closed: T[] = []
  for (const word of opened.reverse()) {
    const last = closed.at(-1)
    const closes = last !== undefined && !last.text.endsWith(' ') && CLOSING.includes(word.text)
    if (closes) closed[closed.length - 1] = joined(last, last, word)
    else closed.push(word)
  }
  return closed
}

const joined = <T extends Piece>(word: T, a: Piece, b: Piece): T => ({
  ...word,
  text: a.text + b.text,
  places: [...a.places, ...b.places],
})
