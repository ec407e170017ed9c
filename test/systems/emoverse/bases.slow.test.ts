import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { type DecoderLMConfig, InternVL, loadSafetensors, noGrad, scope, type Tensor } from '../../../lib/index.js'
import {
  EmoVerse,
  emoverseCollate,
  emoverseLoss,
  type TrainEmoVerseOptions,
  trainEmoVerse,
} from '../../../lib/systems/emoverse/index.js'
import { drawing, FACE_LABELS, face } from './faces.js'
import { asked, byteTokenizer, TINY, TINY_SEEING } from './tiny.js'

// The language models of the published 2B, 4B and 8B, whose projections are fused, from prompts to adapters and files.

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-bases-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

// The words tell the answer; a picture stands before them.
for (const [i, label] of FACE_LABELS.entries()) writeFileSync(join(folder, `${i}.ppm`), face(label, drawing(i)))
const pictured = (count: number) =>
  asked(count).map((one, i) => ({ ...one, images: [`${i % FACE_LABELS.length}.ppm`] }))
const LABELS = ['Pos.', 'Neg.', 'Fear.', 'Sad.']

const fast = {
  ...{ learningRate: 1e-2, batchSize: 6, accumulation: 1, gradientCheckpointing: false, validationShare: 0 },
}
const MEDIA = ['<img>', '</img>', '<IMG_CONTEXT>']
const PHI3 = ['<|system|>', '<|user|>', '<|assistant|>', '<|end|>']
const FACTORS = { type: 'su', shortFactor: [1, 1.1, 1.2, 1.3], longFactor: [1, 2, 3, 4] } as const
const BASES = {
  internlm2: {
    template: 'internlm2-chat',
    config: { modelType: 'internlm2', architectures: ['InternLM2ForCausalLM'], bias: false, ropeScaling: { type: 'dynamic', factor: 2 } },
    tokenizer: () => byteTokenizer([...MEDIA, '<s>']),
    text: (query: string, answer: string) =>
      `<s><|im_start|>system\nS<|im_end|><|im_start|>user\n${query}<|im_end|><|im_start|>assistant\n${answer}<|im_end|>`,
    end: '<|im_end|>',
    layers: ['attention.wqkv', 'attention.wo', 'feed_forward.w1', 'feed_forward.w2', 'feed_forward.w3'],
  },
  phi3: {
    template: 'phi3-chat',
    // All prompts of this file stay below the length at which factors change.
    config: { modelType: 'phi3', architectures: ['Phi3ForCausalLM'], originalMaxPositionEmbeddings: 256, ropeScaling: FACTORS, padTokenId: 0 },
    tokenizer: () => byteTokenizer([...MEDIA, '<s>'], PHI3),
    text: (query: string, answer: string) =>
      `<s><|system|>\nS<|end|><|user|>\n${query}<|end|><|assistant|>\n${answer}<|end|>`,
    end: '<|end|>',
    layers: ['self_attn.qkv_proj', 'self_attn.o_proj', 'mlp.gate_up_proj', 'mlp.down_proj'],
  },
} as const // biome-ignore format: long lines

async function made(name: keyof typeof BASES): Promise<EmoVerse> {
  const { template, config, tokenizer } = BASES[name]
  const words = await tokenizer()
  const llmConfig = { ...TINY, ...config, vocabSize: words.vocabSize } as unknown as DecoderLMConfig
  const model = InternVL.fromConfig({ ...TINY_SEEING, llmConfig, template }, { seed: 3 })
  return new EmoVerse({ model, tokenizer: words, system: 'S' })
} // biome-ignore format: long lines

const equal = (a: EmoVerse, b: EmoVerse) => {
  const [own, other] = [a.model.stateDict(), b.model.stateDict()]
  expect(Object.keys(own)).toEqual(Object.keys(other))
  for (const [name, tensor] of Object.entries(own)) expect(tensor.equal(other[name] as Tensor), name).toBe(true)
}

