import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { type GgufBlocks, readGguf, saveGguf } from '../../lib/files/index.js'
import {
  AdamW,
  CheckpointError,
  ConfigError,
  DecoderLM,
  type DecoderLMConfig,
  dequantizeLayer,
  Embedding,
  getPeftModel,
  Linear,
  manualSeed,
  noGrad,
  quantize,
  randint,
  scope,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { quantizationOf } from '../../lib/nn/quantized-weight.js'
import { difference, expectClose, settledTensors } from '../helpers.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-blocks-'))
afterAll(() => rmSync(folder, { recursive: true }))

const small = (change: Partial<DecoderLMConfig> = {}): DecoderLMConfig => ({
  modelType: 'llama',
  vocabSize: 96,
  hiddenSize: 64,
  intermediateSize: 96,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  maxPositionEmbeddings: 64,
  tieWordEmbeddings: true,
  initializerRange: 0.2,
  ...change,
})
const made = (change?: Partial<DecoderLMConfig>) => DecoderLM.fromConfig(small(change), { seed: 1 }).eval()
const ids = () => randint(0, 96, [2, 7], { dtype: 'int64' })
const logitsOf = async (model: DecoderLM, inputIds: Tensor) =>
  (await noGrad(() => model.forward({ inputIds }))).logits as Tensor
const schemes = (model: DecoderLM) =>
  Object.fromEntries(
    model.namedModules().flatMap(([path, layer]) => {
      const packed = quantizationOf(layer)
      return packed ? [[path, packed.scheme]] : []
    }),
  )

