// The weights that `voxtorch weights` fetches, where they are in the user's cache; a test whose weights are absent is skipped
// under its name. test/reference/published.py has what transformers makes of them.
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import {
  Bert,
  DecoderLM,
  embedSentences,
  noGrad,
  pipeline,
  publishedWeights,
  scope,
  type Tensor,
  Tokenizer,
  tensor,
  Whisper,
  zeros,
} from '../../lib/index.js'
import { expectClose, fixturePath } from '../helpers.js'

const present = new Set(publishedWeights().flatMap(({ name, present }) => (present ? [name] : [])))
const here = (name: string) => it.skipIf(!present.has(name))
const expected = JSON.parse(readFileSync(fixturePath('models/published.json'), 'utf8')) as {
  smollm2: { prompt: string; ids: number[]; tokens: number[]; logits: number[] }[]
  minilm: { sentences: string[]; vectors: number[][] }
}

describe('published weights (npx voxtorch weights NAME)', () => {
  here('smollm2-135m-instruct')('smollm2-135m-instruct: ids, logits and greedy tokens of transformers', async () => {
    const tokenizer = await Tokenizer.fromPretrained('smollm2-135m-instruct')
    // Its values: what is computed in blocks is another test's.
    const model = await DecoderLM.fromPretrained('smollm2-135m-instruct', { quantize: false })
    for (const { prompt, ids, tokens, logits } of expected.smollm2) {
      await scope(async () => {
        expect(tokenizer.encode(prompt).inputIds).toEqual(ids)
        const inputIds = tensor([ids.map(BigInt)])
        const output = await noGrad(() => model.forward({ inputIds }))
        const last = (output.logits as Tensor).select(0, 0).select(0, -1)
        const most = Math.max(...(last.abs().toArray() as number[]))
        const own = (last.toArray() as number[]).slice(0, 8)
        for (const [i, value] of own.entries()) {
          expect(Math.abs(value - (logits[i] as number)) / most).toBeLessThan(1e-4)
        }
        const greedy = { maxNewTokens: tokens.length, doSample: false, eosTokenId: null }
        const made = await model.generate({ inputIds }, greedy)
        expect(Array.from(made.tokens[0] as ArrayLike<number>, Number)).toEqual(tokens)
      })
    }
    const chat = tokenizer.applyChatTemplate([{ role: 'user', content: 'Hi' }], {
      tokenize: false,
      addGenerationPrompt: true,
    })
    expect(chat).toMatch(/^<\|im_start\|>system\n[\s\S]*<\|im_start\|>user\nHi<\|im_end\|>\n<\|im_start\|>assistant\n$/)
    model.dispose()
  })

  here('minilm')('minilm: vectors of transformers, by hand and in a pipeline', async () => {
    const { sentences, vectors } = expected.minilm
    const model = await Bert.fromPretrained('minilm')
    const made = await embedSentences(model, await Tokenizer.fromPretrained('minilm'), sentences, { normalize: true })
    expectClose(made, tensor(vectors), 1e-5)
    using extractor = await pipeline('feature-extraction', 'minilm')
    expectClose(await extractor(sentences, { pooling: 'mean', normalize: true }), tensor(vectors), 1e-5)
  })

  for (const [name, languages] of [
    ['whisper-base', 99],
    ['whisper-tiny.en', 0],
  ] as const) {
    here(name)(`${name}: tokenizer, heads and suppressed tokens of the folder`, async () => {
      const whisper = await Whisper.fromPretrained(name)
      expect(Object.keys(whisper.tokens.languages).length).toBe(languages)
      expect(whisper.alignmentHeads.length).toBe(8)
      expect(whisper.generationConfig.suppressTokens?.length).toBeGreaterThan(80)
      expect(whisper.tokenizer?.encode(' Hello', { addSpecialTokens: false }).inputIds).toEqual([
        languages ? 2425 : 18435,
      ])
      const { segments } = await whisper.transcribe(zeros([16_000]), languages ? { language: 'en' } : {})
      expect(Array.isArray(segments)).toBe(true)
      whisper.dispose()
    })
  }
})
