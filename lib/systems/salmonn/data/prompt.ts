import { misuse, requireOptions, requireString } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import type { Tokenizer } from '../../../text/index.js'
import { SPEECH_MARKER } from '../network/prompt.js'

/** How the published prompts hold it: the tags around it are plain text. */
export const SPEECH_BLOCK = `<Speech>${SPEECH_MARKER}</Speech>`
/** The published template, that of Vicuna. */
export const SALMONN_TEMPLATE = 'USER: {}\nASSISTANT:'

const SLOT = '{}'

export interface BuildSalmonnPromptOptions {
  /** The instruction, with `<SpeechHere>` where clips belong and perhaps `{}` for the question. */
  prompt: string
  /** Goes where the prompt has `{}`: the `Q` of the published data. */
  question?: string
  /**
   * Clips in each speech block. A prompt with one marker gets as many blocks as there are numbers, one after the other;
   * else it needs a marker for each. Default [1].
   */
  blocks?: readonly number[]
  /** Holds the prompt at its `{}`. Default {@link SALMONN_TEMPLATE}. */
  template?: string
}

/**
 * The one place in which a prompt is made: training, evaluation, the command line and the page all call it. Training data
 * and its answers thus meet the same text as a user's question.
 *
 * @throws ConfigError for a prompt without marker, a question that is missing or holds a marker, a number of blocks that
 * does not fit the markers, and a template without `{}`
 */
export function buildSalmonnPrompt(options: BuildSalmonnPromptOptions): string {
  const where = 'buildSalmonnPrompt'
  requireOptions(where, options, ['prompt', 'question', 'blocks', 'template'])
  const { prompt, question = '', blocks = [1], template = SALMONN_TEMPLATE } = options
  requireString(where, 'prompt', prompt)
  requireString(where, 'question', question)
  if (!Array.isArray(blocks) || !blocks.every((count) => Number.isSafeInteger(count) && count > 0)) {
    throw misuse(where, 'blocks', 'a list of numbers of clips, each at least 1', blocks)
  }
  return inTemplate(asked(withBlocks(prompt, blocks), question), template)
}

/** The prompt of a user's own words about a number of clips: speech first, then the text, as in the published prompts. */
export function salmonnQuestion(text: string): string {
  requireString('salmonnQuestion', 'text', text)
  return `${SPEECH_BLOCK} ${text}`
}

/**
 * The template that a tokenizer's chat template makes of one turn of a user: `<|im_start|>user\n{}<|im_end|>…` for ChatML.
 * @param options `system`: a system message before it. Default: what the chat template says by itself
 * @throws ConfigError where the tokenizer has no chat template, or it has not one place for what the user says
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

/** How often a text has the marker. */
export const countMarkers = (text: string): number => text.split(SPEECH_MARKER).length - 1

/** @throws ConfigError for a text in which clips would be put though it is only words */
export function refuseMarker(text: string, what: string): string {
  if (countMarkers(text) === 0) return text
  throw new ConfigError(`${what} holds ${SPEECH_MARKER}, which marks the place of a clip: take it out`, { text })
}

/** @throws ConfigError where there is not exactly one place for the prompt */
export function checkTemplate(template: string): string {
  requireString('SALMONN', 'the prompt template', template)
  if (template.split(SLOT).length === 2 && countMarkers(template) === 0) return template
  throw new ConfigError(
    `The prompt template ${JSON.stringify(template)} needs {} once, for the prompt, and no ${SPEECH_MARKER}`,
    { argument: 'template' },
  )
}

export function inTemplate(text: string, template: string): string {
  const [before, after] = checkTemplate(template).split(SLOT) as [string, string]
  return before + text + after
}

function asked(prompt: string, question: string): string {
  const at = prompt.indexOf(SLOT)
  if (at < 0) return prompt
  if (question === '') {
    throw new ConfigError(`The prompt ${JSON.stringify(prompt)} asks a question at {}, and none was given (Q)`, {
      argument: 'question',
    })
  }
  return prompt.slice(0, at) + refuseMarker(question, 'The question') + prompt.slice(at + SLOT.length)
}

function withBlocks(prompt: string, blocks: readonly number[]): string {
  const pieces = prompt.split(SPEECH_MARKER)
  const markers = pieces.length - 1
  if (markers === 0) {
    throw new ConfigError(
      `The prompt ${JSON.stringify(prompt)} has no ${SPEECH_MARKER}: put ${SPEECH_BLOCK} where the speech belongs`,
      { argument: 'prompt' },
    )
  }
  if (markers === blocks.length) {
    return pieces.map((piece, i) => piece + (i < markers ? SPEECH_MARKER.repeat(blocks[i] as number) : '')).join('')
  }
  if (markers > 1) {
    throw new ConfigError(
      `The prompt ${JSON.stringify(prompt)} has ${markers} times ${SPEECH_MARKER}, and there are ${blocks.length} clips`,
      { argument: 'prompt' },
    )
  }
  const unit = prompt.includes(SPEECH_BLOCK) ? SPEECH_BLOCK : SPEECH_MARKER
  const many = blocks.map((count) => unit.replace(SPEECH_MARKER, SPEECH_MARKER.repeat(count))).join('')
  const at = prompt.indexOf(unit)
  return prompt.slice(0, at) + many + prompt.slice(at + unit.length)
}
