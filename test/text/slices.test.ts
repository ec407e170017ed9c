import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import type { Tokenizer } from '../../lib/index.js'
import { Tokenizer as Tokenizers } from '../../lib/index.js'
import { Pipeline } from '../../lib/text/pipeline.js'
import { isHere, json, llamaModel, published } from './helpers.js'

afterEach(() => {
  vi.restoreAllMocks()
})

/** Lines of many scripts, in a long text; numbers of an own generator decide what stands between them. */
const long = (size: number): string => {
  const lines = json<string[]>('lines')
  const between = ['\n', ' ', '\n\n', '. ', ', ', '\t', '   ', '。', " it's ", '']
  let [text, state] = ['', 7]
  while (text.length < size) {
    state = (state * 48_271) % 2_147_483_647
    text += (lines[state % lines.length] as string) + between[(state >>> 8) % between.length]
  }
  return text
}
/** What the pipeline reads: how often, how many characters in all, and how many each time. */
const watched = () => {
  const run = vi.spyOn(Pipeline.prototype, 'runUnhurried')
  return () => {
    const sizes = run.mock.calls.map(([text]) => text.length)
    return [sizes.length, sizes.reduce((sum, size) => sum + size, 0), sizes] as const
  }
}

describe.skipIf(!isHere('qwen2'))('a text in slices', () => {
  let qwen2: Tokenizer
  beforeAll(async () => {
    qwen2 = await Tokenizers.fromFile(published.qwen2)
  })

  it('has the ids of the whole text', async () => {
    const text = long(400_000)
    const whole = qwen2.encode(text, { addSpecialTokens: false }).inputIds
    const read = watched()
    expect(await qwen2.encodeWithin(text, { maxTokens: 1e6 })).toEqual(whole)
    const [times, characters] = read()
    expect(times).toBeGreaterThan(15)
    expect(characters).toBe(text.length)
    expect(await qwen2.encodeWithin(text, { maxTokens: whole.length })).toEqual(whole)
    expect(await qwen2.encodeWithin(text, { maxTokens: whole.length - 1 })).toBeUndefined()
    expect(await qwen2.encodeWithin('', { maxTokens: 0 })).toEqual([])
  })

  it('has them with added tokens across the ends of words too', async () => {
    const tokenizer = await Tokenizers.fromFile(published.qwen2)
    tokenizer.addTokens(['end of', 'x. y', { content: '<pad>', lstrip: true }])
    const text = `${'the end of x. y  <pad> and <|im_start|>it goes on,\nagain '.repeat(2000)}end`
    const whole = tokenizer.encode(text, { addSpecialTokens: false }).inputIds
    expect(await tokenizer.encodeWithin(text, { maxTokens: 1e6 })).toEqual(whole)
    // What takes the blanks behind it along may stand in front of any slice.
    tokenizer.addTokens([{ content: 'goes', rstrip: true }])
    const other = tokenizer.encode(text, { addSpecialTokens: false }).inputIds
    expect(await tokenizer.encodeWithin(text, { maxTokens: 1e6 })).toEqual(other)
  })

  it('is read no further than it takes to know that it is too long', async () => {
    const text = long(1_000_000)
    for (const found of [
      (one: string) => qwen2.encodeWithin(one, { maxTokens: 4096 }).then((ids) => ids === undefined),
      (one: string) => qwen2.exceeds(one, { maxTokens: 4096 }),
    ]) {
      for (const one of [text, 'x'.repeat(1_000_000), '漢'.repeat(1_000_000)]) {
        const read = watched()
        expect(await found(one)).toBe(true)
        expect(read()[1]).toBeLessThan(400_000)
        vi.restoreAllMocks()
      }
    }
  })

  it('has them where no word ends', async () => {
    for (const one of [' '.repeat(70_000), `end${' '.repeat(70_000)}x`, `a${'1'.repeat(70_000)}`]) {
      const whole = qwen2.encode(one, { addSpecialTokens: false }).inputIds
      expect(await qwen2.encodeWithin(one, { maxTokens: 1e6 })).toEqual(whole)
      expect(await qwen2.exceeds(one, { maxTokens: 1e6 })).toBe(false)
    }
  })

  it('lets other work run, and ends with its signal', async () => {
    const text = long(400_000)
    let turns = 0
    const count = () => {
      turns += 1
      timer = setImmediate(count)
    }
    let timer = setImmediate(count)
    await qwen2.encodeWithin(text, { maxTokens: 1e6 })
    clearImmediate(timer)
    expect(turns).toBeGreaterThan(15)
    const control = new AbortController()
    setImmediate(() => control.abort(new Error('gone')))
    await expect(qwen2.exceeds(text, { maxTokens: 1e6, signal: control.signal })).rejects.toThrow('gone')
    await expect(qwen2.encodeWithin(text, { maxTokens: -1 })).rejects.toMatchObject({ code: 'ERR_CONFIG' })
  })
})

it('a tokenizer whose words are not cut apart gives the same ids, and refuses as soon', async () => {
  const llama = await llamaModel()
  const text = long(60_000)
  const whole = llama.encode(text, { addSpecialTokens: false }).inputIds
  expect(await llama.encodeWithin(text, { maxTokens: whole.length })).toEqual(whole)
  expect(await llama.encodeWithin(text, { maxTokens: whole.length - 1 })).toBeUndefined()
  const read = watched()
  expect(await llama.encodeWithin(long(1_000_000), { maxTokens: 2048 })).toBeUndefined()
  expect(read()[1]).toBeLessThan(150_000)
})

it('a text that is encoded while other work runs has the same tokens, and ends with its signal', async () => {
  const llama = await llamaModel()
  const text = long(60_000)
  const options = { truncation: true, maxLength: 500, addSpecialTokens: true } as const
  expect(await llama.encodeAsync(text, options)).toEqual(llama.encode(text, options))
  expect(await llama.encodeAsync(['one', text])).toEqual(llama.encode(['one', text]))
  const control = new AbortController()
  setImmediate(() => control.abort(new Error('gone')))
  await expect(llama.encodeAsync(long(1_000_000), { signal: control.signal })).rejects.toThrow('gone')
  await expect(llama.encodeAsync(text, { most: 1 } as object)).rejects.toMatchObject({ code: 'ERR_CONFIG' })
})
