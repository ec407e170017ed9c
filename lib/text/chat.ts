import { misuse, requireObject, requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { TokenizerConfig } from './config.js'
import { trimEnd, trimStart } from './jinja/unicode.js'
import { type Rendered, renderTemplate } from './template.js'

/** One turn. Templates may read more fields than these, such as `tool_calls`. */
export interface ChatMessage {
  role: string
  content?: unknown
  [field: string]: unknown
}

export interface ChatOptions {
  /** End with what opens the model's answer. Default false. */
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
  /** A template, or the name of one of the files'. Default: the files' own, with `tools` the one for tools if there is one. */
  chatTemplate?: string
  /** Return token ids. Default true. */
  tokenize?: boolean
  /** Return the mask of the tokens that `{% generation %}` blocks of the template write. Default false. */
  returnAssistantTokensMask?: boolean
  /** Further variables of the template. They replace special tokens of the same name. */
  variables?: Readonly<Record<string, unknown>>
}

/** What `applyChatTemplate` returns with `returnAssistantTokensMask`. */
export interface ChatEncoding {
  inputIds: number[]
  /** 1 for each token that a `{% generation %}` block wrote, 0 for the others. */
  assistantMasks: number[]
}

const where = 'Tokenizer.applyChatTemplate'

/**
 * Render a conversation as transformers' `apply_chat_template(tokenize=False)` does.
 * @throws ConfigError for wrong arguments and where the template refuses the conversation; DataError as
 *   {@link renderTemplate}
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
  return continueFinalMessage === false ? rendered : { text: cutBehind(rendered.text, open), generated: [] }
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
  if (!Array.isArray(messages)) throw misuse(where, 'messages', 'an array of messages', messages)
  if (messages.length === 0) throw misuse(where, 'messages', 'at least one message', messages)
  for (const [i, message] of messages.entries()) requireObject(where, `messages[${i}]`, message)
  for (const name of ['tools', 'documents'] as const) {
    const list = options[name]
    if (list === undefined || list === null) continue
    if (!Array.isArray(list)) throw misuse(where, name, 'an array of objects', list)
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
      : 'this tokenizer has no chat template; pass one as chatTemplate, as the model card of a chat model gives it',
    { argument: 'chatTemplate' },
  )
}

/** The fields under which messages hold their reasoning; templates read the first, and gpt-oss's the second. */
const reasoningFields = ['reasoning_content', 'thinking', 'reasoning']

/** Drop fields of null, as transformers does, and fill in the names under which templates look for the reasoning. */
function withReasoning(message: ChatMessage): Record<string, unknown> {
  const fields = Object.fromEntries(
    Object.entries(message).filter(([, value]) => value !== null && value !== undefined),
  )
  const name = reasoningFields.find((field) => fields[field] !== undefined)
  if (name === undefined) return fields
  return { thinking: fields[name], ...fields, reasoning_content: fields[name] }
}

// Marks the end of the last message in the rendered text, as transformers does: the blank shows whether a template trims.
const TAG = 'CONTINUE_FINAL_MESSAGE_TAG '

/** The last message with {@link TAG} behind the text to continue, and that text. */
function opened(
  message: Record<string, unknown>,
  field: string,
  template: string,
): { message: Record<string, unknown>; text: string } {
  const refuse = (what: string): never => {
    throw new ConfigError(`continueFinalMessage: ${what}`, { argument: 'continueFinalMessage' })
  }
  const content = message[field]
  if (content === undefined) return refuse(`the last message has no "${field}" to go on with`)
  // Reasoning stands under several names: whichever the template reads is continued.
  const names = reasoningFields.includes(field) ? reasoningFields.filter((name) => message[name] === content) : [field]
  if (!names.some((name) => template.includes(name))) return refuse(`the template reads no field "${field}"`)
  if (typeof content === 'string') {
    return { message: { ...message, ...Object.fromEntries(names.map((name) => [name, content + TAG])) }, text: content }
  }
  if (!Array.isArray(content)) return refuse(`"${field}" of the last message is neither text nor a list of parts`)
  const part = [...content].reverse().find((one) => typeof one === 'object' && one !== null && 'text' in one)
  if (typeof part?.text !== 'string') return refuse('the last message has no text to go on with')
  const at = content.lastIndexOf(part)
  const parts = [...content.slice(0, at), { ...part, text: part.text + TAG }, ...content.slice(at + 1)]
  return { message: { ...message, [field]: parts }, text: part.text }
}

/** The rendered text up to the end of the last message. */
function cutBehind(text: string, open: string): string {
  const at = text.lastIndexOf(trimEnd(TAG))
  if (at === -1 || !text.includes(trimStart(trimEnd(open)))) {
    throw new ConfigError('continueFinalMessage: the template changes the text of the last message', {
      argument: 'continueFinalMessage',
    })
  }
  const cut = text.slice(0, at)
  return text.startsWith(TAG, at) ? cut : trimEnd(cut)
}
