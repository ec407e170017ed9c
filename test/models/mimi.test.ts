import { mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { noGrad, ops, randn, scope, type Tensor, zeros } from '../../lib/index.js'
import { Mimi } from '../../lib/models/index.js'
import type { MimiConfig } from '../../lib/models/mimi/config.js'
import { expectClose, fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'

interface Case {
  name: string
  config: Record<string, unknown>
  quantizers: number | null
  frameSize: number
}
const file = await fixture<Case>('models/mimi')
const defaults = JSON.parse(await readFile(fixturePath('models/mimi-keys.json'), 'utf8')) as Record<string, unknown>
const folder = () => mkdtemp(join(tmpdir(), 'mimi-'))

function networkOf(name: string) {
  const one = file.cases.find((it) => it.name === name) as Case
  const model = new Mimi(camelKeys(one.config) as MimiConfig).eval()
  loadParameters(model, file, name)
  const { samples, codes } = tensorsOf(file, name, 'in') as { samples: Tensor; codes: Tensor }
  return { model, samples, codes, one, expected: tensorsOf(file, name, 'out') }
}
const names = file.cases.map(({ name }) => name)

describe('Mimi against transformers', () => {
  it.each(names)('%s: codes, latents, audio and gradients', async (name) => {
    const { model, samples, codes, one, expected } = networkOf(name)
    const numQuantizers = one.quantizers
    expect(model.frameSize).toBe(one.frameSize)
    const encoded = await model.encode({ inputValues: samples, numQuantizers, outputHiddenStates: true })
    expectClose(encoded.latents, expected.latents as Tensor, 1e-5, 'latents')
    expect(encoded.audioCodes.toArray()).toEqual((expected.codes as Tensor).toArray())
    expect(model.encodedLengths([samples.size(2)])).toEqual([encoded.audioCodes.size(2)])
    const decoded = await model.decode({ audioCodes: codes, outputHiddenStates: true })
    expectClose(decoded.audioValues, expected.audio as Tensor, 1e-5, 'audio')
    expectClose(decoded.latents, expected.embeddings as Tensor, 1e-5, 'embeddings')
    for (const [side, { hiddenStates }] of Object.entries({ encoder: encoded, decoder: decoded })) {
      expect(hiddenStates.length).toBe(3)
      for (const [i, value] of hiddenStates.entries())
        expectClose(value, expected[`${side}_hidden.${i}`] as Tensor, 1e-5, `${side} ${i}`)
    }
    const again = await model.decode({ latents: decoded.latents })
    expect(again.audioValues.toArray()).toEqual(decoded.audioValues.toArray())
    const whole = await model.forward({ inputValues: samples, numQuantizers })
    expect(whole.audioCodes.toArray()).toEqual((expected.codes as Tensor).toArray())
    expectClose(whole.audioValues, expected.whole as Tensor, 1e-5, 'whole')

    const cotangent = tensorsOf(file, name, 'cotangent') as Record<'latents' | 'audio', Tensor>
    const pass = async (inputValues: Tensor) => {
      const { latents } = await model.encode({ inputValues, numQuantizers })
      const { audioValues } = await model.decode({ audioCodes: codes })
      await latents.mul(cotangent.latents).sum().add(audioValues.mul(cotangent.audio).sum()).backward()
    }
    await pass(samples)
    await expectGradients(model, file, name, { again: (as) => pass(as(samples)) })
  })

  it('cuts the audio to a padding mask, and masks the codes of padding', async () => {
    const { model, samples } = networkOf('plain')
    const mask = zeros([2, 140], { dtype: 'int64' })
    mask.select(0, 0).fill_(1)
    mask.select(0, 1).narrow(0, 0, 37).fill_(1)
    const { audioValues } = await model.forward({ inputValues: samples, paddingMask: mask.narrow(1, 0, 99) })
    expect(audioValues.shape).toEqual([2, 1, 99])
    const valid = model.audioCodesMask(mask).toArray() as boolean[][]
    expect(valid.map((row) => row.filter(Boolean).length)).toEqual([12, 4])
    expect(valid.map((row) => row.length)).toEqual([12, 12])
    // A causal network: frames before the padding are those of the clip alone.
    const alone = await model.encode({ inputValues: samples.narrow(0, 1, 1).narrow(2, 0, 36) })
    const { latents } = await model.encode({ inputValues: samples.narrow(0, 1, 1) })
    expectClose(latents.narrow(2, 0, 3), alone.latents, 1e-5)
  })

  it('attends in blocks to a long clip as in one', async () => {
    const { model } = networkOf('plain')
    await noGrad(async () => {
      const samples = randn([1, 1, 12 * 700])
      const whole = await model.encode({ inputValues: samples })
      using stream = model.encoderStream()
      const codes = await stream.push(samples)
      expect(codes.toArray()).toEqual(whole.audioCodes.toArray())
      // More than 256 frames at a time, and fewer.
      const late = await model.encode({ inputValues: samples.narrow(2, 12 * 600, 12 * 100) })
      expectClose(whole.latents.narrow(2, 650, 50), late.latents.narrow(2, 50, 50), 1e-5)
    })
  })
})

describe('streams', () => {
  it.each(names)('%s: equal the whole clip, whatever the pieces are', async (name) => {
    const { model, samples, codes, one } = networkOf(name)
    const numQuantizers = one.quantizers ?? 4
    await noGrad(async () => {
      const whole = (await model.encode({ inputValues: samples, numQuantizers })).audioCodes
      const audio = (await model.decode({ audioCodes: codes })).audioValues
      for (const sizes of [[7], [12], [1, 30, 5], [samples.size(2)]]) {
        using stream = model.encoderStream({ numQuantizers })
        const parts: Promise<Tensor | null>[] = []
        for (let from = 0, i = 0; from < samples.size(2); i += 1) {
          const count = Math.min(sizes[i % sizes.length] as number, samples.size(2) - from)
          // Without waiting: the stream keeps the order.
          parts.push(stream.push(samples.narrow(2, from, count)))
          from += count
        }
        parts.push(stream.flush())
        const found = ops.cat((await Promise.all(parts)) as Tensor[], 2)
        expect(found.toArray(), `pieces of ${sizes}`).toEqual(whole.toArray())
        expect(await stream.flush()).toBeNull()
        // After the end another clip begins.
        const next = await stream.push(samples)
        expect(next.toArray()).toEqual(whole.narrow(2, 0, next.size(2)).toArray())
      }
      for (const size of [1, 2, 5]) {
        using stream = model.decoderStream()
        const parts: Tensor[] = []
        for (let from = 0; from < codes.size(2); from += size)
          parts.push(await stream.push(codes.narrow(2, from, Math.min(size, codes.size(2) - from))))
        expectClose(ops.cat(parts, 2), audio, 1e-6, `codes in pieces of ${size}`)
        await stream.reset()
        expectClose(await stream.push(codes), audio, 1e-6, 'after a reset')
      }
    })
  })

  it('keep unfinished frames beyond the scope of a call', async () => {
    const { model, samples } = networkOf('plain')
    const whole = await noGrad(async () => (await model.encode({ inputValues: samples })).audioCodes)
    using stream = model.encoderStream()
    const parts: unknown[][][] = []
    for (let from = 0; from < 140; from += 7) {
      await scope(async () => {
        const codes = await stream.push(samples.narrow(2, from, 7))
        parts.push(...(codes.size(2) > 0 ? [codes.select(0, 1).transpose(0, 1).toArray() as unknown[][]] : []))
      })
    }
    const rest = (await stream.flush()) as Tensor
    const frames = [...parts.flat(), ...(rest.select(0, 1).transpose(0, 1).toArray() as unknown[][])]
    expect(frames).toEqual(whole.select(0, 1).transpose(0, 1).toArray())
  })

  it('have memory that does not grow, and leave no tensor', async () => {
    const { model } = networkOf('plain')
    const frame = randn([12])
    const codes = zeros([1, 4, 1], { dtype: 'int64' })
    const before = await settledTensors()
    const encoder = model.encoderStream()
    const decoder = model.decoderStream()
    await scope(async () => {
      for (let i = 0; i < 20; i += 1) {
        await encoder.push(frame)
        await decoder.push(codes)
      }
      await encoder.push(randn([5]))
    })
    encoder.dispose()
    decoder.dispose()
    expect(await settledTensors()).toBe(before)
    await expect(encoder.push(frame)).rejects.toThrow(
      /MimiEncoderStream: expected a stream in use, got one that was disposed/,
    )
    await expect(decoder.push(codes)).rejects.toThrow(/MimiDecoderStream: expected a stream in use/)
  })

  it('refuse what does not fit, and go on', async () => {
    const { model, samples, codes } = networkOf('plain')
    expect(() => model.encoderStream({ numQuantizers: 5 })).toThrow(/numQuantizers: expected 1 to 4, got 5/)
    expect(() => model.encoderStream({ quantizers: 2 } as never)).toThrow(/quantizers/)
    using encoder = model.encoderStream()
    expect(() => encoder.push(randn([2, 2, 12]))).toThrow(/expected \[n\] or \[batch, 1, n\], got \[2,2,12\]/)
    expect(() => encoder.push([1] as never)).toThrow(/samples.*a tensor/)
    const first = await encoder.push(samples.narrow(2, 0, 60))
    await expect(encoder.push(randn([1, 1, 12]))).rejects.toThrow(/expected 2 rows as before, got 1/)
    const rest = await encoder.push(samples.narrow(2, 60, 60))
    const { audioCodes } = await model.encode({ inputValues: samples.narrow(2, 0, 120) })
    expect(ops.cat([first, rest], 2).toArray()).toEqual(audioCodes.toArray())
    using decoder = model.decoderStream()
    const start = await decoder.push(codes.narrow(2, 0, 2))
    await expect(decoder.push(codes.narrow(2, 2, 1).add(16))).rejects.toThrow(/audio_codes must be from 0 to 15, got/)
    await expect(decoder.push(codes.narrow(0, 0, 1))).rejects.toThrow(/the stream has 2 rows, but the input has 1/)
    const more = await decoder.push(codes.narrow(2, 2, 10))
    const { audioValues } = await model.decode({ audioCodes: codes })
    expectClose(ops.cat([start, more], 2), audioValues, 1e-6)
  })
})

describe('configuration and files', () => {
  it('knows each key of transformers, with its default', () => {
    const given = camelKeys(defaults)
    const own = new Mimi({}, { device: 'meta' }).config as Record<string, unknown>
    const whole = new Mimi(given as never, { device: 'meta' }).config as Record<string, unknown>
    for (const [key, value] of Object.entries(own)) {
      if (key in given) expect({ [key]: value }).toEqual({ [key]: given[key] })
      expect({ [key]: whole[key] }).toEqual({ [key]: value })
    }
  })

  it('reads a frame rate under both keys of transformers', () => {
    const small = camelKeys((file.cases[0] as Case).config) as MimiConfig
    const sizeOf = (config: object) => new Mimi({ ...small, ...config }, { device: 'meta' }).frameSize
    expect([sizeOf({}), sizeOf({ frameRate: 50 }), sizeOf({ FrameRate: 50 })]).toEqual([12, 24, 24])
    expect(sizeOf({ frameRate: null, FrameRate: null })).toBe(12)
    expect(() => sizeOf({ FrameRate: 'x' })).toThrow(/frameRate: expected a positive number/)
  })

  it('refuses other values by name', () => {
    const small = camelKeys((file.cases[0] as Case).config) as MimiConfig
    const make = (config: object) => () => new Mimi({ ...small, ...config })
    expect(make({ numFilter: 8 })).toThrow(/numFilter.*did you mean 'numFilters'/)
    expect(make({ useCausalConv: false })).toThrow(/useCausalConv true, got false/)
    expect(make({ trimRightRatio: 0.5 })).toThrow(/trimRightRatio 1, got 0\.5/)
    expect(make({ useStreaming: true })).toThrow(/useStreaming false, got true/)
    expect(make({ padMode: 'reflect' })).toThrow(/pad_mode: expected constant or replicate, got 'reflect'/)
    expect(make({ codebookSize: 12 })).toThrow(/codebook_size: expected a power of 2, got 12/)
    expect(make({ codebookDim: 8 })).toThrow(/vector_quantization_hidden_dimension: expected codebook_dim 8, got 6/)
    expect(make({ numSemanticQuantizers: 4 })).toThrow(/num_semantic_quantizers: expected 1 to .* 3, got 4/)
    expect(make({ upsampleGroups: 5 })).toThrow(/hidden_size 12 is not divisible by upsample_groups 5/)
    expect(make({ numKeyValueHeads: 3 })).toThrow(/num_attention_heads 2 is not divisible/)
    expect(make({ upsamplingRatios: [3, 0] })).toThrow(/upsamplingRatios: expected a list of positive integers/)
    expect(make({ frameRate: 200 })).toThrow(/frameRate: expected at most half of 200, got 200/)
    expect(make({ samplingRate: 1.5 })).toThrow(/samplingRate: expected a positive integer/)
    expect(make({ audioChannels: 3 })).toThrow(/audio_channels: expected 1 or 2, got 3/)
    expect(make({ slidingWindow: 0 })).toThrow(/sliding_window: expected an integer from 1/)
    expect(make({ headDim: 5 })).toThrow(/head.*even/)
    expect(make({ ropeParameters: { ropeType: 'yarn' } })).toThrow(/ropeType "default"/)
    expect(make({ kernelSize: 1e9 })).toThrow(/kernel_size: expected an integer from 1 to 65536/)
  })

  it('refuses inputs that do not fit', async () => {
    const { model, samples, codes } = networkOf('plain')
    await expect(model.encode({ inputValues: randn([2, 2, 24]) })).rejects.toThrow(
      /input_values must be \[batch, 1, samples\]/,
    )
    await expect(model.encode({ inputValues: samples, numQuantizers: 0 })).rejects.toThrow(
      /num_quantizers: expected 1 to 4, got 0/,
    )
    await expect(model.decode({})).rejects.toThrow(/either audio_codes or latents, got neither/)
    await expect(model.decode({ audioCodes: codes.to({ dtype: 'float32' }) })).rejects.toThrow(
      /audio_codes must be int64/,
    )
    await expect(model.decode({ audioCodes: codes.neg().sub(1) })).rejects.toThrow(
      /audio_codes must be from 0 to 15, got -/,
    )
    await expect(model.decode({ latents: randn([1, 5, 3]) })).rejects.toThrow(/latents must be \[batch, 12, frames\]/)
    await expect(model.forward({})).rejects.toThrow(/input_values or audio_codes/)
    expect(() => model.encodedLengths([-1])).toThrow(/lengths/)
  })

  it('saves and loads a folder; missing and unexpected tensors are reported by name', async () => {
    const { model, samples } = networkOf('options')
    const at = await folder()
    await model.save(at)
    const again = await Mimi.fromPretrained(at)
    expect(again.config).toMatchObject(model.config)
    const inputs = { inputValues: samples }
    expect((await again.forward(inputs)).audioValues.toArray()).toEqual(
      (await model.forward(inputs)).audioValues.toArray(),
    )
    const config = JSON.parse(await readFile(join(at, 'config.json'), 'utf8')) as Record<string, unknown>
    await writeFile(join(at, 'config.json'), JSON.stringify({ ...config, num_quantizers: 5 }))
    await expect(Mimi.fromPretrained(at)).rejects.toThrow(/acoustic_residual_vector_quantizer\.layers\.2\.codebook/)
    await writeFile(join(at, 'config.json'), JSON.stringify({ ...config, num_hidden_layers: 1 }))
    await expect(Mimi.fromPretrained(at)).rejects.toThrow(/(en|de)coder_transformer\.layers\.1\./)
    await writeFile(join(at, 'config.json'), JSON.stringify(config))
    const extractor = JSON.parse(await readFile(join(at, 'preprocessor_config.json'), 'utf8')) as object
    await writeFile(join(at, 'preprocessor_config.json'), JSON.stringify({ ...extractor, chunk_length_s: 1 }))
    await expect(Mimi.fromPretrained(at)).rejects.toThrow(/chunkLengthS null, got 1/)
  })

  it('codes follow the codebooks when these change', async () => {
    const { model, codes } = networkOf('plain')
    await noGrad(async () => {
      const before = (await model.decode({ audioCodes: codes })).latents
      const state = model.stateDict()
      for (const [key, value] of Object.entries(state)) if (key.endsWith('embed_sum')) value.mul_(2)
      expectClose((await model.decode({ audioCodes: codes })).latents, before.mul(2), 1e-6)
    })
  })

  it("of the published size has transformers' number of parameters", () => {
    const model = Mimi.fromConfig('mimi', { device: 'meta' })
    const count = (tensors: Tensor[]) => tensors.reduce((sum, one) => sum + one.numel(), 0)
    expect(count(model.parameters())).toBe(79_308_609)
    // With the codebooks.
    expect(count(Object.values(model.stateDict()))).toBe(79_308_609 + 16_842_784)
    expect([model.frameSize, model.sampleRate]).toEqual([1920, 24_000])
  })
})