describe.each(['internlm2', 'phi3'] as const)('an EmoVerse on %s', (name) => {
  const { text, end, layers } = BASES[name]

  it('writes turns by its template, behind the token that begins a text, and learns the end of an answer', async () => {
    using model = await made(name)
    expect(model.template).toBe(name)
    const { inputIds, labels } = await model.encode({ query: '<image>Q', response: 'A', images: [join(folder, '0.ppm')] })
    const said = (ids: readonly number[]) => model.tokenizer.decode([...ids], { skipSpecialTokens: false })
    expect(said(inputIds)).toBe(text(`<img>${'<IMG_CONTEXT>'.repeat(4)}</img>\nQ`, 'A'))
    expect(inputIds[0]).toBe(model.tokenizer.bosTokenId)
    expect(said(labels.filter((id) => id !== -100))).toBe(`A${end}`)
  }) // biome-ignore format: long lines

  it('trains two stages on the fused projections, answers, and is the same again from its files', async () => {
    using model = await made(name)
    const lora = { loraDropout: 0 }
    const options: TrainEmoVerseOptions = {
      outputDir: join(folder, name),
      mediaRoot: folder,
      args: { progress: false, reportTo: 'none' },
      stages: [
        {
          data: pictured(60).filter(({ query }) => query.includes('sentiment')),
          recipe: { ...fast, epochs: 6 },
          lora,
        },
        { data: pictured(90), recipe: { ...fast, epochs: 12 }, lora },
      ],
    }
    const { stages, model: saved } = await trainEmoVerse(model, options)
    // Each layer's projections and both of the projector have an A and a B, and nothing else has.
    const wanted = [
      ...[0, 1].flatMap((i) => layers.map((layer) => `language_model.model.layers.${i}.${layer}`)),
      ...['mlp1.1', 'mlp1.3'],
    ].flatMap((path) => ['A', 'B'].map((part) => `base_model.model.${path}.lora_${part}.weight`))
    for (const { adapter } of stages) {
      const { tensors } = await loadSafetensors(join(adapter, 'adapter_model.safetensors'))
      expect(Object.keys(tensors).sort()).toEqual(wanted.sort())
      for (const [key, tensor] of Object.entries(tensors)) expect(tensor.abs().max().item(), key).toBeGreaterThan(0)
    }

    const place = { mediaRoot: folder }
    const questions = pictured(6)
    const written = await model.generate(questions, { ...place, maxNewTokens: 12 })
    using fresh = await made(name)
    let [learnt, unlearnt] = [0, 0]
    for (const [i, question] of questions.entries()) {
      let streamed = ''
      for await (const piece of model.stream(question, { ...place, maxNewTokens: 12 })) streamed += piece.text
      expect(streamed).toBe(written[i]?.text)
      const label = question.response as string
      learnt += (await model.scoreLabels(question, LABELS, place))[label] as number
      unlearnt += (await fresh.scoreLabels(question, LABELS, place))[label] as number
    }
    expect(learnt).toBeGreaterThan(unlearnt)
    // Likelihoods of labels are those of each behind the question by itself.
    const { query, images = [] } = questions[0] as (typeof questions)[number]
    const shares = await model.scoreLabels({ query, images }, LABELS, place)
    const weights = await Promise.all(
      LABELS.map((response) =>
        scope(() =>
          noGrad(async () => {
            const sample = await model.encode({ query, images, response }, place)
            const { logits } = await emoverseLoss(model, emoverseCollate([sample]))
            return Math.exp(-(((logits as Tensor).toArray() as number[][])[0]?.[0] as number))
          }),
        ),
      ),
    )
    const all = weights.reduce((sum, weight) => sum + weight, 0)
    for (const [i, label] of LABELS.entries()) expect(shares[label]).toBeCloseTo((weights[i] as number) / all, 4)

    using whole = await EmoVerse.fromPretrained(saved as string, { system: 'S' })
    using base = await made(name)
    await base.save(join(folder, `${name}-base`))
    const adapters = stages.map(({ adapter }) => adapter)
    using merged = await EmoVerse.fromPretrained({ base: join(folder, `${name}-base`), adapters }, { system: 'S' })
    for (const other of [whole, merged]) {
      expect([other.template, other.llm.config.modelType]).toEqual([name, name])
      equal(other, model)
      expect(await other.generate(questions, { ...place, maxNewTokens: 12 })).toEqual(written)
    }
    await whole.save(join(folder, `${name}-again`))
    using again = await EmoVerse.fromPretrained(join(folder, `${name}-again`), { system: 'S' })
    equal(again, model)
  })
})
