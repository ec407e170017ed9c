import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import {
  ConfigError,
  emptyCache,
  memoryStats,
  noGrad,
  Salmonn,
  scope,
  setNumThreads,
  type Tensor,
  tensor,
} from '../../../../lib/index.js'
import type { PackingOptions } from '../../../../lib/peft/quantize.js'
import { type SalmonnMemoryOptions, salmonnMemory } from '../../../../lib/systems/salmonn/index.js'
import { fixturePath } from '../../../helpers.js'
import { clip, tinyConfig, tinyTokenizer } from './tiny.js'

beforeAll(() => setNumThreads(1))
const folder = fixturePath('models/salmonn-published')
const parts = {
  whisper: join(folder, 'whisper'),
  beats: join(folder, 'beats.pt'),
  llm: join(folder, 'vicuna'),
  adapter: join(folder, 'salmonn_v1.pth'),
}
const heads = { config: { qformer: { numAttentionHeads: 3 } } }

describe('the memory that a model will take', () => {
  const within = (found: number, gigabytes: number) => {
    expect(found / 1e9).toBeGreaterThan(0.95 * gigabytes)
    expect(found / 1e9).toBeLessThan(1.05 * gigabytes)
  }

  it('is that of the published sizes', () => {
    const whole = salmonnMemory('13b', { dtype: 'float16', batch: 4, length: 400, training: true })
    within(whole.whisper, 2.55)
    within(whole.beats, 0.36)
    within(whole.qformer + whole.projection, 0.11)
    within(whole.lora, 0.026)
    within(whole.llm, 26)
    expect(whole.kvCache).toBe(4 * 400 * 819_200)
    within(whole.kvCache, 1.3)
    within(whole.optimizer, 0.27)
    expect(whole.gradients).toBe(4 * 33_332_992)
    const { total, ...each } = whole
    expect(total).toBe(Object.values(each).reduce((a, b) => a + b))
    within(salmonnMemory('13b', { encoderDtype: 'bfloat16' }).whisper, 1.27)
    within(salmonnMemory('13b', { quantize: 'int8' }).llm, 13.0)
    within(salmonnMemory('13b', { quantize: 'nf4' }).llm, 6.6 + 0.66)
    // Scales in float32: 4.5 bits a weight in place of 4.127.
    within(salmonnMemory('13b', { quantize: { scheme: 'nf4', doubleQuant: false } }).llm, 6.6 * (4.5 / 4.127) + 0.66)
    const small = salmonnMemory('7b', { dtype: 'float16', length: 1 })
    within(small.llm, 13.5)
    expect([small.kvCache, small.gradients, small.optimizer]).toEqual([524_288, 0, 0])
    within(salmonnMemory('7b', { quantize: 'int8' }).llm, 6.7)
  })

  const settings: SalmonnMemoryOptions[] = [
    { dtype: 'float32' },
    { dtype: 'bfloat16', encoderDtype: 'bfloat16' },
    { dtype: 'float32', quantize: 'int8' },
    { dtype: 'float32', quantize: 'nf4' },
    { dtype: 'float32', quantize: { scheme: 'nf4', doubleQuant: false, blockSize: 32 } },
  ]
  it.each(settings)('is that of a model which is there, %j', async (options) => {
    const model = await Salmonn.fromPretrained(parts, { ...options, ...heads })
    const bytes = { float32: 4, bfloat16: 2, uint8: 1, int8: 1 } as Record<string, number>
    const state = model.namedModules().flatMap(([, module]) => {
      const names = ['weight_absmax', 'weight_nested_absmax', 'weight_nested_offset']
      return names.flatMap((name) => (Reflect.get(module, name) as Tensor | undefined) ?? [])
    })
    const tensors = [...model.parameters(), ...new Set(state)]
    const found = tensors.reduce((sum, tensor) => sum + tensor.numel() * (bytes[tensor.dtype] as number), 0)
    expect(salmonnMemory(model.config, options).total).toBe(found)
    expect(state.length > 0).toBe(options.quantize !== undefined)
    model.dispose()
  })

  it('leaves no tensors, and refuses what is not there', async () => {
    const before = memoryStats().liveTensors
    salmonnMemory(tinyConfig())
    expect(memoryStats().liveTensors).toBe(before)
    expect(() => salmonnMemory('13b', { dtype: 'int8' } as never)).toThrow(ConfigError)
    expect(() => salmonnMemory('13b', { quantize: 'int4' } as never)).toThrow(
      /quantize to be 'nf4', 'int8', 'q8_0', 'q4_0'/,
    )
    const packed = (options: object) => () => salmonnMemory('13b', { quantize: options as PackingOptions })
    expect(packed({ scheme: 'nf4', modules: 'model' })).toThrow(/expected one of the options .*, got 'modules'/)
    expect(packed({ scheme: 'int8', doubleQuant: true })).toThrow(ConfigError)
    const loading = Salmonn.fromPretrained(parts, { quantize: { scheme: 'nf4', modules: 'model' } as PackingOptions })
    await expect(loading).rejects.toThrow(/expected one of the options .*, got 'modules'/)
    expect(() => salmonnMemory('13b', { length: -1 })).toThrow(ConfigError)
    expect(() => salmonnMemory('14b')).toThrow(ConfigError)
  })
})

