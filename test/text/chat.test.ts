import { dirname } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { type ChatMessage, ConfigError, DataError, Tokenizer } from '../../lib/index.js'
import { PATIENCE } from '../patience.js'
import { directory, fromSpec, json, published } from './helpers.js'

interface Case {
  style: string
  name: string
  options: { add_generation_prompt?: boolean; tools?: unknown[] }
  text?: string
  error?: string
}
const { templates, conversations, cases } = json<{
  templates: Record<string, string>
  conversations: Record<string, ChatMessage[]>
  cases: Case[]
}>('chat')

let mistral: Tokenizer
let qwen: Tokenizer
beforeAll(async () => {
  mistral = await Tokenizer.fromPretrained(dirname(published['mistral-json']))
  qwen = await Tokenizer.fromPretrained(dirname(published.qwen2))
})

const render = (one: Case): string =>
  (one.style === 'qwen3' ? qwen : mistral).applyChatTemplate(conversations[one.name]!, {
    tokenize: false,
    ...(one.style === 'qwen3' ? {} : { chatTemplate: templates[one.style]! }),
    addGenerationPrompt: one.options.add_generation_prompt ?? false,
    ...(one.options.tools === undefined ? {} : { tools: one.options.tools }),
  })

describe.each([...Object.keys(templates), 'qwen3'])('the template %s, as transformers renders it', (style) => {
  const mine = cases.filter((one) => one.style === style)

  test(`${mine.length} conversations`, () => {
    for (const one of mine.filter(({ text }) => text !== undefined)) expect(render(one)).toBe(one.text)
  })

  test.runIf(mine.some(({ error }) => error !== undefined))('refuses with its own words', () => {
    for (const one of mine.filter(({ error }) => error !== undefined)) {
      expect(() => render(one)).toThrow(ConfigError)
      expect(() => render(one)).toThrow(one.error)
    }
  })
})

describe('applyChatTemplate', () => {
  const messages = [{ role: 'user', content: 'Hi' }]

  test('gives ids, without special tokens of its own', () => {
    const text = qwen.applyChatTemplate(messages, { tokenize: false, addGenerationPrompt: true })
    const ids = qwen.applyChatTemplate(messages, { addGenerationPrompt: true })
    expect(ids).toEqual(qwen.encode(text, { addSpecialTokens: false }).inputIds)
    expect(ids[0]).toBe(qwen.tokenToId('<|im_start|>'))
  })

  test('leaves the last message open', () => {
    const open = [...messages, { role: 'assistant', content: 'Hello, my' }]
    const text = qwen.applyChatTemplate(open, { tokenize: false, continueFinalMessage: true })
    expect(text.endsWith('Hello, my')).toBe(true)
    expect(() => qwen.applyChatTemplate(open, { continueFinalMessage: true, addGenerationPrompt: true })).toThrow(
      ConfigError,
    )
    expect(() => qwen.applyChatTemplate([{ role: 'user' }], { continueFinalMessage: true })).toThrow(ConfigError)
  })

  test('chooses among named templates, and reads chat_template.jinja', async () => {
    const spec = { model: { type: 'WordLevel', vocab: { a: 0 }, unk_token: 'a' } }
    const named = directory('named', {
      'tokenizer.json': spec,
      'tokenizer_config.json': {
        chat_template: [
          { name: 'default', template: 'plain' },
          { name: 'tool_use', template: 'tools: {{ tools | length }}' },
        ],
      },
    })
    const tokenizer = await Tokenizer.fromPretrained(named)
    expect(tokenizer.applyChatTemplate(messages, { tokenize: false })).toBe('plain')
    expect(tokenizer.applyChatTemplate(messages, { tokenize: false, tools: [{}] })).toBe('tools: 1')
    expect(tokenizer.applyChatTemplate(messages, { tokenize: false, chatTemplate: 'tool_use', tools: [] })).toBe(
      'tools: 0',
    )
    const file = directory('jinja', { 'tokenizer.json': spec, 'chat_template.jinja': 'from a file' })
    const other = await Tokenizer.fromPretrained(file)
    expect(other.applyChatTemplate(messages, { tokenize: false })).toBe('from a file')
  })

  test('without a template, says so', async () => {
    const tokenizer = await fromSpec({ model: { type: 'WordLevel', vocab: { a: 0 }, unk_token: 'a' } })
    expect(() => tokenizer.applyChatTemplate(messages)).toThrow(/no chat template/)
  })

  test('strftime_now writes dates', () => {
    const text = mistral.applyChatTemplate(messages, {
      tokenize: false,
      chatTemplate: "{{ strftime_now('%d %b %Y %H:%M %% %Q') }}",
    })
    expect(text).toMatch(/^\d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d % %Q$/)
  })
})

describe('a hostile template is ended', () => {
  test.each<[string, string, RegExp]>([
    [
      'loops in loops',
      '{% for i in range(99999) %}{% for j in range(99999) %}{% set x = 1 %}{% endfor %}{% endfor %}',
      /timed out/,
    ],
    [
      'a doubling list',
      '{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}',
      /too long/,
    ],
    [
      'a doubling text',
      '{% set n = namespace(x="a") %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}',
      /too long/,
    ],
    [
      'a list of itself, printed',
      '{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}',
      /timed out/,
    ],
    [
      'the same as JSON',
      '{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}',
      /timed out/,
    ],
    ['a million pieces joined', "{{ range(1000000) | map('string') | join('...') }}", /list of 1000000 numbers/],
    [
      'one long text joined often',
      '{% set n = namespace(x="a") %}{% for i in range(16) %}{% set n.x = n.x ~ n.x %}{% endfor %}{% set l = namespace(x=[n.x]) %}{% for i in range(16) %}{% set l.x = l.x + l.x %}{% endfor %}{{ l.x | join }}{{ l.x | join("") }}',
      /too long/,
    ],
    ['a huge range', '{{ range(10 ** 12) }}', /list of 1000000000000 numbers/],
    ['endless recursion', '{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}', /nests deeper|call stack|timed out/],
    ['a tower of brackets', `{{ ${'('.repeat(2e5)}1${')'.repeat(2e5)} }}`, /call stack|timed out/],
    ['a megabyte', 'a'.repeat(2 ** 20 + 1), /more than 1048576/],
    ['no template', '{% if %}', /the chat template fails/],
    ['JavaScript', '{{ "".constructor.constructor("return process")() }}', /not a function/],
  ])('%s', (_name, chatTemplate, message) => {
    const start = performance.now()
    const call = () => mistral.applyChatTemplate([{ role: 'user', content: 'x' }], { chatTemplate })
    expect(call).toThrow(message)
    expect(performance.now() - start).toBeLessThan(PATIENCE)
    expect(call).toThrow(DataError)
  })
})
