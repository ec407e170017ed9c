import { ConfigError } from '../../../base/errors.js'
import type { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import type { Tokenizer } from '../../../text/index.js'

/** Marker of a clip's position in a text. */
export const SPEECH_MARKER = '<SpeechHere>'

/** Placeholder of an audio token in a row; no token has this id. */
export const AUDIO = -1

/**
 * Encode the text between clips as token ids, each part separately, as published: n clips are between n + 1 parts.
 * @throws ConfigError if the numbers of markers and clips differ
 */
export async function promptSegments(tokenizer: Tokenizer, text: string, clips: number): Promise<number[][]> {
  const parts = text.split(SPEECH_MARKER)
  if (parts.length - 1 !== clips) {
    throw new ConfigError(
      `prompts: expected ${clips} times ${SPEECH_MARKER} for ${clips} clips, got ${parts.length - 1} in ${JSON.stringify(text)}.`,
      { argument: 'prompts' },
    )
  }
  const segments: number[][] = []
  for (const part of parts) {
    const { inputIds } = await tokenizer.encodeAsync(part, { addSpecialTokens: false })
    segments.push([...inputIds])
  }
  return segments
}

export const idsOf = (tokenizer: Tokenizer, text: string): number[] =>
  text === '' ? [] : [...tokenizer.encode(text, { addSpecialTokens: false }).inputIds]

/** @throws ConfigError for a row with more positions than the language model supports */
export function requireRoom(llm: DecoderLM, row: readonly number[], name: string): void {
  const { maxPositionEmbeddings: most = 2048 } = llm.config
  if (row.length <= most) return
  const audio = row.filter((id) => id === AUDIO).length
  throw new ConfigError(
    `Salmonn: ${name}: expected at most ${most} tokens, the positions of the language model, got ${row.length}, ${audio} of them audio. Shorten its clips or its text.`,
    { argument: name, tokens: row.length, positions: most },
  )
}