describe.each(['q8_0', 'q4_0'] as const)('%s on the CPU', (scheme) => {
  const type = scheme.toUpperCase() as 'Q8_0' | 'Q4_0'

  it.each([true, false])(
    'a GGUF file stays in its blocks, computes with them, and is written as it is; tied %s',
    async (tied) => {
      const model = made({ tieWordEmbeddings: tied })
      const path = join(folder, `${scheme}-${tied}.gguf`)
      await model.saveGguf(path, { type })
      const before = await settledTensors()
      const loaded = await DecoderLM.fromPretrained(path)
      const found = schemes(loaded)
      expect(found['model.layers.1.mlp.down_proj']).toBe(scheme)
      expect(found['model.embed_tokens']).toBe('q8_0')
      expect(found.lm_head).toBe(tied ? undefined : 'q8_0')
      expect(Object.keys(found)).toHaveLength(tied ? 15 : 16)
      const values = await DecoderLM.fromPretrained(path, { quantize: false })
      expect(schemes(values)).toEqual({})
      await scope(async () => {
        const input = ids()
        const exact = await logitsOf(values, input)
        // With gradients, products are those of the values.
        expectClose(((await loaded.forward({ inputIds: input })).logits as Tensor).detach(), exact, 1e-5)
        const ours = await logitsOf(loaded, input)
        expect(difference(ours, exact)).toBeGreaterThan(1e-6)
        expect(difference(ours, exact)).toBeLessThan(0.1)
        // The same blocks, made here.
        const copy = made({ tieWordEmbeddings: tied })
        expect(quantize(copy, { scheme }).length).toBe(tied ? 15 : 16)
        expect((await logitsOf(copy, input)).equal(ours)).toBe(true)
        // A token at a time over a cache.
        const { tokens } = await loaded.generate({ inputIds: input }, { maxNewTokens: 5, eosTokenId: null })
        const again = await copy.generate({ inputIds: input }, { maxNewTokens: 5, eosTokenId: null })
        expect(tokens).toEqual(again.tokens)
        copy.dispose()
      })
      const again = join(folder, 'again.gguf')
      await loaded.saveGguf(again, { type })
      expect(readFileSync(again).equals(readFileSync(path))).toBe(true)
      // Whatever type is asked for.
      await loaded.saveGguf(again, { type: 'F16' })
      expect((await readGguf(again)).tensors['blk.0.ffn_up.weight']?.type).toBe(type)
      loaded.dispose()
      values.dispose()
      expect(await settledTensors()).toBe(before)
    },
  )

  it('is saved and loaded, mapped or not, and becomes values again', async () => {
    const model = made()
    const paths = quantize(model, { scheme })
    const place = join(folder, `saved-${scheme}`)
    await model.save(place)
    const config = JSON.parse(readFileSync(join(place, 'config.json'), 'utf8'))
    expect(config.quantization_config.layers).toContainEqual({ path: paths[0], scheme })
    const input = ids()
    const expected = await logitsOf(model, input)
    for (const options of [{}, { mmap: true }]) {
      const loaded = await DecoderLM.fromPretrained(place, options)
      expect(schemes(loaded)).toEqual(schemes(model))
      expect((await logitsOf(loaded, input)).equal(expected)).toBe(true)
    }
    const values = await DecoderLM.fromPretrained(place, { quantize: false })
    for (const layer of model.modules()) dequantizeLayer(layer)
    expect((await logitsOf(values, input)).equal(await logitsOf(model, input))).toBe(true)
    await values.save(place)
    expect(JSON.parse(readFileSync(join(place, 'config.json'), 'utf8')).quantization_config).toBeUndefined()
    config.quantization_config.layers = [{ path: 3 }]
    writeFileSync(join(place, 'config.json'), JSON.stringify(config))
    await expect(DecoderLM.fromPretrained(place)).rejects.toThrow(CheckpointError)
  })

  it('is a base that adapters are trained on', async () => {
    const path = join(folder, 'base.gguf')
    await made().saveGguf(path, { type })
    const model = await DecoderLM.fromPretrained(path)
    const before = (model.stateDict()['model.layers.0.mlp.up_proj.weight'] as Tensor).toArray()
    const peft = getPeftModel(model, { r: 4, targetModules: ['q_proj', 'down_proj'], initLoraWeights: true })
    const trained = model.parameters().filter((one) => one.requiresGrad)
    expect(trained).toHaveLength(8)
    using optimizer = new AdamW(trained, { lr: 0.02 })
    const inputIds = ids()
    const losses: number[] = []
    for (let step = 0; step < 20; step++) {
      await scope(async () => {
        const { loss } = await peft.forward({ inputIds, labels: inputIds })
        losses.push(Number((loss as Tensor).item()))
        await (loss as Tensor).backward()
        await optimizer.step()
        optimizer.zeroGrad()
      })
    }
    expect(losses.at(-1) as number).toBeLessThan((losses[0] as number) - 0.2)
    expect((model.stateDict()['model.layers.0.mlp.up_proj.weight'] as Tensor).toArray()).toEqual(before)
    peft.unload()
    const noAdapter = () => getPeftModel(model, { r: 2, targetModules: ['embed_tokens'] })
    expect(noAdapter).toThrow(ConfigError)
    expect(noAdapter).toThrow(/got the quantized embeddings/)
  })

  it('by default packs embeddings where it packs all, and says what does not fit', async () => {
    const model = made({ tieWordEmbeddings: false })
    expect(quantize(model, { scheme, modules: 'model.layers.0' })).toHaveLength(7)
    expect(schemes(model)['model.embed_tokens']).toBeUndefined()
    expect(quantize(model, { scheme, modules: 'model.layers.1', embeddings: true })).toHaveLength(9)
    expect(schemes(model)).toMatchObject({ 'model.embed_tokens': 'q8_0', lm_head: 'q8_0' })
    const odd = made({ hiddenSize: 48, intermediateSize: 64 })
    expect(() => quantize(odd, { scheme })).toThrow(/rows of 48, which is not a multiple of 32 as q[48]_0 requires/)
    expect(() => quantize(made(), { scheme, blockSize: 64 })).toThrow(/expected scheme 'nf4' with blockSize/)
    expect(() => quantize(made(), { scheme, doubleQuant: true })).toThrow(/expected scheme 'nf4' with doubleQuant/)
  })
})

it('embeddings of TypeScript on the CPU are looked up in blocks', () => {
  const words = new Embedding(10, 64)
  const exact = words.weight.detach().clone()
  expect(quantize(words, { scheme: 'q8_0' })).toEqual([''])
  const ids = tensor([[3, 9, 0]], { dtype: 'int64' })
  const found = words.forward(ids)
  expect(found.shape).toEqual([1, 3, 64])
  // Half a step of a 127th.
  expect(difference(found, exact.indexSelect(0, ids.flatten()).unsqueeze(0))).toBeLessThan(0.005)
  dequantizeLayer(words)
  expect(words.forward(ids).equal(found)).toBe(true)
  expect(() => quantize(new Embedding(10, 48), { scheme: 'q8_0' })).toThrow(/rows of 48/)
  expect(() => quantize(new Embedding(10, 64, { maxNorm: 1 }), { scheme: 'q8_0' })).toThrow(/maxNorm/)
  expect(() => quantize(new Linear(32, 32), { scheme: 'q8_0', embeddings: true })).toThrow(
    /expected embeddings or an output layer/,
  )
})

