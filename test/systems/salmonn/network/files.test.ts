import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  CheckpointError,
  loadSafetensors,
  loadTorch,
  memoryStats,
  noGrad,
  readJson,
  Salmonn,
  saveSafetensors,
  setNumThreads,
  type Tensor,
  writeJson,
} from '../../../../lib/index.js'
import type { LoadSalmonnOptions } from '../../../../lib/systems/salmonn/index.js'
import { checkVicuna } from '../../../../lib/systems/salmonn/network/base.js'
import { expectClose, fixturePath, numbers, settledTensors, tensorsOf } from '../../../helpers.js'
import { promptsOf, type SalmonnCase, salmonnFile, tinySalmonn } from './tiny.js'

const folder = fixturePath('models/salmonn-published')
const parts = (adapter = 'salmonn_v1.pth', beats = 'beats.pt') => ({
  whisper: join(folder, 'whisper'),
  beats: join(folder, beats),
  llm: join(folder, 'vicuna'),
  adapter: adapter.includes('/') ? adapter : join(folder, adapter),
})
// What shapes do not tell: 12 dimensions are three heads here.
const options: LoadSalmonnOptions = { dtype: 'float32', config: { qformer: { numAttentionHeads: 3 } } }
const one = salmonnFile.cases[1] as unknown as SalmonnCase
const batch = { prompts: promptsOf(one), targets: one.targets }
const lossOf = async (model: Salmonn) => (await model.forward(batch, { compat: 'published' })).loss as Tensor
const directory = mkdtempSync(join(tmpdir(), 'salmonn-'))
let adapter: Record<string, Tensor>
beforeAll(async () => {
  setNumThreads(1)
  adapter = (await loadTorch<{ model: Record<string, Tensor> }>(join(folder, 'salmonn_v1.pth'))).model
})
afterAll(() => rmSync(directory, { recursive: true }))

describe('the four published files', () => {
  it.each([
    ['salmonn_v1.pth', 'beats.pt'],
    ['salmonn_legacy.pth', 'beats-legacy.pt'],
  ])('%s and %s', async (file, beats) => {
    const model = await Salmonn.fromPretrained(parts(file, beats), options)
    expectClose(await lossOf(model), tensorsOf(salmonnFile, one.name, 'out').loss as Tensor, 1e-5, 'loss')
    expect(model.config.lora?.r).toBe(8)
    expect(model.training).toBe(false)
    model.dispose()
  })

  it('bfloat16, int8 and nf4 come near', async () => {
    const wanted = Number((tensorsOf(salmonnFile, one.name, 'out').loss as Tensor).item())
    for (const [quantize, tolerance] of [
      [undefined, 0.03],
      ['int8', 0.05],
      ['nf4', 0.3],
    ] as const) {
      const model = await Salmonn.fromPretrained(parts(), {
        ...options,
        dtype: 'bfloat16',
        ...(quantize && { quantize }),
      })
      const { weight } = model.llm.get('model.layers.0.mlp.up_proj') as unknown as { weight: Tensor }
      expect(weight.dtype).toBe(quantize === undefined ? 'bfloat16' : quantize === 'int8' ? 'int8' : 'uint8')
      const loss = await lossOf(model)
      expect(Math.abs(Number(loss.item()) - wanted) / wanted).toBeLessThan(tolerance)
      await loss.backward()
      expect(model.namedParameters().filter(([, { requiresGrad, grad }]) => requiresGrad && !grad)).toEqual([])
      model.dispose()
    }
  })

  it('names what is missing, unexpected and mis-shaped, and frees all', async () => {
    const file = join(directory, 'wrong.safetensors')
    const failing = async (change: (state: Record<string, Tensor>) => void) => {
      const state = { ...adapter }
      change(state)
      await saveSafetensors(file, state)
      return Salmonn.fromPretrained(parts(file), options)
    }
    const lora = 'llama_model.base_model.model.model.layers.1.self_attn.v_proj.lora_B.default.weight'
    await expect(failing((state) => delete state[lora])).rejects.toThrow(
      /expected \d+ tensors, got all except 1: .*layers.1.*v_proj.lora_B/,
    )
    const before = await settledTensors()
    await expect(failing((state) => delete state['speech_llama_proj.bias'])).rejects.toThrow(/speech_llama_proj.bias/)
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
    await expect(
      failing((state) => {
        state['speech_llama_proj.extra'] = state[lora] as Tensor
      }),
    ).rejects.toThrow(/expected only tensors of this SALMONN, got speech_llama_proj.extra/)
    await expect(
      failing((state) => {
        state['ln_speech.weight'] = state['ln_audio.bias']?.narrow(0, 0, 3) as Tensor
      }),
    ).rejects.toThrow(/ln_speech.weight: expected the shape \[\d+\], got \[3\]/)
    const table = 'beats.encoder.layers.1.self_attn.relative_attention_bias.weight'
    await expect(
      failing((state) => {
        state[table] = (state[table] as Tensor).add(1)
      }),
    ).rejects.toThrow(/expected the table of the loaded BEATs, got another one/)
    await expect(Salmonn.fromPretrained(parts(join(directory, 'none.pth')), options)).rejects.toThrow(
      /none\.pth: expected an existing adapter file/,
    )
  })

  it('tells the versions of Vicuna apart by their configuration', () => {
    const vicuna = (hiddenSize: number, numHiddenLayers: number, rmsNormEps: number, maxPositionEmbeddings: number) =>
      checkVicuna({ hiddenSize, numHiddenLayers, rmsNormEps, maxPositionEmbeddings, sums: {} }, 'file.pth')
    vicuna(4096, 32, 1e-5, 4096)
    vicuna(5120, 40, 1e-6, 2048)
    expect(() => vicuna(4096, 32, 1e-6, 2048)).toThrow(/vicuna-7b-v1.5/)
    expect(() => vicuna(5120, 40, 1e-5, 4096)).toThrow(/vicuna-13b-v1.1/)
    vicuna(16, 2, 1e-6, 2048)
  })
})

