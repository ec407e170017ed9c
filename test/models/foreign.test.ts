import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { readCTranslate2, saveGguf } from '../../lib/files/index.js'
import {
  CheckpointError,
  ConfigError,
  DecoderLM,
  type DecoderLMConfig,
  noGrad,
  ones,
  type PeftModel as Peft,
  PeftModel,
  quantize,
  Roberta,
  readGguf,
  saveGgufAdapter,
  scope,
  type Tensor,
  Tokenizer,
  tensor,
  Whisper,
  WhisperEncoder,
} from '../../lib/index.js'
import { quantizationOf } from '../../lib/nn/quantized-weight.js'
import { readProto } from '../../lib/text/sentencepiece/proto.js'
import { expectClose, fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-foreign-'))
afterAll(() => rmSync(folder, { recursive: true }))
const decoders = await fixture<{ name: string }>('files/decoder-gguf')
const fused = await fixture<{ name: string }>('files/decoder-gguf-fused')
const whispers = await fixture<{ name: string }>('files/ctranslate2')

async function stored(file: typeof decoders, name: string, path: string): Promise<string> {
  const { file: bytes } = tensorsOf(file, name, 'in') as { file: Tensor }
  writeFileSync(path, (await bytes.data()) as Uint8Array)
  return path
}

const logitsOf = async (model: DecoderLM, inputIds: Tensor): Promise<Tensor> =>
  (await noGrad(() => model.forward({ inputIds }))).logits as Tensor

describe('DecoderLM of GGUF files, as transformers computes with the same tensors', () => {
  it.each(decoders.cases)('$name', async ({ name }) => {
    const path = await stored(decoders, name, join(folder, 'model.gguf'))
    const { input_ids: ids } = tensorsOf(decoders, name, 'in') as { input_ids: Tensor }
    const { logits } = tensorsOf(decoders, name, 'out') as { logits: Tensor }
    const before = await settledTensors()
    const model = await DecoderLM.fromPretrained(path)
    await scope(async () => expectClose(await logitsOf(model, ids), logits, 1e-5))
    expect(model.generationConfig).toMatchObject({ bosTokenId: 1, eosTokenId: 2 })
    expect(model.config).toMatchObject({ rmsNormEps: 1e-5, tieWordEmbeddings: /^(llama|gemma\d)$/.test(name) })
    model.dispose()
    expect(await settledTensors()).toBe(before)
  })

  it.each(fused.cases)('$name', async ({ name }) => {
    const path = await stored(fused, name, join(folder, 'model.gguf'))
    const { input_ids: ids } = tensorsOf(fused, name, 'in') as { input_ids: Tensor }
    const { logits } = tensorsOf(fused, name, 'out') as { logits: Tensor }
    const before = await settledTensors()
    const model = await DecoderLM.fromPretrained(path)
    await scope(async () => expectClose(await logitsOf(model, ids), logits, 1e-5))
    expect(model.config.modelType).toBe(name === 'internlm2' ? 'llama' : 'phi3')
    model.dispose()
    expect(await settledTensors()).toBe(before)
  })

  it.each(decoders.cases)('$name, written again', async ({ name }) => {
    const path = await stored(decoders, name, join(folder, 'model.gguf'))
    const { input_ids: ids } = tensorsOf(decoders, name, 'in') as { input_ids: Tensor }
    const model = await DecoderLM.fromPretrained(path)
    const again = join(folder, 'again.gguf')
    await model.saveGguf(again, { type: 'F32' })
    const [theirs, ours] = [await readGguf(path), await readGguf(again)]
    expect(Object.keys(ours.tensors).sort()).toEqual(Object.keys(theirs.tensors).sort())
    for (const key of Object.keys(theirs.metadata).filter((key) => key.includes('.') && !key.startsWith('general'))) {
      expect([key, ours.metadata[key]]).toEqual([key, theirs.metadata[key]])
    }
    const [a, b] = [await theirs.load(), await ours.load()]
    for (const key of Object.keys(a)) expectClose(b[key] as Tensor, a[key] as Tensor, 1e-6, key)
    const copy = await DecoderLM.fromPretrained(again, { dtype: 'float64' })
    const exact = await DecoderLM.fromPretrained(path, { dtype: 'float64' })
    expectClose(await logitsOf(copy, ids), await logitsOf(exact, ids), 1e-7)
  })

  it("a scaling's magnitude is written, or refused where llama.cpp has no key for it", async () => {
    const small = {
      vocabSize: 40,
      hiddenSize: 16,
      intermediateSize: 24,
      numHiddenLayers: 1,
      numAttentionHeads: 2,
      numKeyValueHeads: 1,
      headDim: 8,
      initializerRange: 0.5,
    }
    const yarn = { ropeType: 'yarn', factor: 4, originalMaxPositionEmbeddings: 16 }
    const path = join(folder, 'magnitude.gguf')
    const made = (modelType: 'llama' | 'ministral3', more: object) =>
      DecoderLM.fromConfig({ ...small, modelType, ropeParameters: { ...yarn, ...more } } as DecoderLMConfig, {
        seed: 3,
      })
    const ids = tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    for (const more of [{}, { attentionFactor: 1.5 }, { mscale: 0.7, mscaleAllDim: 1.5 }]) {
      const model = made('llama', more).eval()
      await model.saveGguf(path, { type: 'F32' })
      const loaded = await DecoderLM.fromPretrained(path)
      expectClose(await logitsOf(loaded, ids), await logitsOf(model, ids), 1e-5, JSON.stringify(more))
    }
    const refused = (more: object) => expect(made('ministral3', more).saveGguf(path)).rejects
    await refused({ attentionFactor: 1.5 }).toThrow(/ropeParameters\.attentionFactor: expected none.*got 1\.5/)
    await refused({ mscale: 0.7, mscaleAllDim: 1 }).toThrow(/ropeParameters\.mscale: expected mscale 1.*got 0\.7/)
    const without = made('ministral3', { ropeType: 'default', factor: undefined })
    await without.saveGguf(path, { type: 'F32' })
    const loaded = await DecoderLM.fromPretrained(path)
    expectClose(await logitsOf(loaded, ids), await logitsOf(without.eval(), ids), 1e-5)
  })

  it('a folder that has one file, bfloat16, int8, and what is refused', async () => {
    const place = join(folder, 'alone')
    mkdirSync(place)
    const path = await stored(decoders, 'llama', join(place, 'model.gguf'))
    expect((await DecoderLM.fromPretrained(place, { dtype: 'bfloat16' })).parameters()[0]?.dtype).toBe('bfloat16')
    await DecoderLM.fromPretrained(place, { quantize: 'int8' })
    await expect(Roberta.fromPretrained(path)).rejects.toThrow(/expected a RobertaModel, got a GGUF file/)
    await stored(decoders, 'llama', join(place, 'other.gguf'))
    await expect(DecoderLM.fromPretrained(place)).rejects.toThrow(
      /expected one GGUF model in the folder, got 2.*model\.gguf, other\.gguf/,
    )
    const bad = join(folder, 'bad.gguf')
    const weights = { 'token_embd.weight': ones([4, 8]) }
    const llama = { 'general.architecture': 'llama', 'llama.block_count': 1, 'llama.context_length': 8 }
    for (const [metadata, says] of [
      [{ 'general.architecture': 'gpt2' }, /general\.architecture: expected llama, mistral3, qwen2, .*, got gpt2/],
      [llama, /llama\.embedding_length: expected a number, got none/],
    ] as const) {
      await saveGguf(bad, weights, { metadata })
      await expect(DecoderLM.fromPretrained(bad)).rejects.toThrow(ConfigError)
      await expect(DecoderLM.fromPretrained(bad)).rejects.toThrow(says)
    }
    await saveGguf(bad, weights, { metadata: { ...llama, 'split.count': 3 } })
    await expect(DecoderLM.fromPretrained(bad)).rejects.toThrow(/file 1 of a model in 3/)
    await saveGguf(bad, weights, { metadata: llama })
    await expect(Tokenizer.fromFile(bad)).rejects.toThrow(/expected a file with a tokenizer/)
  })
})

describe('experts, which GGUF files stack', () => {
  const EXPERTS: DecoderLMConfig = {
    modelType: 'qwen3_moe',
    vocabSize: 64,
    hiddenSize: 64,
    intermediateSize: 96,
    numHiddenLayers: 2,
    numAttentionHeads: 4,
    numKeyValueHeads: 2,
    headDim: 16,
    maxPositionEmbeddings: 64,
    numExperts: 5,
    numExpertsPerTok: 2,
    moeIntermediateSize: 32,
    normTopkProb: true,
  }
  const ids = tensor([[3, 9, 27, 17, 51, 25, 11, 33]])

  it('stay quantized, with the numbers of each expert alone, and are written unchanged', async () => {
    const model = new DecoderLM(EXPERTS).eval()
    noGrad(() => model.parameters().forEach((one) => void (one.dim() === 2 && one.mul_(4))))
    const path = join(folder, 'experts.gguf')
    await model.saveGguf(path, { type: 'Q8_0' })
    const { tensors } = await readGguf(path)
    expect(tensors['blk.0.ffn_down_exps.weight']).toMatchObject({ type: 'Q8_0', shape: [5, 64, 32] })
    expect(tensors['blk.0.ffn_gate_inp.weight']).toMatchObject({ type: 'F32', shape: [5, 64] })
    const packed = await DecoderLM.fromPretrained(path)
    const path0 = 'model.layers.1.mlp.experts.3.up_proj'
    expect(quantizationOf(packed.get(path0))?.scheme).toBe('q8_0')
    const values = await DecoderLM.fromPretrained(path, { quantize: false })
    expectClose(await logitsOf(packed, ids), await logitsOf(values, ids), 0.02)
    const down = values.stateDict()['model.layers.1.mlp.experts.4.down_proj.weight'] as Tensor
    const own = model.stateDict()['model.layers.1.mlp.experts.4.down_proj.weight'] as Tensor
    expectClose(down, own, 0.01)
    const again = join(folder, 'experts-again.gguf')
    await packed.saveGguf(again, { type: 'F16' })
    const [a, b] = [await readGguf(path), await readGguf(again)]
    for (const name of ['blk.0.ffn_gate_exps.weight', 'blk.1.ffn_down_exps.weight']) {
      expect((await a.blocks(name)).equal(await b.blocks(name)), name).toBe(true)
    }
  })

  it('have adapters in stacks, whose products are what merging adds', async () => {
    const model = new DecoderLM(EXPERTS).eval()
    const peft: Peft<DecoderLM> = new PeftModel(model)
    peft.addAdapter('mine', { r: 2, loraAlpha: 6, targetModules: ['up_proj', 'gate'], initLoraWeights: false })
    const [base, adapter, merged] = ['base', 'adapter', 'merged'].map((name) => join(folder, `experts-${name}.gguf`))
    await model.saveGguf(base as string, { type: 'F32', withoutAdapters: true })
    await saveGgufAdapter(adapter as string, peft)
    await peft.mergeAndUnload().saveGguf(merged as string, { type: 'F32' })
    const [before, delta, sum] = await Promise.all(
      [base, adapter, merged].map(async (one) => (await readGguf(one as string)).load()),
    )
    expect(delta!['blk.0.ffn_up_exps.weight.lora_a']?.shape).toEqual([5, 2, 64])
    for (const name of ['blk.0.ffn_up_exps.weight', 'blk.1.ffn_up_exps.weight', 'blk.1.ffn_gate_inp.weight']) {
      const [A, B] = [delta![`${name}.lora_a`] as Tensor, delta![`${name}.lora_b`] as Tensor]
      expectClose((before![name] as Tensor).add(B.matmul(A).mul(6 / 2)), sum![name] as Tensor, 1e-5, name)
    }
  })

  it('are refused where llama.cpp computes another network, or has no tensor for them', async () => {
    const to = join(folder, 'no.gguf')
    const dense = new DecoderLM({ ...EXPERTS, mlpOnlyLayers: [0] })
    await expect(dense.saveGguf(to)).rejects.toThrow(
      /mlpOnlyLayers: expected an array of length 0, which llama.cpp has for every qwen3_moe/,
    )
    await expect(new DecoderLM({ ...EXPERTS, normTopkProb: false }).saveGguf(to)).rejects.toThrow(
      /normTopkProb: expected true/,
    )
    const some = new PeftModel(new DecoderLM(EXPERTS))
    some.addAdapter('some', { r: 2, targetModules: ['experts.1.up_proj'] })
    await expect(saveGgufAdapter(to, some)).rejects.toThrow(/ffn_up_exps.*expected LoRA of one rank on all 5 experts/)
    const mixed = new DecoderLM(EXPERTS)
    await quantize(mixed, { scheme: 'q8_0', modules: 'model.layers.0.mlp.experts.1' })
    await expect(mixed.saveGguf(to)).rejects.toThrow(/ffn_\w+_exps.*expected all experts of the layer in one type/)
    const flat = { 'blk.0.ffn_up_exps.weight': ones([10, 4]), 'token_embd.weight': ones([4, 8]) }
    const sizes = {
      ...{ block_count: 1, context_length: 8, embedding_length: 8, feed_forward_length: 4, expert_count: 5 },
      ...{ expert_used_count: 2, 'attention.head_count': 1 },
    }
    const metadata = Object.fromEntries(Object.entries(sizes).map(([key, value]) => [`llama.${key}`, value]))
    await saveGguf(to, flat, { metadata: { 'general.architecture': 'llama', ...metadata } })
    await expect(DecoderLM.fromPretrained(to)).rejects.toThrow(/ffn_up_exps.weight: expected a stack of experts with 3/)
  })
})

describe('adapters', () => {
  it('are a file of their own, whose product is what merging adds', async () => {
    const path = await stored(decoders, 'llama', join(folder, 'base.gguf'))
    const model = await DecoderLM.fromPretrained(path)
    const peft: Peft<DecoderLM> = new PeftModel(model)
    peft.addAdapter('mine', {
      r: 2,
      loraAlpha: 6,
      targetModules: ['q_proj', 'k_proj', 'down_proj'],
      initLoraWeights: false,
    })
    const adapter = join(folder, 'adapter.gguf')
    await saveGgufAdapter(adapter, peft)
    const warning = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    await model.saveGguf(join(folder, 'without.gguf'), { type: 'F32' })
    expect(warning.mock.calls.flat().join()).toMatch(/without its adapters/)
    warning.mockRestore()
    const merged = join(folder, 'merged.gguf')
    await peft.mergeAndUnload().saveGguf(merged, { type: 'F32' })
    const [base, delta, sum] = await Promise.all(
      [path, adapter, merged].map(async (one) => (await readGguf(one)).load()),
    )
    expect((await readGguf(adapter)).metadata).toMatchObject({ 'adapter.type': 'lora', 'adapter.lora.alpha': 6 })
    const names = Object.keys(delta as object).filter((name) => name.endsWith('.lora_a'))
    expect(names.length).toBe(6)
    for (const name of names.map((name) => name.slice(0, -'.lora_a'.length))) {
      const [A, B] = [delta![`${name}.lora_a`] as Tensor, delta![`${name}.lora_b`] as Tensor]
      // llama.cpp: alpha / rank
      expectClose((base![name] as Tensor).add(B.matmul(A).mul(6 / 2)), sum![name] as Tensor, 1e-5, name)
    }
  })

  it('that llama.cpp has no place for are refused', async () => {
    const model = await DecoderLM.fromPretrained(await stored(decoders, 'llama', join(folder, 'base.gguf')))
    const peft = new PeftModel(model)
    peft.addAdapter('dora', { r: 2, targetModules: ['q_proj'], useDora: true })
    await expect(saveGgufAdapter(join(folder, 'no.gguf'), peft)).rejects.toThrow(/DoRA/)
    await expect(saveGgufAdapter(join(folder, 'no.gguf'), {} as never)).rejects.toThrow(/PeftModel/)
  })
})

describe('tokenizers in GGUF files', () => {
  it('SentencePiece: the ids of the .model, and it is written again', async () => {
    const bytes = gunzipSync(readFileSync(fixturePath('text/bpe-bytes.model.gz')))
    const model = join(folder, 'tokenizer.model')
    writeFileSync(model, bytes)
    const proto = readProto(bytes, model)
    const path = join(folder, 'pieces.gguf')
    const ids = { bos_token_id: proto.bosId, eos_token_id: proto.eosId, unknown_token_id: proto.unkId }
    const metadata = {
      'tokenizer.ggml.model': 'llama',
      'tokenizer.ggml.tokens': proto.pieces,
      'tokenizer.ggml.scores': proto.scores,
      'tokenizer.ggml.token_type': Int32Array.from(proto.types),
      'tokenizer.ggml.add_space_prefix': proto.normalizer.addDummyPrefix,
      'tokenizer.ggml.remove_extra_whitespaces': proto.normalizer.removeExtraWhitespaces,
      'tokenizer.ggml.add_bos_token': false,
      'tokenizer.chat_template': '{{ messages[0].content }}',
      ...Object.fromEntries(Object.entries(ids).map(([key, id]) => [`tokenizer.ggml.${key}`, id])),
    }
    await saveGguf(path, {}, { metadata })
    const [own, read] = [await Tokenizer.fromFile(model), await Tokenizer.fromFile(path)]
    expect([read.vocabSize, read.eosTokenId, read.chatTemplate]).toEqual([
      own.vocabSize,
      proto.eosId,
      '{{ messages[0].content }}',
    ])
    for (const text of ['Hello world', 'ein  Haus', 'été 東京 🙂', 'a\nb', '']) {
      expect(read.encode(text).inputIds).toEqual(own.encode(text).inputIds)
      expect(read.decode(read.encode(text).inputIds)).toBe(own.decode(own.encode(text).inputIds))
    }
    await saveGguf(path, {}, { metadata: read.ggufMetadata(proto.pieces.length + 3) })
    const again = await Tokenizer.fromFile(path)
    expect(again.encode('été und so').inputIds).toEqual(own.encode('été und so').inputIds)
  })

  it('byte-level: what stands around a text is saved where transformers reads it', async () => {
    interface Case {
      pre: string
      flags: Record<string, boolean>
      post_processor: unknown
      single: number[]
      pair: number[]
    }
    const text = readFileSync(fixturePath('text/gguf-saved.json'), 'utf8')
    const { tokens, cases } = JSON.parse(text) as { tokens: string[]; cases: Case[] }
    const isControl = (token: string) => token === '<|end|>' || token === '<s>'
    for (const [i, { pre, flags, post_processor, single, pair }] of cases.entries()) {
      const path = join(folder, `saved-${i}`)
      const metadata = {
        'tokenizer.ggml.model': 'gpt2',
        'tokenizer.ggml.pre': pre,
        'tokenizer.ggml.tokens': tokens,
        'tokenizer.ggml.token_type': Int32Array.from(tokens, (one) => (isControl(one) ? 3 : one === '<think>' ? 4 : 1)),
        'tokenizer.ggml.merges': ['h e', 'Ġ he', '1 2'],
        'tokenizer.ggml.bos_token_id': tokens.indexOf('<s>'),
        'tokenizer.ggml.eos_token_id': tokens.indexOf('<|end|>'),
        ...flags,
      }
      await saveGguf(`${path}.gguf`, {}, { metadata })
      const tokenizer = await Tokenizer.fromFile(`${path}.gguf`)
      tokenizer.saveTo(path)
      // transformers' ids are those of this file.
      expect(JSON.parse(readFileSync(join(path, 'tokenizer.json'), 'utf8')).post_processor).toEqual(post_processor)
      for (const one of [tokenizer, await Tokenizer.fromPretrained(path)]) {
        expect(one.encode('he 12he').inputIds).toEqual(single)
        expect(one.encode(['he', '12']).inputIds).toEqual(pair)
      }
    }
    expect(cases.filter(({ single }) => single[0] === tokens.indexOf('<s>')).length).toBe(5)
  })

  it('byte-level: every way of cutting words that has a name', async () => {
    const alphabet = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i))
    const tokens = [...alphabet, 'Ġ', 'Ċ', 'he', 'Ġhe', '<|end|>', '<think>', '12', '[PAD]']
    const merges = ['h e', 'Ġ he', '1 2']
    const types = Int32Array.from(tokens, (token) =>
      token === '<|end|>' ? 3 : token === '<think>' ? 4 : token === '[PAD]' ? 5 : 1,
    )
    const path = join(folder, 'bytes.gguf')
    const save = (pre: string, more: object = {}) =>
      saveGguf(
        path,
        {},
        {
          metadata: {
            'tokenizer.ggml.model': 'gpt2',
            'tokenizer.ggml.pre': pre,
            'tokenizer.ggml.tokens': tokens,
            'tokenizer.ggml.token_type': types,
            'tokenizer.ggml.merges': merges,
            'tokenizer.ggml.bos_token_id': tokens.indexOf('<|end|>'),
            ...more,
          },
        },
      )
    const cuts: Record<string, string[]> = {}
    for (const pre of ['gpt-2', 'smollm', 'llama-bpe', 'qwen2', 'tekken']) {
      await save(pre, { 'tokenizer.ggml.add_bos_token': false })
      const tokenizer = await Tokenizer.fromFile(path)
      cuts[pre] = tokenizer.encode('he 12he<|end|><think>').inputIds.map((id) => tokens[id] as string)
      expect(tokenizer.decode(tokenizer.encode('he 12he<|end|>').inputIds)).toBe('he 12he<|end|>')
      expect(tokenizer.decode(tokenizer.encode('he<|end|><think>').inputIds, { skipSpecialTokens: true })).toBe(
        'he<think>',
      )
      // And back under its own name.
      expect(tokenizer.ggufMetadata(tokens.length)).toMatchObject({
        'tokenizer.ggml.pre': pre,
        'tokenizer.ggml.tokens': tokens,
        'tokenizer.ggml.merges': merges,
        'tokenizer.ggml.add_bos_token': false,
      })
    }
    const end = ['he', '<|end|>', '<think>']
    expect(cuts).toEqual({
      'gpt-2': ['he', 'Ġ', '12', ...end],
      smollm: ['he', 'Ġ', '1', '2', ...end],
      'llama-bpe': ['he', 'Ġ', '12', ...end],
      qwen2: ['he', 'Ġ', '1', '2', ...end],
      tekken: ['he', 'Ġ', '1', '2', ...end],
    })
    await save('llama-bpe')
    expect((await Tokenizer.fromFile(path)).encode('he').inputIds.map((id) => tokens[id])).toEqual(['<|end|>', 'he'])
    await save('klingon')
    await expect(Tokenizer.fromFile(path)).rejects.toThrow(
      /tokenizer\.ggml\.pre: expected one of gpt-2, .* got "klingon"/,
    )
    await save('gpt-2', { 'tokenizer.ggml.bos_token_id': 4000 })
    await expect(Tokenizer.fromFile(path)).rejects.toThrow(
      /bos_token_id: expected an id below \d+, the number of tokens, got 4000/,
    )
    await save('gpt-2', { 'tokenizer.ggml.token_type': Int32Array.of(1) })
    await expect(Tokenizer.fromFile(path)).rejects.toThrow(/token_type/)
  })
})

