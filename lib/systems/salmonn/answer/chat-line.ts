import { existsSync } from 'node:fs'
import { requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { withoutEnd } from '../../../base/words.js'
import { parseAudioInput } from '../data/audio-input.js'

const SOUND = /\.(wav|wave|flac|mp3|ogg|oga|opus|m4a|mp4|aac|aiff?|au|webm)$/i
/** A JSON list at the beginning, text in double quotes, or a word. */
const PIECES = /^\s*(\[[^\]]*\])|"([^"]*)"|(\S+)/g

/** Input line of a user: audio files and text. */
export interface ChatLine {
  audio: string[]
  text: string
}

/**
 * Parse the audio files and the text of a line. An audio file is a word that names one, several with commas between, a path in double
 * quotes if it has spaces, `@FILE` for a list with a path on each line, or `["a.wav", "b.wav"]` at the beginning. The rest is text.
 *
 * @throws DataError for an audio file or a list that does not exist
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
    } else if (isAudio(bare)) audio.push(...(existsSync(bare) ? [bare] : await parseAudioInput(bare)))
    else words.push(whole.trim())
  }
  const missing = audio.find((path) => !existsSync(path))
  if (missing !== undefined)
    throw new DataError(`parseChatLine: expected an existing audio file, got ${missing}.`, { file: missing })
  return { audio, text: words.join(' ') }
}

/** Maximum length of a file name extension. */
const MAX_EXTENSION = 32

/** Return the end of a word with its extension, so that matching is cheap even for a very long word. */
const lastOf = (word: string): string => word.slice(-MAX_EXTENSION)

/** Remove a sentence's punctuation from a file name at its end. */
function withoutPunctuation(word: string): string {
  const bare = withoutEnd(word, /[,;:?!]/)
  return /\.\w+$/.test(lastOf(bare)) ? bare : word
}

const isAudio = (word: string): boolean =>
  word.split(',').every((path) => path === '' || SOUND.test(lastOf(path.trim()))) &&
  SOUND.test(lastOf(withoutEnd(word, /,/)))