describe('directories of our own', () => {
  it('whole: comes back equal', async () => {
    const model = await tinySalmonn()
    const wanted = await lossOf(model)
    await model.save(join(directory, 'whole'), { whole: true })
    model.dispose()
    const again = await Salmonn.fromPretrained(join(directory, 'whole'), { dtype: 'float32' })
    expect(numbers(await lossOf(again))).toEqual(numbers(wanted))
    again.dispose()
  })

  it('what trains alone: is put on the parts, and only on those it was trained with', async () => {
    const model = await tinySalmonn()
    const wanted = await lossOf(model)
    const own = join(directory, 'trained')
    model.overlap = 0.5
    await model.save(own)
    model.dispose()
    const { tensors } = await loadSafetensors(join(own, 'adapter.safetensors'))
    expect(Object.keys(tensors).some((name) => /^(speech_encoder|beats)|embed_tokens/.test(name))).toBe(false)
    const { adapter: _, ...places } = parts()
    const again = await Salmonn.fromPretrained(own, { ...places, dtype: 'float32' })
    expect(numbers(await lossOf(again))).toEqual(numbers(wanted))
    // It hears as it heard.
    expect([again.compat, again.overlap]).toEqual([undefined, 0.5])
    again.dispose()
    await expect(Salmonn.fromPretrained(own, { dtype: 'float32' })).rejects.toThrow(
      /expected the part whisper, got none/,
    )
    const config = join(own, 'config.json')
    const written = (await readJson(config)) as Record<string, unknown>
    await writeJson(config, { ...written, compat: 'publsihed' })
    await expect(Salmonn.fromPretrained(own, { ...places, dtype: 'float32' })).rejects.toThrow(/config\.json.*compat/)
    await writeJson(config, { ...written, compat: 'published' })
    const published = await Salmonn.fromPretrained(own, { ...places, dtype: 'float32' })
    expect(published.compat).toBe('published')
    published.dispose()
    await writeJson(config, written)

    const other = await Salmonn.fromPretrained(parts(), options)
    const norm = other.llm.get('model.norm') as unknown as { weight: Tensor }
    norm.weight.detach().mul_(1.1)
    await other.llm.save(join(directory, 'other-llm'))
    other.dispose()
    const wrong = { ...places, llm: join(directory, 'other-llm'), dtype: 'float32' } as const
    await expect(Salmonn.fromPretrained(own, wrong)).rejects.toThrow(CheckpointError)
    await expect(Salmonn.fromPretrained(own, wrong)).rejects.toThrow(
      /expected the adapter's own language model .*model.norm/,
    )
    const forced = await Salmonn.fromPretrained(own, {
      ...wrong,
      tokenizer: join(own, 'tokenizer'),
      allowOtherBase: true,
    })
    forced.dispose()
  })

  it("LoRA goes out to Python's peft and comes back from there", async () => {
    const model = await tinySalmonn()
    const wanted = await lossOf(model)
    const own = join(directory, 'peft')
    await model.peft?.savePretrained(own)
    model.dispose()
    const { tensors } = await loadSafetensors(join(own, 'adapter_model.safetensors'))
    const layer = (i: number, name: string, factor: 'A' | 'B') =>
      `base_model.model.model.layers.${i}.self_attn.${name}.lora_${factor}.weight`
    const names = [0, 1].flatMap((i) =>
      ['q_proj', 'v_proj'].flatMap((name) => [layer(i, name, 'A'), layer(i, name, 'B')]),
    )
    expect(Object.keys(tensors).sort()).toEqual(names.sort())
    const again = await Salmonn.fromPretrained(parts(), options)
    noGrad(() => {
      for (const [name, parameter] of again.namedParameters()) if (name.includes('lora_')) parameter.zero_()
    })
    expect(numbers(await lossOf(again))).not.toEqual(numbers(wanted))
    await again.peft?.restore(own)
    expect(numbers(await lossOf(again))).toEqual(numbers(wanted))
    again.dispose()
  })

  it('a file of ours without LoRA, as the first stage writes it, leaves LoRA fresh', async () => {
    const rest = Object.fromEntries(
      Object.entries(adapter).filter(([name]) => !/lora_|inv_freq|position_ids|^beats/.test(name)),
    )
    const file = join(directory, 'stage-1.safetensors')
    await saveSafetensors(file, rest)
    const model = await Salmonn.fromPretrained(parts(file), options)
    const plain = await lossOf(model)
    const without = await model.peft?.disableAdapter(() => lossOf(model))
    expect(numbers(plain)).toEqual(numbers(without as Tensor))
    model.dispose()
  })
})
