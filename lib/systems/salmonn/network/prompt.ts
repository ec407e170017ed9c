import { ConfigError } from '../../../base/errors.js'
import type { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import type { Tokenizer } from '../../../text/index.js'

/** Where a clip's embeddings go in a text. */
export const SPEECH_MARKER = '<SpeechHere>'

/** Stands in a row for a token of audio; no token has this id. */
export const AUDIO = -1

/**
 * The text between clips as token ids, each part by itself, as published: n clips stand between n + 1 parts.
 * @throws ConfigError where there are not as many markers as clips
 */
export async function promptSegments(tokenizer: Tokenizer, text: string, clips: number): Promise<number[][]> {
  const parts = text.split(SPEECH_MARKER)
  if (parts.length - 1 !== clips) {
    throw new ConfigError(
      `The prompt ${JSON.stringify(text)} has ${SPEECH_MARKER} ${parts.length - 1} times, and there are ${clips} clips`,
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

/** @throws ConfigError for a row beyond the positions that the language model knows: its answer would be noise */
export function requireRoom(llm: DecoderLM, row: readonly number[], name: string): void {
  const { maxPositionEmbeddings: most = 2048 } = llm.config
  if (row.length <= most) return
  const audio = row.filter((id) => id === AUDIO).length
  throw new ConfigError(
    `Salmonn: ${name} has ${row.length} tokens, of them ${audio} of audio, and the language model knows ${most} positions: shorten its clips or its text`,
    { argument: name, tokens: row.length, positions: most },
  )
}