/**
 * By how many bytes the process grew in between at most. Where a pass takes long, V8 gives back some of its own heap
 * meanwhile, tens of megabytes, and the process grew by so much less: what was taken is told by bounds that leave room for it.
 */
async function taken(work: () => Promise<unknown>): Promise<number> {
  const inUse = (of: 'VmHWM' | 'VmRSS') =>
    1024 * Number(new RegExp(`${of}:\\s+(\\d+)`).exec(readFileSync('/proc/self/status', 'utf8'))?.[1])
  emptyCache()
  writeFileSync('/proc/self/clear_refs', '5')
  const before = inUse('VmRSS')
  await scope(async () => void (await work()))
  return inUse('VmHWM') - before
}

describe('memory is not taken', () => {
  it('twice while a language model is loaded, nor for values that the file replaces', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'salmonn-memory-'))
    try {
      const sizes = { hiddenSize: 1024, intermediateSize: 2816, numHiddenLayers: 8, numAttentionHeads: 8 }
      const config = { ...tinyConfig(), llm: { ...(tinyConfig().llm as object), ...sizes } }
      const made = Salmonn.fromConfig(config, { dtype: 'bfloat16' })
      const bytes = made.llm.parameters().reduce((sum, parameter) => sum + 2 * parameter.numel(), 0)
      expect(bytes).toBeGreaterThan(200e6)
      made.tokenizer = await tinyTokenizer()
      await made.save(directory, { whole: true })
      made.dispose()
      const load = async (quantize?: 'int8' | 'nf4') => {
        const model = await Salmonn.fromPretrained(directory, quantize ? { quantize } : {})
        expect(model.llm.get('model.norm').parameters()[0]?.dtype).toBe('bfloat16')
        model.dispose()
      }
      expect(await taken(() => load())).toBeLessThan(1.1 * bytes)
      // The mapped file, a half or a quarter of it, and what packing one layer takes.
      expect(await taken(() => load('int8'))).toBeLessThan(1.8 * bytes)
      expect(await taken(() => load('nf4'))).toBeLessThan(1.5 * bytes)
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  it('for the decoder of Whisper, nor twice for half precision', async () => {
    const model = await Salmonn.fromPretrained(parts, { ...heads, dtype: 'float32', encoderDtype: 'bfloat16' })
    const names = model.namedParameters().map(([name]) => name)
    expect(names.some((name) => name.startsWith('speech_encoder.layers.1.'))).toBe(true)
    expect(names.filter((name) => /decoder|proj_out/.test(name))).toEqual([])
    expect(new Set(model.speech_encoder?.parameters().map(({ dtype }) => dtype))).toEqual(new Set(['bfloat16']))
    const [heard] = await model.encodeAudio([clip(1, 0.9)])
    const exact = await Salmonn.fromPretrained(parts, { ...heads, dtype: 'float32' })
    const [wanted] = await exact.encodeAudio([clip(1, 0.9)])
    const error = (heard as Tensor)
      .float()
      .sub(wanted as Tensor)
      .abs()
      .max()
      .div((wanted as Tensor).abs().max())
    expect(Number(error.item())).toBeLessThan(0.05)
    model.dispose()
    exact.dispose()
  })

  it('for logits of the prompt: only the last place is asked', async () => {
    const config = tinyConfig()
    const [vocabSize, time] = [50_000, 2000]
    config.llm = { ...(config.llm as object), vocabSize, maxPositionEmbeddings: 4096 }
    const model = Salmonn.fromConfig(config)
    model.tokenizer = await tinyTokenizer()
    model.eval()
    const prompt = { text: `${'x'.repeat(time)}<SpeechHere>`, clips: [clip(1, 0.5)] }
    await model.generate([prompt], { maxNewTokens: 1 })
    const all = 4 * time * vocabSize
    for (const options of [{}, { numBeams: 2 }]) {
      const answer = await taken(() => model.generate([prompt], { maxNewTokens: 1, ...options }))
      expect(answer).toBeLessThan(all / 4)
    }
    // What would be taken otherwise, less what V8 may give back: far above the limit.
    const { inputIds } = model.tokenizer.encode(prompt.text, { addSpecialTokens: false })
    const ids = tensor([[...inputIds].slice(0, time)], { dtype: 'int64' })
    expect(await taken(() => noGrad(() => model.llm.forward({ inputIds: ids })))).toBeGreaterThan(all / 2)
    model.dispose()
  })
})
