import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  arange,
  BigVGAN,
  ConfigError,
  eye,
  Generator,
  IndexError,
  keepForever,
  memoryStats,
  type NativeModule,
  noGrad,
  ops,
  randint,
  randn,
  ShapeError,
  scope,
  type Tensor,
  tensor,
  UnitVoicebox,
  type UnitVoiceboxConfig,
  type UnitVoiceboxGenerateInputs,
  zeros,
  zerosLike,
} from '../../lib/index.js'
import { difference, expectClose, fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'
import { type As, camelKeys, expectGradients, loadParameters } from './networks.js'

interface Case {
  name: string
  config?: Record<string, unknown>
  lengths?: number[] | null
}
const file = await fixture<Case>('models/unit-voicebox')
const configOf = (name: string): UnitVoiceboxConfig =>
  camelKeys(file.cases.find((entry) => entry.name === name)?.config ?? {}) as UnitVoiceboxConfig
function load(name: string): UnitVoicebox {
  const model = new UnitVoicebox(configOf(name))
  loadParameters(model, file, name)
  return model
}
type Given = Record<'units' | 'mel' | 'noise' | 'time' | 'visible', Tensor>
const givenOf = (name: string) => tensorsOf(file, name, 'in') as Given

describe('against the restated network', () => {
  it.each(file.cases)('$name', async ({ name, lengths }) => {
    const model = load(name)
    const { units, mel, noise, time, visible } = givenOf(name)
    const out = tensorsOf(file, name, 'out')
    const ends = lengths ? { lengths } : {}
    const condition = mel.mul(visible.unsqueeze(1).to(mel.dtype))
    const { velocity } = await model.forward({ units, noisy: noise, condition, time, ...ends })
    expectClose(velocity, out.velocity as Tensor, 1e-5, 'velocity')
    for (const [row, end] of (lengths ?? []).entries()) {
      expect(
        velocity
          .select(0, row)
          .narrow(1, end, 13 - end)
          .abs()
          .sum()
          .item(),
      ).toBe(0)
    }
    const { loss } = await model.loss({ units, mel, noise, time, visible, ...ends })
    expectClose(loss, out.loss as Tensor, 1e-5, 'loss')
    const back = async (as: As) => {
      const inputs = {
        units,
        mel: as(mel),
        noise: as(noise),
        time: as === same ? time : time.double(),
        visible,
        ...ends,
      }
      return (await model.loss(inputs)).loss.backward()
    }
    await back(same)
    await expectGradients(model, file, name, { again: back })
  })
  const same: As = (input) => input

  it('a row of a padded batch is that row alone', async () => {
    const model = load('padded').eval()
    const { units, noise, time } = givenOf('padded')
    const condition = ops.zerosLike(noise)
    const { velocity } = await model.forward({ units, noisy: noise, condition, time, lengths: [13, 7] })
    const alone = await model.forward({
      units: units.narrow(0, 1, 1).narrow(1, 0, 7),
      noisy: noise.narrow(0, 1, 1).narrow(2, 0, 7),
      condition: condition.narrow(0, 1, 1).narrow(2, 0, 7),
      time: time.narrow(0, 1, 1),
    })
    expectClose(velocity.narrow(0, 1, 1).narrow(2, 0, 7), alone.velocity, 1e-5)
  })

  it('gradients are the same with checkpointing', async () => {
    const { units, mel, noise, time, visible } = givenOf('padded')
    const gradients = async (enabled: boolean) => {
      const model = load('padded').gradientCheckpointing(enabled)
      const { loss } = await model.loss({ units, mel, noise, time, visible, lengths: [13, 7] })
      await loss.backward()
      // A bias of the keys changes nothing: what is left of its gradient is rounding.
      const named = model.namedParameters().filter(([name]) => !name.endsWith('k_proj.bias'))
      return named.map(([, one]) => one.grad as Tensor)
    }
    const [plain, again] = [await gradients(false), await gradients(true)]
    plain.forEach((one, i) => void expectClose(again[i] as Tensor, one, 1e-5))
  })

  it('nothing is dropped but in training', async () => {
    const model = new UnitVoicebox({
      ...configOf('whole'),
      activationDropout: 0.5,
      hiddenDropout: 0.5,
      attentionDropout: 0.5,
    })
    const { units, noise, time } = givenOf('whole')
    const run = () =>
      noGrad(async () => (await model.forward({ units, noisy: noise, condition: ops.zerosLike(noise), time })).velocity)
    expect((await run()).equal(await run())).toBe(false)
    model.eval()
    expect((await run()).equal(await run())).toBe(true)
  })
})

describe("the original's numbers", () => {
  /** A network of which nothing is left but what is looked at: parameters by name, all others 0. */
  function bare(config: UnitVoiceboxConfig, given: (name: string, one: Tensor) => Tensor | undefined): UnitVoicebox {
    const model = new UnitVoicebox({ nFeats: 5, nTokens: 11, embeddingDim: 6, convposWidth: 5, ...config }).eval()
    noGrad(() => {
      for (const [name, one] of model.namedParameters()) {
        if (name.endsWith('norm.weight')) one.fill_(1)
        else one.copy_(given(name, one) ?? zerosLike(one))
      }
    })
    return model
  }
  /** What goes into a part, and comes out of it, at time 0.5. */
  async function passed(model: UnitVoicebox, path: string, frames: number): Promise<[Tensor, Tensor]> {
    let seen: [Tensor, Tensor] | undefined
    const kept = (one: Tensor) => keepForever(one.detach().double())
    const remove = model.get<NativeModule>(path).registerForwardHook((_, inputs, output) => {
      seen = [kept([inputs].flat()[0] as Tensor), kept(output as Tensor)]
    })
    const units = zeros([1, frames], { dtype: 'int64' })
    const noisy = randn([1, 5, frames])
    await noGrad(() => model.forward({ units, noisy, condition: noisy, time: tensor([0.5]) }))
    remove()
    return seen as [Tensor, Tensor]
  }

  it('the token of time 0.5: sin(500) = -0.467772 and cos(500) = -0.883849 first, a last frequency of 1e-4', async () => {
    const model = bare({ hiddenSize: 1024, intermediateSize: 8, numAttentionHeads: 16, numHiddenLayers: 0 }, (name, one) => (name.endsWith('original1') ? randn(one.shape) : undefined)) // biome-ignore format: one line
    const [given] = await passed(model, 'estimator.proj_out', 3)
    const token = given.select(0, 0).select(0, 0).toArray() as number[]
    // A norm stands behind the token: what it takes away is of the whole, by the formula.
    const angles = Array.from({ length: 512 }, (_, i) => 500 * 10_000 ** (-i / 511))
    const whole = [...angles.map(Math.sin), ...angles.map(Math.cos)]
    const mean = whole.reduce((sum, one) => sum + one, 0) / 1024
    const deviation = Math.sqrt(whole.reduce((sum, one) => sum + (one - mean) ** 2, 0) / 1024 + 1e-5)
    const at = (i: number) => (token[i] as number) * deviation + mean
    expect(at(0)).toBeCloseTo(-0.467772, 5)
    expect(at(512)).toBeCloseTo(-0.883849, 5)
    // 1000 · 0.5 · 1e-4
    expect([at(511), at(1023)].map((one) => one.toFixed(5))).toEqual(['0.04998', '0.99875'])
  })

  // The slopes of 16 heads as the specification writes them, and those of 6 as Press et al. (2022) make them.
  it.each([
    [
      [Math.SQRT1_2, 0.5, 0.353553, 0.25, 0.176777, 0.125, 0.088388, 0.0625],
      [0.044194, 0.03125, 0.022097, 0.015625, 0.011049, 0.0078125, 0.005524, 0.00390625],
    ].flat(),
    [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125],
  ])('the biases of attention: slopes %f, %f, …', async (...slopes) => {
    const heads = slopes.length
    const hidden = 8 * heads
    const model = bare(
      { hiddenSize: hidden, intermediateSize: 8, numAttentionHeads: heads, numHiddenLayers: 2, convposGroups: 2 },
      (name, one) => {
        if (/(v|out)_proj\.weight$/.test(name)) return eye(hidden)
        return /proj_in|embed/.test(name) ? randn(one.shape) : undefined
      },
    )
    const [given, made] = await passed(model, 'estimator.layers.0.attention', 5)
    const bias = (head: number, i: number, j: number) => (j === 0 ? 0 : -(slopes[head] as number) * Math.abs(i - j))
    if (heads === 16) {
      expect(bias(0, 5, 3)).toBeCloseTo(-Math.SQRT2, 5)
      expect(bias(0, 0, 3)).toBeCloseTo(-2.12132, 5)
    }
    // Queries and keys are 0: a token sees the others by their biases alone.
    const table = Array.from({ length: heads }, (_, head) =>
      Array.from({ length: 6 }, (_, i) => Array.from({ length: 6 }, (_, j) => bias(head, i, j))),
    )
    const seen = tensor(table, { dtype: 'float64' }).softmax(-1) // [heads, 6, 6]
    const values = given.reshape([6, heads, 8]).transpose(0, 1)
    const wanted = seen.matmul(values).transpose(0, 1).reshape([1, 6, hidden])
    expectClose(made, wanted, 1e-5)
    // The first of them, as it stands in what came out: how much less token 5 sees of 3 than of 0.
    const own = made.reshape([6, heads, 8]).select(1, 0).select(0, 5).reshape([1, 8])
    const weights = ops.linalgLstsq(values.select(0, 0).transpose(0, 1), own.transpose(0, 1)).solution.flatten()
    const [first, third] = [0, 3].map((i) => weights.select(0, i).item<number>()) as [number, number]
    expect(Math.log(third / first)).toBeCloseTo(bias(0, 5, 3), 3)
  })
})

describe('loss', () => {
  it('is 0 where no frame is asked for, with gradients of 0', async () => {
    const model = load('whole')
    const { units, mel } = givenOf('whole')
    const visible = arange(13).ge(0).expand([2, 13])
    const { loss } = await model.loss({ units, mel, visible })
    expect(loss.item()).toBe(0)
    await loss.backward()
    expect(model.parameters().every((one) => one.grad === null || one.grad.abs().sum().item() === 0)).toBe(true)
  })

  it('draws time and noise, the same for a seed', async () => {
    const model = load('whole')
    const { units, mel } = givenOf('whole')
    const [a, b] = [await model.loss({ units, mel }), await model.loss({ units, mel })]
    expect(Number.isFinite(a.loss.item())).toBe(true)
    expect(a.loss.item()).not.toBe(b.loss.item())
  })
})

describe('sampling', () => {
  const sampled = ['padded', 'six-heads'].flatMap((name) =>
    ['euler-3-0.0', 'euler-2-1.0', 'heun-6-0.7', 'heun-5-0.0'].map((key) => ({ name, key })),
  )
  it.each(sampled)('$name, $key, as the restatement', async ({ name, key }) => {
    const model = load(name)
    const { units, mel, noise } = givenOf(name)
    const [solver, steps, guidance] = key.split('-') as ['euler' | 'heun', string, string]
    const lengths = file.cases.find((entry) => entry.name === name)?.lengths
    const given = {
      units,
      noise,
      solver,
      steps: Number(steps),
      guidance: Number(guidance),
      ...(lengths && { lengths }),
    }
    const out = tensorsOf(file, name, 'out')
    expectClose(await model.generate(given), out[`sample/${key}`] as Tensor, 1e-5)
    const prompted = { ...given, prompt: mel, promptLengths: [4, 2], promptNoise: 'fixed' as const }
    expectClose(await model.generate(prompted), out[`prompted/${key}`] as Tensor, 1e-5)
    // The frames of a prompt alone, as long as the longest.
    const short = { ...prompted, prompt: mel.narrow(2, 0, 4) }
    expectClose(await model.generate(short), out[`prompted/${key}`] as Tensor, 1e-5)
    expect(model.training).toBe(true)
  })

  it('a path of steps ends where the network was evaluated as often as asked', async () => {
    const model = load('whole')
    const { units } = givenOf('whole')
    const done: number[] = []
    let evaluations = 0
    const forward = model.forward.bind(model)
    model.forward = (inputs) => {
      evaluations += 1
      return forward(inputs)
    }
    await model.generate({ units, steps: 50, guidance: 0, onProgress: (share) => done.push(share) })
    expect([evaluations, done.length, done.at(-1)]).toEqual([49, 25, 1])
    await model.generate({ units, steps: 7, solver: 'euler' })
    expect(evaluations).toBe(49 + 7)
  })

  it.each(['euler', 'heun'] as const)('%s on a linear field is its closed form', async (solver) => {
    const model = load('whole').eval()
    const { units, noise } = givenOf('whole')
    const a = -1.3
    model.forward = async ({ noisy }) => ({ velocity: noisy.mul(a) })
    for (const steps of [1, 4, 10]) {
      const count = solver === 'heun' ? Math.floor((steps + 1) / 2) : steps
      const step = a / count
      // The last step of Heun's method is one of Euler.
      const growth = solver === 'heun' ? (1 + step + step ** 2 / 2) ** (count - 1) * (1 + step) : (1 + step) ** steps
      const made = await model.generate({ units, noise, steps, solver, guidance: 0 })
      expectClose(made, noise.mul(growth), 1e-5, `${steps} steps`)
      // Beside itself guidance changes nothing.
      const guided = await model.generate({ units, noise, steps, solver, guidance: 2 })
      expectClose(guided, made, 1e-5)
    }
  })

  it('redrawn noise is drawn at every evaluation, as the original does: a restatement', async () => {
    const model = load('whole').eval()
    const { units, mel, noise, time } = givenOf('whole')
    const [steps, known, seed] = [6, 4, 7]
    const restated = (often: boolean) =>
      noGrad(async () => {
        const generator = new Generator({ seed, device: 'cpu' })
        const draw = () => randn(noise.shape, { device: 'cpu', generator })
        const inside = arange(13).lt(known)
        const condition = ops.where(inside, mel, zerosLike(mel))
        const velocity = async (noisy: Tensor, t: number) =>
          (await model.forward({ units, noisy, condition, time: ops.fullLike(time, t) })).velocity
        const held = (z: Tensor, t: number, under: Tensor) =>
          ops.where(inside, under.mul(1 - (1 - 1e-4) * t).add(mel.mul(t)), z)
        const count = steps / 2
        let z = draw()
        for (let step = 0; step < count; step += 1) {
          const [t, ahead, dt] = [step / count, (step + 1) / count, 1 / count]
          const first = await velocity(z, t)
          const under = draw()
          const there = held(z.add(first.mul(dt)), ahead, under)
          if (step === count - 1) z = there
          else {
            const second = await velocity(there, ahead)
            z = held(z.add(first.add(second).mul(dt / 2)), ahead, often ? draw() : under)
          }
        }
        generator.dispose()
        return z
      })
    const made = await model.generate({ units, prompt: mel.narrow(2, 0, known), steps, guidance: 0, seed })
    expectClose(made, await restated(true), 1e-5)
    // With one draw a step it is something else, also in what is said.
    const once = await restated(false)
    expect(difference(once.narrow(2, known, 9), made.narrow(2, known, 9))).toBeGreaterThan(1e-3)
  })

  it('redrawn noise leaves the prompt where it is known, and the seed fixes all', async () => {
    const model = load('whole')
    const { units, mel } = givenOf('whole')
    const given: UnitVoiceboxGenerateInputs = { units, prompt: mel.narrow(2, 0, 3), steps: 4, seed: 7 }
    const [a, b, c] = [
      await model.generate(given),
      await model.generate(given),
      await model.generate({ ...given, seed: 8 }),
    ]
    expect(a.equal(b)).toBe(true)
    expect(a.equal(c)).toBe(false)
    // (1 - (1 - sigmaMin)) of noise is left at the end.
    expect(
      a
        .narrow(2, 0, 3)
        .sub(mel.narrow(2, 0, 3))
        .abs()
        .max()
        .item(),
    ).toBeLessThan(1e-3)
    const fixed = await model.generate({ ...given, promptNoise: 'fixed' })
    expect(fixed.equal(a)).toBe(false)
  })

  it('a seed draws the same noise in every dtype, as on every device', async () => {
    const model = load('whole').eval()
    const { units } = givenOf('whole')
    const wide = new UnitVoicebox(model.config, { dtype: 'float64' }).eval()
    wide.loadStateDict(Object.fromEntries(Object.entries(model.stateDict()).map(([name, one]) => [name, one.double()])))
    const [narrow, exact] = [await model.generate({ units, steps: 4, seed: 3 }), await wide.generate({ units, steps: 4, seed: 3 })] // biome-ignore format: one line
    expect(exact.dtype).toBe('float64')
    expectClose(narrow, exact.float(), 1e-4)
    const other = await wide.generate({ units, steps: 4, seed: 4 })
    expect(other.sub(exact).abs().max().item<number>()).toBeGreaterThan(0.1)
  })

  it('is given up within a step, and leaves nothing', async () => {
    const model = load('whole')
    const { units } = givenOf('whole')
    const before = await settledTensors()
    const controller = new AbortController()
    const steps: number[] = []
    const given = { units, steps: 20, signal: controller.signal }
    const onProgress = (share: number) => {
      steps.push(share)
      if (steps.length === 2) controller.abort(new Error('enough'))
    }
    await expect(model.generate({ ...given, onProgress })).rejects.toThrow('enough')
    expect(steps.length).toBe(2)
    expect(await settledTensors()).toBe(before)
    const mel = await model.generate({ units, steps: 2 })
    expect(memoryStats().liveTensors).toBe(before + 1)
    mel.dispose()
  })

  it('a reply in pieces, each behind what was said before it, has no step at a seam', async () => {
    const model = load('whole')
    const vocoder = BigVGAN.fromConfig(
      {
        ...{ numMels: 5, upsampleRates: [4, 2], upsampleKernelSizes: [8, 4], upsampleInitialChannel: 8 },
        ...{ resblockKernelSizes: [3], resblockDilationSizes: [[1, 3]], weightNorm: false },
      },
      { seed: 4 },
    ).eval()
    // Louder than fresh weights are, so that there are steps to compare with.
    noGrad(() => vocoder.parameters().forEach((one) => void one.mul_(one.ndim === 3 ? 20 : 1)))
    const [pieceFrames, context, count] = [9, 15, 6]
    const units = randint(0, 11, [1, pieceFrames * count])
    async function* pieces() {
      let said: Tensor | undefined
      for (let from = 0; from < pieceFrames * count; from += pieceFrames) {
        const before = Math.min(from, context)
        const prompt = said?.narrow(2, from - before, before)
        const made = await model.generate({
          ...{ units: units.narrow(1, from - before, before + pieceFrames), steps: 6, seed: from },
          ...(prompt && { prompt }),
        })
        // What is known stays: (1 - (1 - sigmaMin)) of noise is left on it.
        if (prompt) expect(made.narrow(2, 0, before).sub(prompt).abs().max().item()).toBeLessThan(1e-3)
        const own = made.narrow(2, before, pieceFrames)
        said = said ? ops.cat([said, own], 2) : own
        yield own
      }
    }
    const samples: number[] = []
    for await (const piece of vocoder.stream(pieces(), { chunkFrames: 4 }))
      samples.push(...(piece.toArray() as number[]))
    const seam = pieceFrames * vocoder.samplesPerFrame
    expect(samples.length).toBe(seam * count)
    const steps = samples.slice(1).map((sample, i) => Math.abs(sample - (samples[i] as number)))
    const isSeam = (i: number) => (i + 1) % seam === 0
    const largest = Math.max(...steps.filter((_, i) => !isSeam(i)))
    expect(largest).toBeGreaterThan(1e-3)
    expect(Math.max(...steps.filter((_, i) => isSeam(i)))).toBeLessThanOrEqual(3 * largest)
  })

  const { units, mel } = givenOf('whole')
  it.each<[string, Partial<UnitVoiceboxGenerateInputs>, RegExp]>([
    ['no units', { units: zeros([1, 0]).to('int64') }, /units/],
    ['a solver that is none', { solver: 'midpoint' as never }, /solver/],
    ['no steps', { steps: 0 }, /steps/],
    ['negative guidance', { guidance: -1 }, /guidance/],
    ['a prompt of other bands', { prompt: randn([2, 4, 3]) }, /prompt/],
    ['a prompt that is too long', { prompt: randn([2, 5, 14]) }, /prompt/],
    ['more of a prompt than there is', { prompt: mel.narrow(2, 0, 3), promptLengths: [4, 0] }, /promptLengths/],
    ['lengths of no prompt', { promptLengths: [1, 1] }, /promptLengths/],
    ['noise of another shape', { noise: randn([2, 5, 12]) }, /noise/],
    ['an option that is none', { step: 3 } as never, /step/],
    ['lengths that are no list', { lengths: 3 as never }, /lengths/],
    ['prompt lengths that are no list', { prompt: mel, promptLengths: 3 as never }, /promptLengths/],
    ['progress that is told to nobody', { onProgress: 1 as never }, /onProgress/],
  ])('refuses %s', async (_, changes, sentence) => {
    const model = load('whole')
    await expect(model.generate({ units, ...changes })).rejects.toThrow(sentence)
  })
})

describe('sizes and files', () => {
  it('the published size has 345,913,742 parameters', () =>
    scope(() => {
      const model = UnitVoicebox.fromConfig('xlsr-token-voicebox', { device: 'meta' })
      expect(model.parameters().reduce((sum, one) => sum + one.numel(), 0)).toBe(345_913_742)
    }))

  const directory = mkdtempSync(join(tmpdir(), 'voxtorch-unit-voicebox-'))
  afterAll(() => rmSync(directory, { recursive: true }))

  it('the published layout loads, and what is saved is the same', async () => {
    const given = await fixture('models/unit-voicebox-pretrained')
    const { units, noise, time } = tensorsOf(given, 'published', 'in') as Given
    const inputs = { units, noisy: noise, condition: ops.zerosLike(noise), time }
    const model = await UnitVoicebox.fromPretrained(fixturePath('models/unit-voicebox-published'))
    expect(model.training).toBe(false)
    const { velocity } = await model.forward(inputs)
    expectClose(velocity, tensorsOf(given, 'published', 'out').velocity as Tensor, 1e-5)
    await model.save(directory)
    const again = await UnitVoicebox.fromPretrained(directory)
    expect((await again.forward(inputs)).velocity.equal(velocity)).toBe(true)
    const written = JSON.parse(readFileSync(join(directory, 'config.json'), 'utf8'))
    expect([written.convpos_width, written.sigma_min, written.model_type]).toEqual([5, 1e-4, 'unit_voicebox'])
    expect(Object.keys(model.stateDict())).toContain(
      'estimator.pos_conv_embeds.0.conv.parametrizations.weight.original0',
    )
  })

  it.each([
    [{ numHiddenLayers: 3 }, /num_hidden_layers/],
    [{ numAttentionHeads: 5 }, /num_attention_heads/],
    [{ convposGroups: 3 }, /convpos_groups/],
    [{ hiddenSize: 2, numAttentionHeads: 1, convposGroups: 1 }, /hidden_size/],
    [{ nTokens: 0 }, /n_tokens/],
    [{ activationDropout: 2 }, /activation_dropout/],
  ])('refuses %o', (changes, sentence) => {
    expect(() => new UnitVoicebox({ ...configOf('whole'), ...changes })).toThrow(ConfigError)
    expect(() => new UnitVoicebox({ ...configOf('whole'), ...changes })).toThrow(sentence)
  })

  it('refuses inputs that do not fit', async () => {
    const model = load('whole')
    const { units, noise, time } = givenOf('whole')
    const fine = { units, noisy: noise, condition: noise, time }
    await expect(model.forward({ ...fine, noisy: randn([2, 5, 12]) })).rejects.toThrow(/noisy/)
    await expect(model.forward({ ...fine, condition: randn([2, 4, 13]) })).rejects.toThrow(ShapeError)
    await expect(model.forward({ ...fine, time: tensor([0.5]) })).rejects.toThrow(/time/)
    await expect(model.forward({ ...fine, units: units.float() })).rejects.toThrow(/units/)
    await expect(model.forward({ ...fine, lengths: [14, 1] })).rejects.toThrow(/lengths/)
    await expect(model.forward({ ...fine, lengths: [13] })).rejects.toThrow(/lengths/)
    await expect(model.forward({ ...fine, lengths: 13 as never })).rejects.toThrow(/lengths/)
    await expect(model.loss({ units, mel: noise, noise: 1 as never })).rejects.toThrow(/noise/)
    await expect(model.loss({ units, mel: noise, lengths: 13 as never })).rejects.toThrow(/lengths/)
    await expect(model.forward({ ...fine, units: randint(12, 13, [2, 13]) })).rejects.toThrow(IndexError)
    await expect(model.loss({ units, mel: noise, visible: zeros([2, 12]) })).rejects.toThrow(/visible/)
  })

  it('normalises mel spectrograms as the published model reads them', () => {
    const model = load('whole')
    expectClose(model.normalize(tensor([-5.5419, -3.3844])), tensor([0, 1]), 1e-6)
    expectClose(model.denormalize(tensor([0, 1])), tensor([-5.5419, -3.3844]), 1e-6)
  })
})
