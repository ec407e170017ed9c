import { ConfigError } from '../../../base/errors.js'
import type { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import { cat, scope, type Tensor, tensor, zeros } from '../../../tensor/index.js'
import type { Tokenizer } from '../../../text/index.js'

/** Where a clip's embeddings go in a text. */
export const SPEECH_MARKER = '<SpeechHere>'

/** One place of a row: a token's id, or -1 - i for the i-th of the batch's audio embeddings. */
export type Place = number
export const audioPlace = (index: number): Place => -1 - index

/**
 * The text between clips as token ids, each part by itself, as published: n clips stand between n + 1 parts.
 * @throws ConfigError where there are not as many markers as clips
 */
export function promptSegments(tokenizer: Tokenizer, text: string, clips: number): number[][] {
  const parts = text.split(SPEECH_MARKER)
  if (parts.length - 1 !== clips) {
    throw new ConfigError(
      `The prompt ${JSON.stringify(text)} has ${SPEECH_MARKER} ${parts.length - 1} times, and there are ${clips} clips`,
      { argument: 'prompts' },
    )
  }
  return parts.map((part) => idsOf(tokenizer, part))
}

export const idsOf = (tokenizer: Tokenizer, text: string): number[] =>
  text === '' ? [] : [...tokenizer.encode(text, { addSpecialTokens: false }).inputIds]

/** @throws ConfigError for a row beyond the positions that the language model knows: its answer would be noise */
export function requireRoom(llm: DecoderLM, row: readonly Place[], name: string): void {
  const { maxPositionEmbeddings: most = 2048 } = llm.config
  if (row.length <= most) return
  const audio = row.filter((place) => place < 0).length
  throw new ConfigError(
    `Salmonn: ${name} has ${row.length} tokens, of them ${audio} of audio, and the language model knows ${most} positions: shorten its clips or its text`,
    { argument: name, tokens: row.length, positions: most },
  )
}

/** What the language model reads. */
export interface SalmonnRows {
  /** [rows, longest, hiddenSize] */
  inputsEmbeds: Tensor
  /** int64 [rows, longest], 1 for what is real. */
  attentionMask: Tensor
}

/**
 * Rows side by side, padded on one side with zeros that nothing attends to. Gradients go back into `audio`.
 * @param audio [all audio tokens, hiddenSize]; null where there are none
 */
export function embedRows(
  llm: DecoderLM,
  rows: readonly (readonly Place[])[],
  audio: Tensor | null,
  side: 'left' | 'right',
): SalmonnRows {
  return scope(() => {
    const ids = rows.flatMap((row) => row.filter((place) => place >= 0))
    const longest = Math.max(...rows.map(({ length }) => length))
    const { device, dtype, hiddenSize } = embeddingOf(llm)
    const int64 = { dtype: 'int64', device } as const
    const heard = audio?.size(0) ?? 0
    const silence = ids.length + heard
    let next = 0
    const index: number[] = []
    const mask: number[] = []
    for (const row of rows) {
      const places = row.map((place) => (place >= 0 ? next++ : ids.length - 1 - place))
      const padding = Array.from({ length: longest - row.length }, () => silence)
      index.push(...(side === 'left' ? [...padding, ...places] : [...places, ...padding]))
      const real = Array.from(places, () => 1)
      const blank = Array.from(padding, () => 0)
      mask.push(...(side === 'left' ? [...blank, ...real] : [...real, ...blank]))
    }
    const table = [
      ...(ids.length > 0 ? [llm.embed(tensor(ids, int64))] : []),
      ...(audio ? [audio.to({ device, dtype })] : []),
      zeros([1, hiddenSize], { device, dtype }),
    ]
    const shape = [rows.length, longest]
    return {
      inputsEmbeds: cat(table, 0)
        .indexSelect(0, tensor(index, int64))
        .reshape([...shape, hiddenSize]),
      attentionMask: tensor(mask, int64).reshape(shape),
    }
  })
}

/** The dtype, device and width of the token embeddings. */
export function embeddingOf(llm: DecoderLM): { device: Tensor['device']; dtype: Tensor['dtype']; hiddenSize: number } {
  const { weight } = (llm as unknown as { model: { embed_tokens: { weight: Tensor } } }).model.embed_tokens
  return { device: weight.device, dtype: weight.dtype, hiddenSize: weight.size(1) }
}
