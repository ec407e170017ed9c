import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Salmonn, setNumThreads } from '../../../lib/index.js'
import { SalmonnChat, type SalmonnChatMessage, salmonnChatPrompt } from '../../../lib/systems/salmonn/index.js'
import { clip, tinySalmonn } from './network/tiny.js'

let model: Salmonn
beforeAll(async () => {
  setNumThreads(1)
  model = await tinySalmonn()
})
afterAll(() => model.dispose())

const said = (role: SalmonnChatMessage['role'], text: string, ...clips: Float32Array[]): SalmonnChatMessage => ({
  role,
  content: [...clips.map((samples) => ({ type: 'audio', samples }) as const), { type: 'text', text }],
})
const answerOf = async (chat: SalmonnChat, messages: SalmonnChatMessage[], options = {}) => {
  let text = ''
  let tokens = 0
  for await (const step of chat.stream(messages, { maxNewTokens: 10, ...options })) {
    text += step.text
    tokens += step.tokens
  }
  return { text, tokens }
}

it('answers each turn as without a memory, several conversations at once', async () => {
  using chat = new SalmonnChat(model)
  const talk = async (seed: number) => {
    const messages = [said('user', 'What?', clip(seed, 0.8))]
    for (let turn = 0; turn < 3; turn += 1) {
      const answer = await answerOf(chat, messages)
      const alone = await model.generate([salmonnChatPrompt(messages)], { maxNewTokens: 10 })
      expect(answer).toEqual({ text: alone.texts[0], tokens: alone.tokens[0]?.length })
      messages.push(
        said('assistant', answer.text.replaceAll('<SpeechHere>', '')),
        said('user', 'and?', clip(seed + turn, 0.4)),
      )
    }
  }
  await Promise.all([talk(1), talk(5), talk(9)])
})

it('counts the tokens of the whole prompt, of text and sound, read now or in an earlier turn', async () => {
  using chat = new SalmonnChat(model)
  const countOf = async (messages: SalmonnChatMessage[], options = {}) => {
    for await (const { promptTokens } of chat.stream(messages, { maxNewTokens: 2, ...options })) return promptTokens
  }
  const question = [said('user', 'What is it?')]
  const { text } = salmonnChatPrompt(question, { endOfTurn: model.config.endSymbol })
  const ids = model.tokenizer.encode(text, { addSpecialTokens: false }).length
  expect(await countOf(question)).toBe(ids + (model.tokenizer.bosTokenId === null ? 0 : 1))
  const sounds = [said('user', 'What is it?', clip(1, 0.8))]
  const [whole] = (await model.generate([salmonnChatPrompt(sounds)], { maxNewTokens: 2 })).promptTokens
  expect(await countOf(sounds)).toBe(whole)
  expect(await countOf(sounds), 'a second time, from the cache').toBe(whole)
  expect(await countOf(sounds, { numBeams: 2 })).toBe(whole)
})

it('ends at a stop text, which is not in the answer', async () => {
  using chat = new SalmonnChat(model)
  const messages = [said('user', 'What?', clip(1, 0.8))]
  const { text } = await answerOf(chat, messages)
  const stop = text.slice(3, 5)
  const stopped = await answerOf(chat, messages, { stop: ['never there', stop] })
  expect(stopped.text).toBe(text.slice(0, text.indexOf(stop)))
})

it('samples the same with the same seed', async () => {
  using chat = new SalmonnChat(model)
  const messages = [said('user', 'What?', clip(1, 0.8))]
  const options = { temperature: 1.5, topK: 0 }
  const first = await answerOf(chat, messages, { ...options, seed: 4 })
  expect(await answerOf(chat, messages, { ...options, seed: 4 })).toEqual(first)
  expect(await answerOf(chat, messages, { ...options, seed: 5 })).not.toEqual(first)
})

it('an aborted answer leaves the conversation usable', async () => {
  using chat = new SalmonnChat(model)
  const messages = [said('user', 'What?', clip(1, 0.8))]
  const whole = await answerOf(chat, messages)
  const controller = new AbortController()
  const aborted = async () => {
    for await (const step of chat.stream(messages, { maxNewTokens: 10, signal: controller.signal })) {
      expect(step.tokens).toBe(1)
      controller.abort()
    }
  }
  await expect(aborted()).rejects.toThrow(/abort/i)
  expect(await answerOf(chat, messages)).toEqual(whole)
})
