import { existsSync } from 'node:fs'
import { requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { withoutEnd } from '../../../base/words.js'
import { parseAudioInput } from '../data/audio-input.js'

const SOUND = /\.(wav|wave|flac|mp3|ogg|oga|opus|m4a|mp4|aac|aiff?|au|webm)$/i
/** A JSON list at the beginning, what stands in double quotes, or a word. */
const PIECES = /^\s*(\[[^\]]*\])|"([^"]*)"|(\S+)/g

/** What a user writes on one line: sound files, and what is said about them. */
export interface ChatLine {
  audio: string[]
  text: string
}

/**
 * Finds the sound files in a line: words that name one, or several with commas between; in double quotes where there are
 * blanks in the path; `@FILE`, a list with a path on each line; or `["a.wav", "b.wav"]` at its beginning. The rest is text.
 *
 * @throws DataError for what is written like a sound file or a list and is not there
 */
export async function parseChatLine(line: string): Promise<ChatLine> {
  requireString('parseChatLine', 'line', line)
  const audio: string[] = []
  const words: string[] = []
  for (const { 0: whole, 1: list, 2: quoted, 3: word } of line.matchAll(PIECES)) {
    const bare = withoutPunctuation(quoted ?? word ?? '')
    if (list?.includes('"')) audio.push(...(await parseAudioInput(list)))
    else if (
      bare.length > 1 &&
      bare.startsWith('@') &&
      (existsSync(bare.slice(1)) || /\.(txt|lst|list|scp)$/.test(bare))
    ) {
      audio.push(...(await parseAudioInput(bare)))
    } else if (isSound(bare)) audio.push(...(existsSync(bare) ? [bare] : await parseAudioInput(bare)))
    else words.push(whole.trim())
  }
  const missing = audio.find((path) => !existsSync(path))
  if (missing !== undefined) throw new DataError(`There is no sound file ${missing}`, { file: missing })
  return { audio, text: words.join(' ') }
}

/** The longest file name extension that is looked for. */
const MAX_EXTENSION = 32

/** The end of a word, which holds its extension: a word is as long as the line that a stranger sends. */
const lastOf = (word: string): string => word.slice(-MAX_EXTENSION)

/** A file's name without the punctuation of the sentence that ends with it. */
function withoutPunctuation(word: string): string {
  const bare = withoutEnd(word, /[,;:?!]/)
  return /\.\w+$/.test(lastOf(bare)) ? bare : word
}

const isSound = (word: string): boolean =>
  word.split(',').every((path) => path === '' || SOUND.test(lastOf(path.trim()))) &&
  SOUND.test(lastOf(withoutEnd(word, /,/)))
