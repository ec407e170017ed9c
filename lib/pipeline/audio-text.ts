import type { LongAudio } from '../audio/clip.js'
import { defined } from '../base/check.js'
import type { GenerationConfig } from '../generation/config.js'
import type { GenerateOptions } from '../generation/generate.js'
import type { AudioLM } from '../models/audio-lm/audio-lm.js'
import type { AudioLMConversation, AudioLMMessage } from '../models/audio-lm/processor.js'
import { scope } from '../tensor/index.js'
import type { GeneratedMessage } from './text-generation.js'

/** Options of `generate`, with these in addition: */
export interface AudioTextOptions extends GenerationConfig, Pick<GenerateOptions, 'signal' | 'generator'> {
  /** Handling of clips that are longer than the network takes, as in `AudioLM.prepare`. Default `'error'`. */
  longAudio?: LongAudio
}

export interface AudioTextOutput {
  /** The conversation with the answer at its end: `generated_text.at(-1)`. */
  generated_text: { at(index: -1): GeneratedMessage } & (AudioLMMessage | GeneratedMessage)[]
}

/** Generate `numReturnSequences` answers to each conversation. */
export async function answerAudio(
  model: AudioLM,
  conversations: readonly AudioLMConversation[],
  options: AudioTextOptions,
): Promise<AudioTextOutput[][]> {
  const { longAudio, signal, generator, ...config } = options
  if (conversations.length === 0) return []
  const { tokens } = await scope(async () => {
    const inputs = await model.prepare(conversations, defined({ longAudio, signal }))
    const { tokens } = await model.generate(inputs, config, defined({ signal, generator }))
    return { tokens }
  })
  const each = tokens.length / conversations.length
  return conversations.map((messages, i) =>
    tokens.slice(i * each, (i + 1) * each).map((answer) => {
      const content = model.tokenizer?.decode(answer, { skipSpecialTokens: true }) ?? ''
      return { generated_text: [...messages, { role: 'assistant', content }] } as AudioTextOutput
    }),
  )
}
