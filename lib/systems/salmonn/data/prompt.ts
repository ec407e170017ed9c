import { argumentError, requireOptions, requireString } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, settings, unchecked } from '../../../base/settings.js'
import type { Tokenizer } from '../../../text/index.js'
import { SPEECH_MARKER } from '../network/prompt.js'

/** Speech block of the published prompts. The tags around the marker are plain text. */
export const SPEECH_BLOCK = `<Speech>${SPEECH_MARKER}</Speech>`
/** Published template, in Vicuna's format. */
export const SALMONN_TEMPLATE = 'USER: {}\nASSISTANT:'

const SLOT = '{}'

const PROMPT_SETTINGS = settings({
  /** Instruction, with `<SpeechHere>` at the position of clips, and optionally `{}` for the question. */
  prompt: { type: 'string', required: true },
  /** Text for `{}` in the prompt: the `Q` of the published data. */
  question: { type: 'string', default: '' },
  /**
   * Number of clips in each speech block. A prompt with one marker gets as many blocks as there are numbers, in a row; otherwise it needs
   * one marker per block.
   */
  blocks: { type: unchecked<readonly number[]>(), default: [1] },
  /** Template with `{}` for the prompt. Default {@link SALMONN_TEMPLATE}. */
  template: { type: 'string', default: SALMONN_TEMPLATE },
})

/** @interface */
export type BuildSalmonnPromptOptions = ChangesOf<typeof PROMPT_SETTINGS.table>

/**
 * Build a prompt. Training, evaluation, the command line and the chat page all use this function, so that they have the same format.
 *
 * @throws ConfigError for a prompt without a marker, a question that is missing or has a marker, a number of blocks that does not match the
 * markers, and a template without `{}`
 */
export function buildSalmonnPrompt(options: BuildSalmonnPromptOptions): string {
  const where = 'buildSalmonnPrompt'
  const { prompt, question, blocks, template } = PROMPT_SETTINGS.read(where, options)
  if (!Array.isArray(blocks) || !blocks.every((count) => Number.isSafeInteger(count) && count > 0)) {
    throw argumentError(where, 'blocks', 'a list of numbers of clips, each at least 1', blocks)
  }
  return inTemplate(insertQuestion(withBlocks(prompt, blocks), question), template)
}

/** Return the prompt of a user's free text about clips: speech first, then the text, as in the published prompts. */
export function salmonnQuestion(text: string): string {
  requireString('salmonnQuestion', 'text', text)
  return `${SPEECH_BLOCK} ${text}`
}

/**
 * Derive a template from a tokenizer's chat template, with one user turn: `<|im_start|>user\n{}<|im_end|>…` for ChatML.
 * @param options `system`: a system message before it. Default: that of the chat template
 * @throws ConfigError for a tokenizer without a chat template, or one that does not contain the user's text exactly once
 */
export function salmonnTemplate(tokenizer: Tokenizer, options: { system?: string } = {}): string {
  const where = 'salmonnTemplate'
  requireForm(where, 'tokenizer', tokenizer, { applyChatTemplate: 'function' })
  requireOptions(where, options, ['system'])
  const { system } = options
  if (system !== undefined) requireString(where, 'system', system)
  const before = system === undefined ? [] : [{ role: 'system', content: system }]
  const messages = [...before, { role: 'user', content: SLOT }]
  return checkTemplate(tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true, tokenize: false }))
}

/** Count the speech markers of a text. */
export const countMarkers = (text: string): number => text.split(SPEECH_MARKER).length - 1

/** @throws ConfigError for a plain text that contains a speech marker */
export function refuseMarker(text: string, what: string): string {
  if (countMarkers(text) === 0) return text
  throw new ConfigError(
    `${what}: expected text without ${SPEECH_MARKER}, which marks the position of a clip. Remove it.`,
    { text },
  )
}

/** @throws ConfigError unless the template has exactly one `{}` */
export function checkTemplate(template: string): string {
  requireString('SALMONN', 'the prompt template', template)
  if (template.split(SLOT).length === 2 && countMarkers(template) === 0) return template
  throw new ConfigError(
    `template: expected one {} for the prompt and no ${SPEECH_MARKER}, got ${JSON.stringify(template)}.`,
    { argument: 'template' },
  )
}

export function inTemplate(text: string, template: string): string {
  const [before, after] = checkTemplate(template).split(SLOT) as [string, string]
  return before + text + after
}

function insertQuestion(prompt: string, question: string): string {
  const at = prompt.indexOf(SLOT)
  if (at < 0) return prompt
  if (question === '') {
    throw new ConfigError(
      `question: expected a question (Q) for {} in the prompt ${JSON.stringify(prompt)}, got none.`,
      {
        argument: 'question',
      },
    )
  }
  return prompt.slice(0, at) + refuseMarker(question, 'question') + prompt.slice(at + SLOT.length)
}

function withBlocks(prompt: string, blocks: readonly number[]): string {
  const pieces = prompt.split(SPEECH_MARKER)
  const markers = pieces.length - 1
  if (markers === 0) {
    throw new ConfigError(
      `prompt: expected ${SPEECH_MARKER}, got ${JSON.stringify(prompt)}. Put ${SPEECH_BLOCK} where the speech belongs.`,
      { argument: 'prompt' },
    )
  }
  if (markers === blocks.length) {
    return pieces.map((piece, i) => piece + (i < markers ? SPEECH_MARKER.repeat(blocks[i] as number) : '')).join('')
  }
  if (markers > 1) {
    throw new ConfigError(
      `prompt: expected 1 or ${blocks.length} times ${SPEECH_MARKER} for ${blocks.length} clips, got ${markers} in ${JSON.stringify(prompt)}.`,
      { argument: 'prompt' },
    )
  }
  const unit = prompt.includes(SPEECH_BLOCK) ? SPEECH_BLOCK : SPEECH_MARKER
  const many = blocks.map((count) => unit.replace(SPEECH_MARKER, SPEECH_MARKER.repeat(count))).join('')
  const at = prompt.indexOf(unit)
  return prompt.slice(0, at) + many + prompt.slice(at + unit.length)
}
