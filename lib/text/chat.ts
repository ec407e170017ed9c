import { argumentError, requireObject, requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { TokenizerConfig } from './config.js'
import { trimEnd, trimStart } from './jinja/unicode.js'
import { type Rendered, renderTemplate } from './template.js'

/** A message. Templates may read further fields, such as `tool_calls`. */
export interface ChatMessage {
  role: string
  content?: unknown
  [field: string]: unknown
}

export interface ChatOptions {
  /** Append the tokens that start the model's answer. Default false. */
  addGenerationPrompt?: boolean
  /**
   * Leave the last message open, so that the model continues it. A string names the field to continue, such as
   * `reasoning_content`; true is `content`. Default false.
   */
  continueFinalMessage?: boolean | string
  /** Functions that the model may call, as JSON schemas. */
  tools?: readonly unknown[]
  /** Documents that the model may quote: objects, usually with `title` and `text`. */
  documents?: readonly unknown[]
  /** A template, or the name of a template of the tokenizer. Default: its default template, or with `tools` its template for tools. */
  chatTemplate?: string
  /** Return token ids. Default true. */
  tokenize?: boolean
  /** Return a mask of the tokens from `{% generation %}` blocks of the template. Default false. */
  returnAssistantTokensMask?: boolean
  /** Further variables of the template. They override special tokens of the same name. */
  variables?: Readonly<Record<string, unknown>>
}

/** Result of `applyChatTemplate` with `returnAssistantTokensMask`. */
export interface ChatEncoding {
  inputIds: number[]
  /** 1 for tokens from a `{% generation %}` block, 0 for others. */
  assistantMasks: number[]
}

const where = 'Tokenizer.applyChatTemplate'

/**
 * Render a conversation as transformers' `apply_chat_template(tokenize=False)` does.
 * @throws ConfigError for invalid arguments, and if the template raises an exception; DataError as {@link renderTemplate}
 */
export function renderChat(messages: readonly ChatMessage[], options: ChatOptions, config: TokenizerConfig): Rendered {
  checkOptions(messages, options)
  const { addGenerationPrompt = false, continueFinalMessage = false, returnAssistantTokensMask = false } = options
  const template = templateOf(options, config)
  let turns = messages.map(withReasoning)
  let open = ''
  if (continueFinalMessage !== false) {
    if (addGenerationPrompt || returnAssistantTokensMask) {
      const other = addGenerationPrompt ? 'addGenerationPrompt' : 'returnAssistantTokensMask'
      throw new ConfigError(`${where}: continueFinalMessage and ${other} exclude each other. Use one of them.`, {
        argument: 'continueFinalMessage',
      })
    }
    const field = continueFinalMessage === true ? 'content' : continueFinalMessage
    const last = opened(turns.at(-1)!, field, template)
    open = last.text
    turns = [...turns.slice(0, -1), last.message]
  }
  const special = Object.entries(config.special).map(([name, token]) => [`${name}_token`, token])
  const rendered = renderTemplate(template, {
    ...Object.fromEntries(special),
    ...options.variables,
    messages: turns,
    tools: options.tools ?? null,
    documents: options.documents ?? null,
    add_generation_prompt: addGenerationPrompt,
  })
  return continueFinalMessage === false ? rendered : { text: cutAfterTag(rendered.text, open), generated: [] }
}

function checkOptions(messages: readonly ChatMessage[], options: ChatOptions): void {
  requireOptions(where, options, [
    'addGenerationPrompt',
    'continueFinalMessage',
    'tools',
    'documents',
    'chatTemplate',
    'tokenize',
    'returnAssistantTokensMask',
    'variables',
  ])
  if (!Array.isArray(messages)) throw argumentError(where, 'messages', 'an array of messages', messages)
  if (messages.length === 0) throw argumentError(where, 'messages', 'at least one message', messages)
  for (const [i, message] of messages.entries()) {
    requireObject(where, `messages[${i}]`, message)
    if (message.role === undefined)
      throw argumentError(where, `messages[${i}].role`, "a role, such as 'user' or 'assistant'", message.role)
  }
  for (const name of ['tools', 'documents'] as const) {
    const list = options[name]
    if (list === undefined || list === null) continue
    if (!Array.isArray(list)) throw argumentError(where, name, 'an array of objects', list)
    for (const [i, one] of list.entries()) requireObject(where, `${name}[${i}]`, one)
  }
  if (options.returnAssistantTokensMask && options.tokenize === false) {
    throw new ConfigError(`${where}: returnAssistantTokensMask needs token ids. Leave tokenize out.`, {
      argument: 'returnAssistantTokensMask',
    })
  }
}

function templateOf({ chatTemplate, tools }: ChatOptions, { chatTemplates }: TokenizerConfig): string {
  if (chatTemplate !== undefined) return chatTemplates[chatTemplate] ?? chatTemplate
  const template = (tools !== undefined ? chatTemplates.tool_use : undefined) ?? chatTemplates.default
  if (template !== undefined) return template
  const names = Object.keys(chatTemplates).sort()
  throw new ConfigError(
    names.length > 0
      ? `${where}: the tokenizer has no default chat template. Pass one of ${names.join(', ')} as chatTemplate.`
      : `${where}: chatTemplate: expected a template, because this tokenizer has no chat template. The model card of a chat model gives it.`,
    { argument: 'chatTemplate' },
  )
}

/** Names of the field with the reasoning of a message. Templates read the first, gpt-oss's template the second. */
const reasoningFields = ['reasoning_content', 'thinking', 'reasoning']

/** Drop null fields, as transformers does, and copy the reasoning to the names that templates read. */
function withReasoning(message: ChatMessage): Record<string, unknown> {
  const fields = Object.fromEntries(
    Object.entries(message).filter(([, value]) => value !== null && value !== undefined),
  )
  const name = reasoningFields.find((field) => fields[field] !== undefined)
  if (name === undefined) return fields
  return { thinking: fields[name], ...fields, reasoning_content: fields[name] }
}

// Marks the end of the last message in the rendered text, as transformers does. Its trailing space shows whether a template trims.
const TAG = 'CONTINUE_FINAL_MESSAGE_TAG '

/** Return the last message with {@link TAG} appended to the text to continue, and that text. */
function opened(
  message: Record<string, unknown>,
  field: string,
  template: string,
): { message: Record<string, unknown>; text: string } {
  const refuse = (what: string): never => {
    throw new ConfigError(`${where}: continueFinalMessage: ${what}`, { argument: 'continueFinalMessage' })
  }
  const content = message[field]
  if (content === undefined) return refuse(`expected a last message with "${field}", got one without`)
  // The reasoning has several names; the one that the template reads is continued.
  const names = reasoningFields.includes(field) ? reasoningFields.filter((name) => message[name] === content) : [field]
  if (!names.some((name) => template.includes(name)))
    return refuse(`expected a field that the template reads, got "${field}"`)
  if (typeof content === 'string') {
    return { message: { ...message, ...Object.fromEntries(names.map((name) => [name, content + TAG])) }, text: content }
  }
  if (!Array.isArray(content)) return refuse(`expected a string or a list of parts in "${field}" of the last message`)
  const part = [...content].reverse().find((one) => typeof one === 'object' && one !== null && 'text' in one)
  if (typeof part?.text !== 'string') return refuse('expected a last message with text, got one without')
  const at = content.lastIndexOf(part)
  const parts = [...content.slice(0, at), { ...part, text: part.text + TAG }, ...content.slice(at + 1)]
  return { message: { ...message, [field]: parts }, text: part.text }
}

/** Return the rendered text up to the end of the last message. */
function cutAfterTag(text: string, open: string): string {
  const at = text.lastIndexOf(trimEnd(TAG))
  if (at === -1 || !text.includes(trimStart(trimEnd(open)))) {
    throw new ConfigError(`${where}: continueFinalMessage: the template changes the text of the last message`, {
      argument: 'continueFinalMessage',
    })
  }
  const cut = text.slice(0, at)
  return text.startsWith(TAG, at) ? cut : trimEnd(cut)
}
