import { argumentError, requireString } from '../../../base/check.js'
import { type ChatMessage, requireConversation, requireParts } from '../../../kit/chat.js'
import { inTemplate, refuseMarker, SALMONN_TEMPLATE, SPEECH_BLOCK } from '../data/prompt.js'
import type { SalmonnAudio } from '../network/clips.js'
import type { SalmonnQuestion } from '../network/network.js'

export type SalmonnChatPart =
  | { type: 'text'; text: string }
  /** An audio clip, or the output of `encodeAudio`. */
  | { type: 'audio'; samples: SalmonnAudio }

export type SalmonnChatMessage = ChatMessage<SalmonnChatPart>

export interface SalmonnChatOptions {
  /** Prompt template. Default {@link SALMONN_TEMPLATE}. */
  template?: string
  /** Text after each earlier reply: the end symbol of training. Default '</s>'. */
  endOfTurn?: string
}

/**
 * Build one prompt from a conversation: earlier turns with their clips and replies in Vicuna's format, then the user's last turn, open for
 * the answer. A system message precedes the first turn. A clip's speech block has the position of its part, separated from text by a space.
 *
 * For a single turn the text equals that of {@link buildSalmonnPrompt} with a clip and a question.
 *
 * @throws ConfigError if turns do not alternate or the last is not the user's, and for text with a speech marker
 */
export function salmonnChatPrompt(
  messages: readonly SalmonnChatMessage[],
  options: SalmonnChatOptions = {},
): SalmonnQuestion {
  const where = 'salmonnChatPrompt'
  const { template = SALMONN_TEMPLATE, endOfTurn = '</s>' } = options
  const clips: SalmonnAudio[] = []
  let text = ''
  requireConversation<SalmonnChatPart>(where, messages, (message, name) => {
    requireParts(where, message, name, ['audio', 'text'])
    const content = contentOf(message, name)
    clips.push(...content.clips)
    if (message.role === 'user') text += inTemplate(content.text, template)
    else if (message.role === 'assistant') text += ` ${content.text}${endOfTurn}`
    else if (content.text !== '') text = `${content.text}\n`
    return { isEmpty: content.text === '', isText: content.clips.length === 0 }
  })
  return { text, clips }
}

function contentOf({ content }: SalmonnChatMessage, name: string): { text: string; clips: SalmonnAudio[] } {
  const clips: SalmonnAudio[] = []
  const text = content.reduce((before, part) => {
    if (part?.type === 'audio') {
      if (typeof part.samples !== 'object' || part.samples === null) {
        throw argumentError('salmonnChatPrompt', `${name}'s audio`, 'samples, or a result of readAudio', part.samples)
      }
      clips.push(part.samples)
      return joined(before, SPEECH_BLOCK)
    }
    requireString('salmonnChatPrompt', `the text of ${name}`, (part as { text?: unknown } | null)?.text)
    return joined(before, refuseMarker(part.text.trim(), `The text of ${name}`))
  }, '')
  return { text, clips }
}

/** Join two parts with a space, except between two speech blocks. */
const joined = (before: string, next: string): string =>
  before === '' || next === '' || (before.endsWith(SPEECH_BLOCK) && next === SPEECH_BLOCK)
    ? before + next
    : `${before} ${next}`
