import { misuse, requireString } from '../../../base/check.js'
import { type ChatMessage, requireConversation, requireParts } from '../../../kit/chat.js'
import { inTemplate, refuseMarker, SALMONN_TEMPLATE, SPEECH_BLOCK } from '../data/prompt.js'
import type { SalmonnSound } from '../network/clips.js'
import type { SalmonnQuestion } from '../network/network.js'

export type SalmonnChatPart =
  | { type: 'text'; text: string }
  /** A sound, or what `encodeAudio` made of one. */
  | { type: 'audio'; samples: SalmonnSound }

export type SalmonnChatMessage = ChatMessage<SalmonnChatPart>

export interface SalmonnChatOptions {
  /** Default {@link SALMONN_TEMPLATE}. */
  template?: string
  /** What stands behind each earlier reply: the end symbol that answers are trained with. Default '</s>'. */
  endOfTurn?: string
}

/**
 * A conversation as one prompt: earlier turns with their clips and replies as Vicuna has them, then the last turn of the
 * user, open for the answer. A system message stands before the first turn. A clip gets its block where it stands among a
 * message's parts; what is not beside a line break is separated by a blank.
 *
 * A conversation of one turn is the same text as {@link buildSalmonnPrompt} makes of a clip and a question.
 *
 * @throws ConfigError where turns do not alternate or the last is not the user's, and for text that holds a marker
 */
export function salmonnChatPrompt(
  messages: readonly SalmonnChatMessage[],
  options: SalmonnChatOptions = {},
): SalmonnQuestion {
  const where = 'salmonnChatPrompt'
  const { template = SALMONN_TEMPLATE, endOfTurn = '</s>' } = options
  const clips: SalmonnSound[] = []
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

function contentOf({ content }: SalmonnChatMessage, name: string): { text: string; clips: SalmonnSound[] } {
  const clips: SalmonnSound[] = []
  const text = content.reduce((before, part) => {
    if (part?.type === 'audio') {
      if (typeof part.samples !== 'object' || part.samples === null) {
        throw misuse('salmonnChatPrompt', `${name}'s audio`, 'samples, or what readAudio gives', part.samples)
      }
      clips.push(part.samples)
      return joined(before, SPEECH_BLOCK)
    }
    requireString('salmonnChatPrompt', `the text of ${name}`, (part as { text?: unknown } | null)?.text)
    return joined(before, refuseMarker(part.text.trim(), `The text of ${name}`))
  }, '')
  return { text, clips }
}

/** Blocks of speech stand side by side. */
const joined = (before: string, next: string): string =>
  before === '' || next === '' || (before.endsWith(SPEECH_BLOCK) && next === SPEECH_BLOCK)
    ? before + next
    : `${before} ${next}`