describe('Whisper of CTranslate2, as transformers computes with the same weights', () => {
  const place = (name: string) => join(folder, name)
  const config = { alignment_heads: [[0, 1]], suppress_ids: [3, -1, 4], suppress_ids_begin: [5], lang_ids: [] }
  const made = async (name: string): Promise<string> => {
    mkdirSync(place(name), { recursive: true })
    writeFileSync(join(place(name), 'config.json'), JSON.stringify(config))
    await stored(whispers, name, join(place(name), 'model.bin'))
    return place(name)
  }

  it.each(whispers.cases)('$name', async ({ name }) => {
    const directory = await made(name)
    const before = await settledTensors()
    const model = await Whisper.fromPretrained(directory, { dtype: 'float32' })
    const { input_features, decoder_input_ids } = tensorsOf(whispers, name, 'in') as Record<string, Tensor>
    const { logits } = tensorsOf(whispers, name, 'out') as { logits: Tensor }
    await scope(async () => {
      const output = await noGrad(() =>
        model.forward({ inputFeatures: input_features as Tensor, decoderInputIds: decoder_input_ids as Tensor }),
      )
      expectClose(output.logits as Tensor, logits, 1e-5)
      const encoder = await WhisperEncoder.fromPretrained(directory, { dtype: 'float32' })
      const { lastHiddenState } = await encoder.forward({ inputFeatures: input_features as Tensor })
      expectClose(lastHiddenState, output.encoderLastHiddenState as Tensor, 1e-6)
      encoder.dispose()
    })
    expect(model.alignmentHeads).toEqual([[0, 1]])
    expect(model.generationConfig).toMatchObject({ suppressTokens: [3, 4], beginSuppressTokens: [5] })
    model.dispose()
    expect(await settledTensors()).toBe(before)
  })

  it('refuses files that lie, by name', async () => {
    const directory = await made('int8')
    const path = join(directory, 'model.bin')
    const bytes = readFileSync(path)
    const spoiled = (at: number, value: number[]) => {
      const copy = Buffer.from(bytes)
      Buffer.from(value).copy(copy, at)
      writeFileSync(path, copy)
      return readCTranslate2(path)
    }
    const name = 'decoder/embeddings/weight'
    const at = bytes.indexOf(`${name}\0`) + name.length + 1
    for (const [change, says] of [
      [() => spoiled(0, [5]), /expected binary version 6, got 5/],
      [() => spoiled(at, [9]), /decoder\/embeddings\/weight" has 9 dimensions/],
      [() => spoiled(at + 1, [255, 255, 255, 255]), /decoder\/embeddings\/weight/],
      [() => spoiled(at + 9, [77]), /type 77/],
      [() => spoiled(at + 10, [1]), /has \d+ bytes/],
      [() => spoiled(at + 10, [1]), /embeddings/],
    ] as const) {
      await expect(change()).rejects.toThrow(CheckpointError)
      await expect(change()).rejects.toThrow(says)
    }
    for (const length of [0, 3, 20, 100, bytes.length - 1]) {
      writeFileSync(path, bytes.subarray(0, length))
      await expect(Whisper.fromPretrained(directory)).rejects.toThrow(CheckpointError)
    }
    writeFileSync(path, Buffer.concat([bytes, Buffer.from('x')]))
    await expect(Whisper.fromPretrained(directory)).rejects.toThrow(/ends at byte/)
  })
})
