import { misuse, requireObject, requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { TokenizerConfig } from './config.js'
import { renderTemplate } from './template.js'

/** One turn. Templates may read more fields than these, such as `tool_calls`. */
export interface ChatMessage {
  role: string
  content?: unknown
  [field: string]: unknown
}

export interface ChatOptions {
  /** End with what opens the model's answer. Default false. */
  addGenerationPrompt?: boolean
  /** Leave the last message open, so that the model goes on with it. Default false. */
  continueFinalMessage?: boolean
  /** Functions that the model may call, as JSON schemas. */
  tools?: readonly unknown[]
  /** Texts that the model may quote. */
  documents?: readonly unknown[]
  /** A template, or the name of one of the files'. Default: the files' own, with `tools` the one for tools if there is one. */
  chatTemplate?: string
  /** Give ids. Default true. */
  tokenize?: boolean
  /** Further variables of the template. */
  variables?: Readonly<Record<string, unknown>>
}

/** The text of a conversation, as transformers' `apply_chat_template(tokenize=False)` gives it. */
export function renderChat(messages: readonly ChatMessage[], options: ChatOptions, config: TokenizerConfig): string {
  const where = 'Tokenizer.applyChatTemplate'
  requireOptions(where, options, [
    'addGenerationPrompt',
    'continueFinalMessage',
    'tools',
    'documents',
    'chatTemplate',
    'tokenize',
    'variables',
  ])
  if (!Array.isArray(messages)) throw misuse(where, 'messages', 'an array of messages', messages)
  for (const [i, message] of messages.entries()) requireObject(where, `messages[${i}]`, message)
  const { addGenerationPrompt = false, continueFinalMessage = false } = options
  if (addGenerationPrompt && continueFinalMessage) {
    throw new ConfigError(
      `${where}: addGenerationPrompt opens an answer, continueFinalMessage goes on with one; use either`,
    )
  }
  const open = continueFinalMessage ? openText(messages.at(-1)) : ''
  const special = Object.entries(config.special).map(([name, token]) => [`${name}_token`, token])
  const text = renderTemplate(templateOf(options, config), {
    ...Object.fromEntries(special),
    ...options.variables,
    messages,
    tools: options.tools ?? null,
    documents: options.documents ?? null,
    add_generation_prompt: addGenerationPrompt,
  })
  return continueFinalMessage ? upTo(text, open) : text
}

function templateOf({ chatTemplate, tools }: ChatOptions, { chatTemplates }: TokenizerConfig): string {
  if (chatTemplate !== undefined) return chatTemplates[chatTemplate] ?? chatTemplate
  const template = (tools !== undefined ? chatTemplates.tool_use : undefined) ?? chatTemplates.default
  if (template !== undefined) return template
  throw new ConfigError(
    'this tokenizer has no chat template; pass one as chatTemplate, as the model card of a chat model gives it',
    { argument: 'chatTemplate' },
  )
}

function openText(last: ChatMessage | undefined): string {
  if (typeof last?.content === 'string' && last.content.trim() !== '') return last.content.trim()
  throw new ConfigError('continueFinalMessage: the last message has no text to go on with', {
    argument: 'continueFinalMessage',
  })
}

/** Cuts off what the template writes after the last message. */
function upTo(text: string, last: string): string {
  const at = text.lastIndexOf(last)
  if (at !== -1) return text.slice(0, at + last.length)
  throw new ConfigError('continueFinalMessage: the template changes the text of the last message', {
    argument: 'continueFinalMessage',
  })
}
