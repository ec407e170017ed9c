import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { chatModels } from '../../lib/cli/chat-models.js'
import { ConfigError, DecoderLM, memoryStats, setNumThreads, Tokenizer, tensor } from '../../lib/index.js'
import { type Served, serve, TextChat } from '../../lib/serve/index.js'
import { Pipeline } from '../../lib/text/pipeline.js'
import { ask, begin, call, events, sound, text, until, user } from './client.js'
import { writeTextModel } from './text-model.mjs'

const directory = mkdtempSync(join(tmpdir(), 'voxtorch-serve-text-'))
let model: DecoderLM
let tokenizer: Tokenizer
let chat: TextChat
let served: Served
beforeAll(async () => {
  setNumThreads(1)
  await writeTextModel(directory, DecoderLM)
  model = await DecoderLM.fromPretrained(directory)
  tokenizer = await Tokenizer.fromPretrained(directory)
  chat = new TextChat(model, tokenizer, { name: 'tiny', batching: { maxNumBatchedTokens: 32, prefixCacheBytes: 1e8 } })
  served = await serve(chat)
})
afterAll(async () => {
  await served?.close({ now: true })
  chat?.dispose()
  model?.dispose()
  rmSync(directory, { recursive: true, force: true })
})

const system = {
  role: 'system',
  content: 'You answer in the manner of a very small network, which is to say in no manner.',
}
const asking = (question: string, more: object = {}) => ({
  messages: [system, { role: 'user', content: question }],
  max_tokens: 24,
  ...more,
})
/** What the network writes behind the conversation, by itself. */
const alone = async (question: string, config: object = {}) => {
  const ids = tokenizer.applyChatTemplate([system, { role: 'user', content: question }], { addGenerationPrompt: true })
  const inputIds = tensor([ids])
  const { tokens } = await model.generate({ inputIds }, { maxNewTokens: 24, ...config })
  inputIds.dispose()
  return tokenizer.decode(tokens[0] as number[], { skipSpecialTokens: true })
}
const numbers = async () =>
  Object.fromEntries(
    (await call(served.url, '/metrics')).text
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => line.split(' '))
      .map(([name, value]) => [name, Number(value)]),
  )

