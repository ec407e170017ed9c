import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { type Salmonn, setNumThreads, type Tensor, Tokenizer } from '../../../../lib/index.js'
import { promptSegments } from '../../../../lib/systems/salmonn/network/prompt.js'
import { directory, llamaModel } from '../../../text/helpers.js'
import { clip, tinySalmonn } from './tiny.js'

describe("a prompt with LLaMA's tokenizer", () => {
  const question = [1533, 10649, 5309, 29958, 1724, 437, 366, 8293, 29973, 13, 22933, 9047, 13566, 29901]

  it('has its text before and after a clip tokenised each by itself', async () => {
    await llamaModel()
    const special = { bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>' }
    const vicuna = { 'tokenizer_config.json': { ...special, tokenizer_class: 'LlamaTokenizer' } }
    const tokenizer = await Tokenizer.fromPretrained(directory('llama', vicuna))
    const text = 'USER: <Speech><SpeechHere></Speech> What do you hear?\nASSISTANT:'
    const [before, after] = await promptSegments(tokenizer, text, 1)
    expect(before).toEqual([3148, 1001, 29901, 529, 10649, 5309, 29958])
    expect(after).toEqual(question)
    // With the beginning and the 88 tokens of 30 s as published.
    expect(1 + (before as number[]).length + 88 + (after as number[]).length).toBe(110)
    expect(await promptSegments(tokenizer, 'USER: <SpeechHere>\nASSISTANT:', 1)).toEqual([
      [3148, 1001, 29901, 29871],
      [29871, 13, 22933, 9047, 13566, 29901],
    ])
    expect(await promptSegments(tokenizer, '\nASSISTANT: ', 0)).toEqual([[29871, 13, 22933, 9047, 13566, 29901, 29871]])
    expect(await promptSegments(tokenizer, 'two dogs bark</s>', 0)).toEqual([[1023, 26361, 289, 935, 2]])
  })
})

describe('a batch of prompts', () => {
  let model: Salmonn
  beforeAll(async () => {
    setNumThreads(1)
    model = await tinySalmonn()
  })
  afterAll(() => model.dispose())

  it('lies as it should: embeddings, mask and labels of rows of other lengths', async () => {
    const prompts = [
      { text: 'ab<SpeechHere>c', clips: [clip(1, 0.9)] },
      { text: '<SpeechHere>de<SpeechHere>', clips: [clip(2, 0.4), clip(3, 1.2)] },
      { text: 'only words', clips: [] },
    ]
    const targets = ['xy', 'z', 'pqrs']
    const heard = await Promise.all(prompts.map(({ clips }) => model.encodeAudio(clips)))
    const ids = (text: string) => [...model.tokenizer.encode(text, { addSpecialTokens: false }).inputIds]
    const table = (model.llm.get('model.embed_tokens') as unknown as { weight: Tensor }).weight.toArray() as number[][]
    const vectors = (text: string) => ids(text).map((id) => table[id] as number[])
    const sound = (row: number, i: number) => heard[row]?.[i]?.toArray() as number[][]
    const begin = [table[1] as number[]]
    const before = [
      [...begin, ...vectors('ab'), ...sound(0, 0), ...vectors('c')],
      [...begin, ...sound(1, 0), ...vectors('de'), ...sound(1, 1)],
      [...begin, ...vectors('only words')],
    ]
    const answers = targets.map((target) => ids(`${target}</s>`))
    expect(answers.map((answer) => answer.at(-1))).toEqual([2, 2, 2])
    const longest = Math.max(...before.map(({ length }, row) => length + (answers[row] as number[]).length))

    let seen = {} as { embeds: number[][][]; mask: number[][]; labels: number[][] }
    const spy = vi.spyOn(model.llm, 'forward').mockImplementation(async (inputs) => {
      const list = (tensor: Tensor | null | undefined) => tensor?.toArray() as never
      seen = { embeds: list(inputs.inputsEmbeds), mask: list(inputs.attentionMask), labels: list(inputs.labels) }
      return Object.getPrototypeOf(model.llm).forward.call(model.llm, inputs)
    })
    await model.forward({ prompts, targets })
    spy.mockRestore()
    for (const [row, prefix] of before.entries()) {
      const answer = answers[row] as number[]
      const whole = [...prefix, ...answer.map((id) => table[id] as number[])]
      const padding = longest - whole.length
      const blank = Array.from({ length: 16 }, () => 0)
      const wanted = [...whole, ...Array.from({ length: padding }, () => blank)]
      expect(seen.embeds[row]?.length).toBe(longest)
      wanted.flat().forEach((value, i) => {
        expect(seen.embeds[row]?.flat()[i]).toBeCloseTo(value, 5)
      })
      const fill = (count: number, value: number) => Array.from({ length: count }, () => value)
      expect(seen.mask[row]).toEqual([...fill(whole.length, 1), ...fill(padding, 0)])
      expect(seen.labels[row]).toEqual([...fill(prefix.length, -100), ...answer, ...fill(padding, -100)])
    }
  })

  it('cuts an answer that is too long to learn, its end included', async () => {
    const { config } = model
    const long = config.maxTextLength
    config.maxTextLength = 4
    const prompts = [{ text: 'a', clips: [] }]
    const [cut, same] = await Promise.all(
      ['bcdefgh', 'bcd'].map(async (target) => model.forward({ prompts, targets: [target] })),
    )
    config.maxTextLength = long
    expect([cut?.total, same?.total]).toEqual([4, 4])
    const whole = await model.forward({ prompts, targets: ['bcdefgh'] })
    expect(whole.total).toBe(9)
  })
})
