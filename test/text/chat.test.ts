import { dirname } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { type ChatMessage, ConfigError, DataError, Tokenizer } from '../../lib/index.js'
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
    const blank = [...messages, { role: 'assistant', content: 'Hello, <|im_end|> my ' }]
    const closed = qwen.applyChatTemplate(blank, { tokenize: false, continueFinalMessage: true })
    expect(closed.endsWith('Hello, <|im_end|> my ')).toBe(true)
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
    const object = directory('object', {
      'tokenizer.json': spec,
      'tokenizer_config.json': { chat_template: { rag: '{{ documents | length }}' } },
    })
    const byName = await Tokenizer.fromPretrained(object)
    const rag = { tokenize: false, chatTemplate: 'rag', documents: [{ title: 'a' }, { title: 'b' }] } as const
    expect(byName.applyChatTemplate(messages, rag)).toBe('2')
    expect(() => byName.applyChatTemplate(messages, { tokenize: false })).toThrow(/no default chat template.*rag/)
    const file = directory('jinja', { 'tokenizer.json': spec, 'chat_template.jinja': 'from a file' })
    const other = await Tokenizer.fromPretrained(file)
    expect(other.applyChatTemplate(messages, { tokenize: false })).toBe('from a file')
  })

  test('marks the tokens that generation blocks write', async () => {
    const vocab = Object.fromEntries([...'<>uabc\u{1f600}'].map((letter, id) => [letter, id]))
    const split = { type: 'Split', pattern: { Regex: '.' }, behavior: 'Isolated', invert: false }
    const tokenizer = await fromSpec({ model: { type: 'WordLevel', vocab, unk_token: 'u' }, pre_tokenizer: split })
    const chatTemplate =
      '{% for m in messages %}{% if m.role == "user" %}<{{ m.content }}>{% else %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}'
    const chat = [
      { role: 'user', content: 'a\u{1f600}' },
      { role: 'assistant', content: 'b\u{1f600}c' },
      { role: 'user', content: 'a' },
      { role: 'assistant', content: 'c' },
    ]
    const masked = tokenizer.applyChatTemplate(chat, { chatTemplate, returnAssistantTokensMask: true })
    expect(masked.inputIds).toEqual([0, 3, 6, 1, 4, 6, 5, 0, 3, 1, 5])
    expect(masked.assistantMasks).toEqual([0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1])
    const both = { chatTemplate, returnAssistantTokensMask: true, tokenize: false } as never
    expect(() => tokenizer.applyChatTemplate(chat, both)).toThrow(ConfigError)
  })

  test('continues the reasoning, and takes null as missing', () => {
    const chatTemplate = '{% for m in messages %}[{{ m.reasoning_content }}|{{ m.content }}]{% endfor %}'
    const chat = [{ role: 'assistant', content: null, thinking: 'so far ' }]
    const options = { chatTemplate, tokenize: false } as const
    expect(mistral.applyChatTemplate(chat, options)).toBe('[so far |]')
    expect(mistral.applyChatTemplate(chat, { ...options, continueFinalMessage: 'thinking' })).toBe('[so far ')
    expect(() => mistral.applyChatTemplate(chat, { ...options, continueFinalMessage: true })).toThrow(
      /expected a last message with "content"/,
    )
    const role = { ...options, continueFinalMessage: 'role' }
    expect(() => mistral.applyChatTemplate(messages, role)).toThrow(
      /expected a field that the template reads, got "role"/,
    )
    expect(() => mistral.applyChatTemplate([], options)).toThrow(/at least one message/)
    expect(() => mistral.applyChatTemplate(messages, { ...options, tools: ['f'] })).toThrow(/tools\[0\]/)
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
      /steps/,
    ],
    [
      'a doubling list',
      '{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}',
      /list of more than/,
    ],
    [
      'a doubling text',
      '{% set n = namespace(x="a") %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}',
      /text of more than/,
    ],
    [
      'a list of itself, printed',
      '{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}',
      /steps|text/,
    ],
    [
      'the same as JSON',
      '{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}',
      /steps|text/,
    ],
    [
      'the same compared',
      '{% set n = namespace(x=[1], y=[1.0]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}',
      /steps/,
    ],
    [
      'the same as a key',
      '{% set n = namespace(x=(1,)) %}{% for i in range(60) %}{% set n.x = (n.x, n.x) %}{% endfor %}{{ {n.x: 1} }}',
      /too large as a key/,
    ],
    [
      'a list deeper than the stack',
      '{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}',
      /nests/,
    ],
    ['a million pieces joined', "{{ range(1000000) | map('string') | join('...') }}", /MAX_RANGE/],
    [
      'one long text joined often',
      '{% set n = namespace(x="a") %}{% for i in range(16) %}{% set n.x = n.x ~ n.x %}{% endfor %}{% set l = namespace(x=[n.x]) %}{% for i in range(16) %}{% set l.x = l.x + l.x %}{% endfor %}{{ l.x | join }}{{ l.x | join("") }}',
      /text of more than/,
    ],
    ['a huge range', '{{ range(10 ** 12) }}', /MAX_RANGE/],
    ['a huge integer', '{{ 9 ** 99999999 }}', /bits/],
    [
      'huge integers multiplied',
      '{% set n = namespace(x=10) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}',
      /bits/,
    ],
    ['a text repeated', '{{ "ab" * 10 ** 12 }}', /repeats/],
    ['a list repeated', '{{ [1] * 10 ** 12 }}', /repeats/],
    ['a padded text', '{{ "a".ljust(10 ** 12) }}', /columns/],
    ['a padded format', '{{ "%1000000000000d" % 1 }}', /width/],
    ['a precise format', '{{ "{:.1000000000000f}".format(1.5) }}', /width/],
    ['a wide date', "{{ strftime_now('%999d' * 900000) }}", /date with a format/],
    ['an indent', '{{ ("a\n" * 1000000) | indent(1000000) }}', /text of more than|steps/],
    ['slices without end', '{% for x in [] | slice(10 ** 9) %}{% endfor %}', /steps/],
    ['endless recursion', '{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}', /nests deeper/],
    ['an endless loop', '{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}', /nests deeper/],
    ['a encoder of brackets', `{{ ${'('.repeat(1e5)}1${')'.repeat(1e5)} }}`, /nests deeper/],
    ['a encoder of tags', '{% if 1 %}'.repeat(2e4), /nests deeper/],
    ['a chain of operators', `{{ 1${' + 1'.repeat(6e4)} }}`, /nests deeper/],
    ['a chain of filters', `{{ 1${' | abs'.repeat(4e4)} }}`, /nests deeper/],
    ['a chain of attributes', `{{ a${'.b'.repeat(1e5)} }}`, /nests deeper/],
    ['a chain of conditions', `{{ 1${' if 1'.repeat(5e4)} }}`, /nests deeper/],
    [
      'macros in macros',
      `${'{% macro m() %}'.repeat(90)}${'{{ a }}'.repeat(3e4)}${'{% endmacro %}'.repeat(90)}`,
      /too many macros/,
    ],
    ['a long template', 'a'.repeat(2 ** 18 + 1), /more than the limit of 262144/],
    ['no template', '{% if %}', /chat template, line 1, column 7: TemplateSyntaxError: Expected an expression/],
    [
      'JavaScript',
      '{{ "".constructor.constructor("return process")() }}',
      /UndefinedError: 'str object' has no attribute 'constructor'/,
    ],
    ['a prototype', '{{ {}.__proto__.x }}', /UndefinedError: 'dict object' has no attribute '__proto__'/],
    [
      'a prototype of a namespace',
      '{{ namespace().__proto__.x }}',
      /TemplateNamespace object' has no attribute '__proto__'/,
    ],
  ])('%s', (_name, chatTemplate, message) => {
    const call = () => mistral.applyChatTemplate([{ role: 'user', content: 'x' }], { chatTemplate })
    expect(call).toThrow(message)
    expect(call).toThrow(DataError)
  })

  test.each([
    ['blanks', ' '.repeat(2.6e5)],
    ['openings', '{'.repeat(2.6e5)],
    ['comments', '{#'.repeat(1.3e5)],
    ['raw blocks', '{% raw %}'.repeat(2.9e4)],
    ['half endings', `{% raw %}${'{%  endraw  '.repeat(2e4)}`],
    ['quotes', `{{ "${'\\'.repeat(2.6e5)}`],
    ['digits', `{{ ${'1_'.repeat(1.3e5)}`],
  ])('a template of %s is read in one pass', (_name, chatTemplate) => {
    // Were it quadratic, this would not end.
    try {
      const text = mistral.applyChatTemplate([{ role: 'user', content: 'x' }], { chatTemplate, tokenize: false })
      expect(chatTemplate).toContain(text)
    } catch (error) {
      expect(error).toBeInstanceOf(DataError)
    }
  })
})