describe('a language model that is served', () => {
  it('gives twelve clients at once, whole and streamed, what each would get alone', async () => {
    const questions = Array.from({ length: 12 }, (_, i) => `Question ${i}: ${'why '.repeat(i * 3)}?`)
    const replies = await Promise.all(
      questions.map((question, i) => ask(served.url, asking(question, { stream: i % 2 === 1 }))),
    )
    for (const [i, reply] of replies.entries()) {
      expect(reply.status).toBe(200)
      const said =
        i % 2 === 0
          ? reply.json.choices[0].message.content
          : events(reply)
              .slice(0, -1)
              .map((event) => JSON.parse(event).choices[0]?.delta.content ?? '')
              .join('')
      expect(said).toBe(await alone(questions[i] as string))
    }
  })

  it('tells how much of a prompt had been read before, in usage and /metrics', async () => {
    const before = await numbers()
    const first = await ask(served.url, asking('Once?'))
    const again = await ask(served.url, asking('Once?'))
    const streamed = await ask(
      served.url,
      asking('Once more?', { stream: true, stream_options: { include_usage: true } }),
    )
    const { usage } = again.json
    expect(usage.prompt_tokens_details.cached_tokens).toBe(usage.prompt_tokens - 1)
    expect(again.json.choices[0].message.content).toBe(first.json.choices[0].message.content)
    const last = JSON.parse(events(streamed).at(-2) as string).usage
    expect(last.prompt_tokens_details.cached_tokens).toBeGreaterThan(80)
    const after = await numbers()
    const grown = (name: string) => (after[name] as number) - (before[name] ?? 0)
    const all = [first.json.usage, usage, last]
    const sum = (of: (one: (typeof all)[0]) => number) => all.map(of).reduce((a, b) => a + b)
    await expect
      .poll(async () => (await numbers())['voxtorch_requests_total{status="200"}'])
      .toBe((before['voxtorch_requests_total{status="200"}'] ?? 0) + 3)
    expect(grown('voxtorch_prompt_tokens_total')).toBe(sum((one) => one.prompt_tokens))
    expect(grown('voxtorch_cached_prompt_tokens_total')).toBe(sum((one) => one.prompt_tokens_details.cached_tokens))
    expect(grown('voxtorch_completion_tokens_total')).toBe(sum((one) => one.completion_tokens))
    expect(after.voxtorch_prefix_cache_bytes).toBeGreaterThan(0)
    expect(after.voxtorch_batch_running).toBe(0)
  })

  it('samples, searches and stops as it is asked to', async () => {
    const sampled = async (seed: number) => {
      const { json } = await ask(served.url, asking('Dice?', { temperature: 1.5, seed }))
      return json.choices[0].message.content
    }
    const [a, b, c] = await Promise.all([sampled(1), sampled(1), sampled(2)])
    expect(a).toBe(b)
    expect(a).not.toBe(c)
    const beams = await ask(served.url, asking('Beams?', { num_beams: 3 }))
    expect(beams.json.choices[0].message.content).toBe(await alone('Beams?', { numBeams: 3 }))
    const whole = await alone('Stop?')
    const stop = whole.slice(4, 7)
    const stopped = await ask(served.url, asking('Stop?', { stop }))
    expect(stopped.json.choices[0].message.content).toBe(whole.slice(0, whole.indexOf(stop)))
  })

  it('refuses what it cannot read in a sentence', async () => {
    const heard = await ask(served.url, { messages: [user(sound(), text('What?'))] })
    expect([heard.status, heard.json.error.message]).toEqual([
      400,
      'tiny: messages[0]: expected text, got a part of type audio.',
    ])
    const long = await ask(served.url, asking('x'.repeat(4090)))
    expect(long.status).toBe(400)
    expect(long.json.error.message).toMatch(
      /expected at most 4096 tokens .* leaves \d+ for the answer, and maxNewTokens is 24/,
    )
    // As long as a request may be: nothing of it is encoded, for no token has more bytes than the longest.
    const run = vi.spyOn(Pipeline.prototype, 'runUnhurried')
    const huge = await ask(served.url, asking('word '.repeat(190_000)))
    expect(huge.json.error.message).toMatch(/has more than 4096, which leaves 0 for the answer|at most 4096 tokens/)
    expect(run).not.toHaveBeenCalled()
    run.mockRestore()
    const beyond = await ask(served.url, asking('word '.repeat(3_000_000)))
    expect([beyond.status, beyond.json.error.code]).toEqual([400, 'text_too_long'])
    expect(() => new TextChat(model, tokenizer, { nam: 'x' } as object)).toThrow(/name/)
    expect(() => new TextChat(model, tokenizer, { batching: { maxNumSeq: 1 } as object })).toThrow(/maxNumSeqs/)
    const { chatTemplate } = tokenizer
    tokenizer.chatTemplate = null
    expect(() => new TextChat(model, tokenizer)).toThrow(ConfigError)
    tokenizer.chatTemplate = chatTemplate
  })

  it('ends the answer of a client that has gone, and frees its place', async () => {
    const requests = Array.from({ length: 8 }, () =>
      begin(served.url, asking('Go on', { max_tokens: 2000, stream: true })),
    )
    await until(() => chat.metrics().batch_running === 8)
    for (const { abort } of requests) abort()
    const after = await ask(served.url, asking('And now?'))
    expect(after.json.choices[0].message.content).toBe(await alone('And now?'))
    await until(() => chat.metrics().batch_running === 0)
    chat.dispose()
    await until(() => memoryStats().kvCacheBytes === 0)
  })
})

it('is loaded by `voxtorch serve text`, under the name of its folder', async () => {
  const loaded = (await chatModels.text?.(directory, {})) as TextChat
  expect(directory.endsWith(loaded.name)).toBe(true)
  expect(loaded.concurrent).toBe(8)
  loaded.dispose()
  loaded.model.dispose()
})
