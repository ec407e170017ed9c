import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  BigVGAN,
  type BigVGANConfig,
  CheckpointError,
  ConfigError,
  manualSeed,
  memoryStats,
  noGrad,
  ops,
  randn,
  ShapeError,
  saveSafetensors,
  scope,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { difference, expectClose, fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'
import { type As, camelKeys, expectGradients } from './networks.js'

interface Case {
  name: string
  config?: Record<string, unknown>
}
const file = await fixture<Case>('models/bigvgan')
const networks = file.cases.filter(({ config }) => config)
const { up, down } = tensorsOf(file, 'filters', 'out') as { up: Tensor; down: Tensor }
const configOf = (name: string, weightNorm = true): BigVGANConfig => ({
  ...(camelKeys(file.cases.find((entry) => entry.name === name)?.config ?? {}) as BigVGANConfig),
  weightNorm,
})
const counted = (network: BigVGAN) => network.parameters().reduce((sum, one) => sum + one.numel(), 0)

/** With the fixture's parameters: those of a weight norm, or folded as NVIDIA's code folds them. */
function load(name: string, weightNorm = true): BigVGAN {
  const model = new BigVGAN(configOf(name, weightNorm))
  const given = tensorsOf(file, name, 'param')
  const state: Record<string, Tensor> = {}
  for (const key of Object.keys(model.stateDict()))
    if (key.endsWith('.filter')) state[key] = key.includes('.up') ? up : down
  for (const [key, value] of Object.entries(given)) {
    if (weightNorm || !/weight_[gv]$/.test(key)) state[key] = value
  }
  if (!weightNorm) Object.assign(state, tensorsOf(file, name, 'folded'))
  noGrad(() => model.loadStateDict(state))
  return model
}

describe("against NVIDIA's own code", () => {
  it.each(networks.flatMap(({ name }) => [true, false].map((weightNorm) => ({ name, weightNorm }))))(
    '$name, weight norm $weightNorm',
    async ({ name, weightNorm }) => {
      const model = load(name, weightNorm)
      const mel = tensorsOf(file, name, 'in').mel as Tensor
      const cotangent = tensorsOf(file, name, 'cotangent').waveform as Tensor
      const { waveform } = await model.forward({ mel })
      expectClose(waveform, tensorsOf(file, name, 'out').waveform as Tensor, 1e-5, 'waveform')
      const role = weightNorm ? 'grad' : 'folded_grad'
      const wanted = tensorsOf(file, name, role)
      const leaf = mel.clone()
      leaf.requiresGrad = true
      const back = async (as: As) =>
        (await model.forward({ mel: as(mel) })).waveform.mul(as(cotangent)).sum().backward()
      await (await model.forward({ mel: leaf })).waveform.mul(cotangent).sum().backward()
      expectClose(leaf.grad as Tensor, wanted.mel as Tensor, 1e-5, 'gradient of mel')
      // The helper reads the role 'grad', and has no word for an input.
      const own = Object.fromEntries(
        Object.entries(wanted).flatMap(([key, value]) => (key === 'mel' ? [] : [[`${name}/grad/${key}`, value]])),
      )
      await expectGradients(model, { ...file, tensors: own }, name, { again: back })
    },
  )

  it('the filters of the activations', () => {
    const state = new BigVGAN(configOf('v1')).stateDict()
    expectClose(state['activation_post.upsample.filter'] as Tensor, up, 1e-6)
    expectClose(state['resblocks.0.activations.0.downsample.lowpass.filter'] as Tensor, down, 1e-6)
    const half = [0.00202897, 0.00938946, -0.02554346, -0.05765738, 0.12857261, 0.4432098]
    for (const filter of [
      up,
      state['activation_post.upsample.filter'],
      state['activation_post.downsample.lowpass.filter'],
    ]) {
      // As the specification writes them: seven digits, the other half mirrored.
      expectClose((filter as Tensor).flatten(), tensor([...half, ...[...half].reverse()]), 1e-7 / 0.4432098)
      expect((filter as Tensor).sum().item<number>()).toBeCloseTo(1, 6)
    }
  })

  it('an activation that adds nothing leaves what does not change as it is: a gain of 1', () =>
    scope(() => {
      const snake = op('voxtorch::anti_aliased_snake') as unknown as (...given: Tensor[]) => Tensor
      const level = tensor([0.7, -2]).reshape([1, 2, 1])
      for (const frames of [1, 5, 40]) {
        const flat = level.expand([1, 2, frames]).contiguous()
        expectClose(snake(flat, tensor([3, 5], { dtype: 'float32' }), zeros([2]), up, down), flat, 1e-6)
      }
    }))
})

describe('sizes', () => {
  it.each([
    ['bigvgan_22khz_80band', false, 112_199_473],
    ['bigvgan_22khz_80band', true, 112_231_250],
  ] as const)('%s with weight norm %s has %i parameters', (name, weightNorm, count) =>
    scope(() => {
      const { config } = BigVGAN.fromConfig(name, { device: 'meta' })
      expect(counted(new BigVGAN({ ...config, weightNorm }, { device: 'meta' }))).toBe(count)
    }),
  )

  it('version 2 has no bias at the end', () =>
    scope(() => {
      const model = BigVGAN.fromConfig('bigvgan_v2_22khz_80band_256x', { device: 'meta' })
      expect(counted(model)).toBe(112_231_249)
      expect([model.samplesPerFrame, model.sampleRate]).toEqual([256, 22050])
    }))

  it('fresh networks differ by seed, and their samples lie within 1', async () => {
    const config = configOf('v2')
    const make = (seed: number) => BigVGAN.fromConfig(config, { seed })
    const mel = randn([1, 5, 7])
    const [a, b, c] = await Promise.all([1, 1, 2].map(async (seed) => (await make(seed).forward({ mel })).waveform))
    expect((a as Tensor).equal(b as Tensor)).toBe(true)
    expect((a as Tensor).equal(c as Tensor)).toBe(false)
    expect((a as Tensor).abs().max().item()).toBeLessThanOrEqual(1)
    const { weight_g: gain, weight_v: direction } = make(1).get('conv_pre') as unknown as Record<string, Tensor>
    expectClose(gain?.flatten() as Tensor, (direction as Tensor).square().sum([1, 2]).sqrt(), 1e-6)
  })
})

describe('weight norm', () => {
  it('folded, the network gives the same', async () => {
    const model = load('v1').eval()
    const folded = model.folded()
    const mel = randn([1, 5, 6])
    expectClose((await folded.forward({ mel })).waveform, (await model.forward({ mel })).waveform, 1e-5)
    expect(Object.keys(folded.stateDict()).some((name) => /weight_[gv]/.test(name))).toBe(false)
    expect(folded.training).toBe(false)
    expect(() => folded.folded()).toThrow(ConfigError)
    const wanted = tensorsOf(file, 'v1', 'folded')
    for (const [name, value] of Object.entries(wanted))
      expectClose(folded.stateDict()[name] as Tensor, value, 1e-6, name)
  })
})

describe('files', () => {
  const directory = mkdtempSync(join(tmpdir(), 'voxtorch-bigvgan-'))
  afterAll(() => rmSync(directory, { recursive: true }))
  const published = fixturePath('models/bigvgan-published')
  const answer = async () => {
    const given = await fixture('models/bigvgan-pretrained')
    return {
      mel: tensorsOf(given, 'published', 'in').mel as Tensor,
      waveform: tensorsOf(given, 'published', 'out').waveform as Tensor,
    }
  }

  it.each([
    ['the folder', published, {}],
    ['the generator alone', join(published, 'bigvgan_generator.pt'), {}],
    ['folded while it is read', published, { weightNorm: false }],
  ] as const)("NVIDIA's layout: %s", async (_, from, options) => {
    const { mel, waveform } = await answer()
    const model = await BigVGAN.fromPretrained(from, options)
    expect([model.training, model.config.weightNorm, model.config.hopSize]).toEqual([
      false,
      !('weightNorm' in options),
      8,
    ])
    expectClose((await model.forward({ mel })).waveform, waveform, 1e-5)
  })

  it.each([true, false])('what was saved is the same when it is loaded, weight norm %s', async (weightNorm) => {
    const { mel } = await answer()
    const model = await BigVGAN.fromPretrained(published, { weightNorm })
    const to = join(directory, `saved-${weightNorm}`)
    await model.save(to)
    const again = await BigVGAN.fromPretrained(to)
    expect(again.config.weightNorm).toBe(weightNorm)
    expect((await again.forward({ mel })).waveform.equal((await model.forward({ mel })).waveform)).toBe(true)
    const other = await BigVGAN.fromPretrained(to, { weightNorm: !weightNorm })
    expectClose((await other.forward({ mel })).waveform, (await model.forward({ mel })).waveform, 1e-5)
    const written = JSON.parse(readFileSync(join(to, 'config.json'), 'utf8'))
    expect([written.model_type, written.upsample_rates, written.learning_rate]).toEqual(['bigvgan', [4, 2], 0.0001])
  })

  it('filters that a file lacks are computed, and newer names of a weight norm are read', async () => {
    const { mel, waveform } = await answer()
    const state = (await BigVGAN.fromPretrained(published)).stateDict()
    const to = mkdtempSync(join(directory, 'names-'))
    const renamed = Object.entries(state)
      .filter(([name]) => !name.endsWith('.filter'))
      .map(([name, value]) => [
        name
          .replace('weight_g', 'parametrizations.weight.original0')
          .replace('weight_v', 'parametrizations.weight.original1'),
        value,
      ])
    await saveSafetensors(join(to, 'model.safetensors'), Object.fromEntries(renamed))
    copyFileSync(join(published, 'config.json'), join(to, 'config.json'))
    const model = await BigVGAN.fromPretrained(to)
    expectClose((await model.forward({ mel })).waveform, waveform, 1e-5)
  })

  it('what is none, or lacks a part, is named', async () => {
    const to = mkdtempSync(join(directory, 'bad-'))
    copyFileSync(join(published, 'bigvgan_generator.pt'), join(to, 'bigvgan_generator.pt'))
    await expect(BigVGAN.fromPretrained(to)).rejects.toThrow(/config\.json/)
    const config = JSON.parse(readFileSync(join(published, 'config.json'), 'utf8'))
    const write = (changes: object) => writeFileSync(join(to, 'config.json'), JSON.stringify({ ...config, ...changes }))
    write({ upsample_initial_channel: 8 })
    await expect(BigVGAN.fromPretrained(to)).rejects.toThrow(CheckpointError)
    write({ model_type: 'whisper' })
    await expect(BigVGAN.fromPretrained(to)).rejects.toThrow(/Whisper/)
    copyFileSync(fixturePath('models/beats-zip.pt'), join(to, 'bigvgan_generator.pt'))
    write({})
    await expect(BigVGAN.fromPretrained(to)).rejects.toThrow(/generator/)
  })

  it.each([
    [{ upsampleRates: [4, 0] }, /upsampleRates/],
    [{ upsampleKernelSizes: [8] }, /one length/],
    [{ upsampleKernelSizes: [7, 4] }, /upsample_kernel_sizes\[0\]/],
    [{ resblockDilationSizes: [[1, 3]] }, /resblockDilationSizes/],
    [{ resblockDilationSizes: [[1, 3], [1]] }, /resblockDilationSizes: expected .* all of the same length/],
    [{ resblockKernelSizes: [3, 4] }, /odd/],
    [{ resblock: '3' }, /resblock/],
    [{ activation: 'relu' }, /snakebeta/],
    [{ upsampleInitialChannel: 2 }, /halved/],
    [{ numMels: -1 }, /num_mels/],
  ] as const)('refuses %o', (changes, sentence) => {
    expect(() => new BigVGAN({ ...configOf('v1'), ...(changes as object) })).toThrow(sentence)
    expect(() => new BigVGAN({ ...configOf('v1'), ...(changes as object) })).toThrow(ConfigError)
  })

  it('refuses a spectrogram that does not fit', async () => {
    const model = new BigVGAN(configOf('v1'))
    await expect(model.forward({ mel: randn([1, 4, 7]) })).rejects.toThrow(ShapeError)
    await expect(model.forward({ mel: zeros([1, 5, 0]) })).rejects.toThrow(ShapeError)
    await expect(model.forward({ mel: 1 as never })).rejects.toThrow(/mel/)
    await expect(model.forward(null as never)).rejects.toThrow(ConfigError)
  })
})

describe('stream', () => {
  // Whose receptive field is some twenty frames.
  const model = load('v1', false).eval()
  const frames = 150
  const mel = scope(() => {
    manualSeed(5)
    return randn([5, frames])
  })
  const joined = async (pieces: AsyncIterable<Tensor>) => {
    const all: Tensor[] = []
    for await (const piece of pieces) all.push(piece)
    return { all, samples: ops.cat(all) }
  }

  it('chunks of 1 to 64 frames are the whole', async () => {
    const whole = (await noGrad(() => model.forward({ mel: mel.unsqueeze(0) }))).waveform.select(0, 0)
    for (let chunkFrames = 1; chunkFrames <= 64; chunkFrames += 1) {
      const { all, samples } = await joined(model.stream(mel, { chunkFrames }))
      expect(all.length).toBe(Math.ceil(frames / chunkFrames))
      expect(all.slice(0, -1).every((one) => one.size(0) === chunkFrames * model.samplesPerFrame)).toBe(true)
      expect(samples.shape).toEqual(whole.shape)
      expect(difference(samples, whole), `${chunkFrames} frames`).toBeLessThanOrEqual(1e-4)
      for (const one of [...all, samples]) one.dispose()
    }
  }, 300_000)

  it('the margin is needed: with a quarter of it the seams are heard', async () => {
    const whole = (await noGrad(() => model.forward({ mel: mel.unsqueeze(0) }))).waveform.select(0, 0)
    const narrow = {
      config: model.config,
      receptiveFrames: Math.floor(model.receptiveFrames / 4),
      samplesPerFrame: model.samplesPerFrame,
      forward: (inputs: { mel: Tensor }) => model.forward(inputs),
    }
    const { samples } = await joined(BigVGAN.prototype.stream.call(narrow as BigVGAN, mel, { chunkFrames: 8 }))
    expect(difference(samples, whole)).toBeGreaterThan(1e-4)
  })

  it('pieces that come one by one, of any length', async () => {
    const whole = (await noGrad(() => model.forward({ mel: mel.unsqueeze(0) }))).waveform.select(0, 0)
    let asked = 0
    async function* pieces() {
      for (let at = 0; at < frames; at += 11) {
        asked += 1
        yield mel.narrow(1, at, Math.min(11, frames - at)).unsqueeze(0)
      }
    }
    let first = 0
    const all: Tensor[] = []
    for await (const piece of model.stream(pieces(), { chunkFrames: 10 })) {
      if (all.length === 0) first = asked
      all.push(piece)
    }
    expect(difference(ops.cat(all), whole)).toBeLessThanOrEqual(1e-4)
    // As soon as what the first chunk depends on is there.
    expect(first).toBe(Math.ceil((10 + model.receptiveFrames) / 11))
  })

  it('ends when it is left, when it is aborted, and with nothing for nothing', async () => {
    const before = await settledTensors()
    for await (const piece of model.stream(mel, { chunkFrames: 4 })) {
      piece.dispose()
      break
    }
    const controller = new AbortController()
    const stream = model.stream(mel, { chunkFrames: 4, signal: controller.signal })
    ;((await stream.next()).value as Tensor).dispose()
    controller.abort(new Error('enough'))
    await expect(stream.next()).rejects.toThrow('enough')
    expect((await model.stream([]).next()).done).toBe(true)
    expect(await settledTensors()).toBe(before)
  })

  it('refuses what is no spectrogram', async () => {
    const next = (given: unknown, options = {}) => model.stream(given as Tensor, options).next()
    await expect(next(randn([4, 9]))).rejects.toThrow(ShapeError)
    await expect(next(randn([2, 5, 9]))).rejects.toThrow(ShapeError)
    await expect(next(7)).rejects.toThrow(ConfigError)
    await expect(next({})).rejects.toThrow(ConfigError)
    await expect(next([7])).rejects.toThrow(ConfigError)
    await expect(next(mel, { chunkFrames: 0 })).rejects.toThrow(/chunkFrames/)
    await expect(next(mel, { chunks: 2 })).rejects.toThrow(/chunks/)
  })
})

it('leaves no tensors but its result', async () => {
  const model = load('v2', false).eval()
  const mel = randn([1, 5, 4])
  const before = await settledTensors()
  const { waveform } = await noGrad(() => model.forward({ mel }))
  expect(memoryStats().liveTensors).toBe(before + 1)
  waveform.dispose()
})
