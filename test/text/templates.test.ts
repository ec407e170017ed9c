import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import {
  type ChatMessage,
  type ChatOptions,
  ConfigError,
  DataError,
  type Tokenizer,
  type VoxtorchError,
} from '../../lib/index.js'
import { renderTemplate } from '../../lib/text/template.js'
import { fromSpec, json } from './helpers.js'

interface Case {
  group: string
  template: string
  text?: string
  error?: string
  message?: string
  /** Refused by name, where jinja2 writes addresses, picks at random or fetches further templates. */
  refused?: true
}
const { now, messages, variables, cases } = json<{
  now: [number, number, number, number, number, number, number]
  messages: unknown[]
  variables: Record<string, unknown>
  cases: Case[]
}>('templates')

const [year, month, day, hour, minute, second, microsecond] = now
const clock = (): Date => new Date(year, month - 1, day, hour, minute, second, microsecond / 1000)
const special = { bos_token: '<s>', eos_token: '</s>' }
const given = { ...special, ...variables, messages, tools: null, documents: null, add_generation_prompt: false }

/** jinja2's own errors, whose words are kept; those of Python's built-in functions differ between its releases. */
const jinjaErrors = new Set([
  'TemplateSyntaxError',
  'TemplateAssertionError',
  'TemplateRuntimeError',
  'UndefinedError',
  'SecurityError',
  'FilterArgumentError',
  'ZeroDivisionError',
])

function outcome({ template }: Case): string | VoxtorchError {
  try {
    return renderTemplate(template, given, clock).text
  } catch (error) {
    return error as VoxtorchError
  }
}

describe('templates of one feature, as transformers renders them', () => {
  test('there are at least 174', () => expect(cases.length).toBeGreaterThanOrEqual(174))

  test.each([...new Set(cases.map(({ group }) => group))])('%s', (group) => {
    for (const one of cases.filter((other) => other.group === group)) {
      const result = outcome(one)
      if (one.refused) {
        expect(result, one.template).toBeInstanceOf(DataError)
        expect((result as Error).message, one.template).toMatch(/ is not supported in a chat template$/)
      } else if (one.text !== undefined) expect(result, one.template).toBe(one.text)
      else if (one.error === 'TemplateError') {
        expect(result, one.template).toBeInstanceOf(ConfigError)
        expect((result as Error).message, one.template).toContain(one.message)
      } else {
        expect(result, one.template).toBeInstanceOf(DataError)
        expect((result as Error).message, one.template).toMatch(/^chat template, line \d+, column \d+: /)
        if (jinjaErrors.has(one.error!)) expect((result as Error).message, one.template).toContain(one.message)
        if (one.error !== 'SyntaxError')
          expect((result as unknown as { kind: string }).kind, one.template).toBe(one.error)
      }
    }
  })
})

describe('random templates', () => {
  const random = json<{ cases: Case[] }>('random-templates')

  test(`${random.cases.length} are rendered, or fail, as in transformers`, () => {
    for (const one of random.cases) {
      const result = outcome(one)
      if (one.text !== undefined) expect(result, one.template).toBe(one.text)
      else expect(result, one.template).toBeInstanceOf(DataError)
    }
  })
})

interface Published {
  license: string
  template: string
  /** One for each of the chats. */
  cases: { text?: string; error?: string; message?: string }[]
}
const { chats, templates } = json<{
  chats: { name: string; messages: ChatMessage[]; options: ChatOptions }[]
  templates: Record<string, Published>
}>('published-templates')

describe('templates of published models, as transformers renders them', () => {
  let tokenizer: Tokenizer
  beforeAll(async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: clock() })
    const added = ['<unk>', '<s>', '</s>'].map((content, id) => ({ id, content, special: true }))
    tokenizer = await fromSpec({
      added_tokens: added.slice(1),
      model: { type: 'WordLevel', vocab: { '<unk>': 0 }, unk_token: '<unk>' },
    })
  })
  afterAll(() => {
    vi.useRealTimers()
  })

  test('there are at least 30', () => expect(Object.keys(templates).length).toBeGreaterThanOrEqual(30))

  test.each(Object.entries(templates))('%s', (_name, { template, cases }) => {
    for (const [i, { text, error, message }] of cases.entries()) {
      const { name, messages, options } = chats[i]!
      const render = (): string =>
        tokenizer.applyChatTemplate(messages, { ...options, chatTemplate: template, tokenize: false })
      if (text !== undefined) expect(render(), name).toBe(text)
      else if (error === 'TemplateError') expect(render, name).toThrow(message)
      else expect(render, name).toThrow(error === 'ValueError' ? ConfigError : DataError)
    }
  })
})
