import { describe, expect, it } from 'vitest'
import { ConfigError } from '../../lib/index.js'
import { type ChatMessage, Conversations, requireConversation, untilStop } from '../../lib/kit/chat.js'

describe('untilStop', () => {
  let left = 0
  async function* said(...texts: string[]) {
    try {
      for (const text of texts) yield { text, tokens: 1 }
    } finally {
      left += 1
    }
  }
  const read = async (texts: string[], stops: string[]) => {
    const pieces = []
    for await (const piece of untilStop(said(...texts), stops)) pieces.push(piece)
    return pieces
  }

  it('ends before the first of the texts, wherever it is divided, and ends what it reads', async () => {
    const before = left
    expect(await read(['a', 'b</', 's', '>c', 'd'], ['</s>', '\n'])).toEqual([
      { text: 'a', tokens: 1 },
      { text: 'b', tokens: 1 },
      { text: '', tokens: 1 },
      { text: '', tokens: 1 },
    ])
    expect(left).toBe(before + 1)
    expect((await read(['x END y STOP'], ['STOP', 'END'])).map(({ text }) => text)).toEqual(['x '])
  })

  it('gives what it held back where no stop came of it, as a piece without tokens', async () => {
    expect(await read(['a<', '/'], ['</s>'])).toEqual([
      { text: 'a', tokens: 1 },
      { text: '', tokens: 1 },
      { text: '</', tokens: 0 },
    ])
    expect((await read(['a', 'b'], ['', 'zz'])).map(({ text }) => text)).toEqual(['a', 'b'])
  })
})

describe('requireConversation', () => {
  const check = (...messages: [ChatMessage<string>['role'], string][]) =>
    requireConversation(
      'ask',
      messages.map(([role, text]) => ({ role, content: [text] })),
      ({ content: [text] }) => ({ isEmpty: text === '', isText: text !== '*' }),
    )

  it('takes turns, after a system message at most', () => {
    check(['user', 'a'])
    check(['system', ''], ['user', '*'], ['assistant', 'b'], ['user', 'c'])
  })

  it.each([
    [[['assistant', 'a']], /messages\[0\]: expected role 'user', got 'assistant'/],
    [
      [
        ['user', 'a'],
        ['user', 'b'],
      ],
      /messages\[1\]: expected role 'assistant', got 'user'/,
    ],
    [
      [
        ['user', 'a'],
        ['assistant', 'b'],
      ],
      /expected the last message from the user, got one from the assistant/,
    ],
    [
      [
        ['user', 'a'],
        ['assistant', '*'],
      ],
      /expected text in the reply of the assistant/,
    ],
    [
      [
        ['user', 'a'],
        ['system', 'b'],
      ],
      /expected the system message first/,
    ],
    [[['system', '*']], /expected text in the system message/],
    [[['user', '']], /got an empty message/],
    [[], /a list of messages/],
    [[['judge', 'a']], /role/],
  ] as [[ChatMessage<string>['role'], string][], RegExp][])('refuses %j', (messages, what) => {
    expect(() => check(...messages)).toThrow(ConfigError)
    expect(() => check(...messages)).toThrow(what)
  })
})

it('conversations keep a cache each, the oldest makes room, and busy ones are left alone', () => {
  let made = 0
  const freed: number[] = []
  const all = new Conversations(() => {
    const id = made++
    return { id, dispose: () => freed.push(id) }
  }, 2)
  const ask = (text: string) => {
    const taken = all.take(text)
    taken?.leave()
    return taken?.cache.id
  }
  expect(ask('hello')).toBe(0)
  expect(ask('good day')).toBe(1)
  expect(ask('hello, again')).toBe(0)
  // The other is the older one now.
  expect(ask('new')).toBe(1)
  const [first, second] = [all.take('hello, again and again'), all.take('new one')]
  expect([first?.cache.id, second?.cache.id, all.take('third')]).toEqual([0, 1, undefined])
  second?.leave()
  expect(ask('third')).toBe(1)
  all.dispose()
  expect(freed.sort()).toEqual([0, 1])
})