describe('int8 and NF4 on the CPU', () => {
  it.each(['int8', 'nf4'] as const)('%s is saved and loaded as it is, with embeddings in Q8_0', async (scheme) => {
    const model = made()
    quantize(model, { scheme, modules: 'model.layers', embeddings: true })
    const place = join(folder, `saved-${scheme}`)
    await model.save(place)
    const loaded = await DecoderLM.fromPretrained(place)
    expect(schemes(loaded)).toEqual(schemes(model))
    const input = ids()
    expect((await logitsOf(loaded, input)).equal(await logitsOf(model, input))).toBe(true)
    await expect(loaded.saveGguf(join(folder, 'no.gguf'))).rejects.toThrow(ConfigError)
  })
})

it('K-quants and Q4_1 of a GGUF file stay as they are on the CPU, other types become values', async () => {
  manualSeed(6)
  const config = small({ hiddenSize: 256, intermediateSize: 256, numAttentionHeads: 4, tieWordEmbeddings: true })
  const model = DecoderLM.fromConfig(config, { seed: 2 }).eval()
  const path = join(folder, 'kinds.gguf')
  await model.saveGguf(path, { type: 'F32' })
  const file = await readGguf(path)
  const tensors: Record<string, Tensor | GgufBlocks> = await file.load()
  const kinds = { attn_q: 'Q4_K', attn_k: 'Q6_K', ffn_up: 'Q4_1', ffn_down: 'Q5_K', ffn_gate: 'Q4_0' } as const
  const sizes = {
    Q4_K: [256, 144, [0, 2]],
    Q6_K: [256, 210, [208]],
    Q4_1: [32, 20, [0, 2]],
    Q5_K: [256, 176, [0, 2]],
    Q4_0: [32, 18, [0]],
  } as const
  for (const [part, type] of Object.entries(kinds)) {
    const name = `blk.1.${part}.weight`
    const [block, bytes, halves] = sizes[type]
    const shape = [...(tensors[name] as Tensor).shape]
    const blocks = randint(0, 256, [((shape[0] as number) * (shape[1] as number)) / block, bytes], { dtype: 'uint8' })
    for (const at of halves) blocks.select(1, at + 1).fill_(type === 'Q6_K' ? 0x08 : 0x14)
    tensors[name] = { type, shape, blocks }
  }
  await saveGguf(path, tensors, { metadata: file.metadata, metadataTypes: file.metadataTypes, type: 'F32' })
  const loaded = await DecoderLM.fromPretrained(path)
  const at = (name: string) => `model.layers.1.${name}`
  expect(schemes(loaded)).toEqual({
    [at('self_attn.q_proj')]: 'q4_k',
    [at('self_attn.k_proj')]: 'q6_k',
    [at('mlp.up_proj')]: 'q4_1',
    [at('mlp.gate_proj')]: 'q4_0',
  })
  const values = await DecoderLM.fromPretrained(path, { quantize: false })
  const input = ids()
  const exact = await logitsOf(values, input)
  expectClose(((await loaded.forward({ inputIds: input })).logits as Tensor).detach(), exact, 1e-5)
  expect(difference(await logitsOf(loaded, input), exact)).toBeLessThan(0.1)
  const half = await DecoderLM.fromPretrained(path, { dtype: 'bfloat16' })
  expect((await logitsOf(half, input)).dtype).toBe('bfloat16')
  expect(difference((await logitsOf(half, input)).float(), exact)).toBeLessThan(0.2)
  // Blocks that are not those of the shape.
  const wrong = {
    ...tensors,
    'blk.0.ffn_up.weight': {
      type: 'Q8_0',
      shape: [128, 256],
      blocks: (tensors['blk.1.ffn_up.weight'] as GgufBlocks).blocks,
    },
  }
  await expect(saveGguf(path, wrong as never)).rejects.toThrow(/uint8 of 34816 bytes/)
})
