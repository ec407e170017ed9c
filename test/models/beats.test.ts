import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  type AudioTag,
  Beats,
  type BeatsConfig,
  CheckpointError,
  ConfigError,
  cat,
  DataError,
  loadSafetensors,
  manualSeed,
  memoryStats,
  noGrad,
  randn,
  readAudio,
  ShapeError,
  saveSafetensors,
  scope,
  type Tensor,
  writeWav,
  zeros,
} from '../../lib/index.js'
import { op, opAsync } from '../../lib/native/call.js'
import { withActiveAdapters } from '../../lib/nn/native-module.js'
import { expectClose, fixture, fixturePath, numbers, settledTensors, tensorsOf } from '../helpers.js'
import { camelKeys, expectGradients } from './networks.js'

interface Case {
  name: string
  config?: Record<string, unknown>
  lengths?: number[]
  groups?: number
  labels?: string[]
}
const file = await fixture<Case>('models/beats')
const networks = file.cases.filter(({ config, lengths }) => config && !lengths)
const configOf = (name: string): BeatsConfig =>
  camelKeys(file.cases.find((entry) => entry.name === name)?.config ?? {}) as BeatsConfig
const forward = opAsync('voxtorch::beats_forward')
const last = async (model: Beats, inputs: Parameters<Beats['forward']>[0]) =>
  (await model.forward(inputs)).lastHiddenState

/** The fixture holds the shared table once. */
function load(model: Beats, name: string): Beats {
  const state = tensorsOf(file, name, 'param')
  const shared = state['encoder.layers.0.self_attn.relative_attention_bias.weight']
  for (const key of Object.keys(model.stateDict())) {
    if (shared && key.endsWith('relative_attention_bias.weight')) state[key] = shared
  }
  model.loadStateDict(state)
  return model
}

describe('against the restated published arithmetic', () => {
  it.each(networks)('$name', async ({ name }) => {
    const model = load(new Beats(configOf(name)), name)
    const { fbank, padding_mask: paddingMask = null } = tensorsOf(file, name, 'in')
    const out = tensorsOf(file, name, 'out')
    const cotangent = tensorsOf(file, name, 'cotangent')
    const settings = { paddingMask }
    const { lastHiddenState, paddingMask: reduced } = (await forward(
      withActiveAdapters(model),
      fbank,
      null,
      settings,
    )) as {
      lastHiddenState: Tensor
      paddingMask: Tensor | null
    }
    expectClose(lastHiddenState, out.last as Tensor, 1e-5, 'output')
    if (out.padding) expect((reduced as Tensor).equal(out.padding)).toBe(true)
    else expect(reduced).toBeNull()
    type Answer = { logits: Tensor; probabilities: Tensor }
    const classify = (input: Tensor) =>
      opAsync('voxtorch::beats_classify')(withActiveAdapters(model), input, null, settings) as Promise<Answer>
    if (cotangent.logits) {
      const { logits, probabilities } = await classify(fbank as Tensor)
      expectClose(logits, out.logits as Tensor, 1e-5, 'logits')
      expectClose(probabilities, out.probabilities as Tensor, 1e-5, 'probabilities')
    }
    const back = async (input: Tensor) => {
      const states = (await forward(withActiveAdapters(model), input, null, settings)) as { lastHiddenState: Tensor }
      const loss = states.lastHiddenState.mul(cotangent.last as Tensor).sum()
      return (cotangent.logits ? loss.add((await classify(input)).logits.mul(cotangent.logits).sum()) : loss).backward()
    }
    await back(fbank as Tensor)
    await expectGradients(model, file, name, { again: (as) => back(as(fbank as Tensor)) })

    const full = (await forward(withActiveAdapters(model), fbank, null, {
      ...settings,
      outputHiddenStates: true,
      outputAttentions: true,
    })) as { lastHiddenState: Tensor; hiddenStates: Tensor[]; attentions: Tensor[] }
    expectClose(full.lastHiddenState, out.last as Tensor, 1e-5, 'with attentions')
    const layers = model.config.encoderLayers as number
    expect([full.hiddenStates.length, full.attentions.length]).toEqual([layers + 1, layers])
    if (!out['hidden.0']) return
    full.hiddenStates.forEach((hidden, i) => {
      expectClose(hidden, out[`hidden.${i}`] as Tensor, 1e-5, `hidden state ${i}`)
    })
  })

  it('buckets of distances, all from -1500 to 1500', () => {
    const of = op('voxtorch::relative_position_buckets')
    const { published, near } = tensorsOf(file, 'buckets', 'out')
    expect(published?.equal((of(1501, 320, 800) as Tensor).to(published.device))).toBe(true)
    expect(near?.equal((of(41, 12, 9) as Tensor).to(near.device))).toBe(true)
    const table = numbers(of(1500, 320, 800) as Tensor).map(Number)
    const samples = [0, 1, -1, 79, 80, -80, 81, 100, -100, 200, 400, 799, 800, 1499, -1499]
    const wanted = [0, 161, 1, 239, 240, 80, 240, 247, 87, 271, 295, 319, 319, 319, 159]
    expect(samples.map((distance) => table[distance + 1499])).toEqual(wanted)
    expect(() => of(5, 3, 800)).toThrow(/num_buckets/)
  })

  it.each(file.cases.filter(({ groups }) => groups))('$name of a padding mask', async ({ name, groups = 1 }) => {
    // A network whose patches are single bands of single frames: only one of the two reductions does anything.
    const tiny = { ...configOf('padded'), inputPatchSize: 1, encoderLayers: 0 }
    const model = new Beats(tiny)
    const { mask } = tensorsOf(file, name, 'in')
    const rows = (mask as Tensor).size(0)
    const settings = { paddingMask: mask }
    const { paddingMask } = (await forward(withActiveAdapters(model), zeros([rows, groups, 1]), null, settings)) as {
      paddingMask: Tensor
    }
    expect(paddingMask.equal(tensorsOf(file, name, 'out').mask as Tensor)).toBe(true)
  })

  it('a clip of one second in a batch of two leaves two patches of its padding in', async () => {
    const model = new Beats({ ...configOf('padded'), inputPatchSize: 16, encoderLayers: 0 })
    const inputValues = randn([2, 32000])
    const published = await model.forward({ inputValues, lengths: [32000, 16000], compat: 'published' })
    expect(published.paddingMask?.select(0, 1).sum().item()).toBe(46)
    const exact = await model.forward({ inputValues, lengths: [32000, 16000] })
    expect(exact.paddingMask?.select(0, 1).sum().item()).toBe(48)
  })
})

describe('padding', () => {
  const model = load(new Beats(configOf('alone')).eval(), 'alone')
  const { lengths = [] } = file.cases.find(({ name }) => name === 'alone') ?? {}
  const fbank = tensorsOf(file, 'alone', 'in').fbank as Tensor

  it('changes nothing: each row is the clip alone, then zeros', async () => {
    const out = tensorsOf(file, 'alone', 'out')
    const { lastHiddenState } = await model.forward({ fbank, lengths })
    const { logits } = await model.classify({ fbank, lengths })
    lengths.forEach((_, i) => {
      const alone = out[`last.${i}`] as Tensor
      const row = lastHiddenState.narrow(0, i, 1)
      const own = alone.size(1)
      expectClose(row.narrow(1, 0, own), alone, 1e-5, `row ${i}`)
      expect(
        row
          .narrow(1, own, row.size(1) - own)
          .abs()
          .sum()
          .item(),
      ).toBe(0)
      expectClose(logits.narrow(0, i, 1), out[`logits.${i}`] as Tensor, 1e-5, `logits ${i}`)
    })
  })

  it('of any kind and length changes nothing, and passes no gradient', async () => {
    const padding = randn([3, 20, fbank.size(2)]).mul(100)
    const longer = cat([fbank, padding], 1).detach()
    longer.requiresGrad = true
    const [short, long] = [await last(model, { fbank, lengths }), await last(model, { fbank: longer, lengths })]
    expectClose(long.narrow(1, 0, short.size(1)), short, 1e-5)
    await long.sum().backward()
    const gradient = longer.grad as Tensor
    lengths.forEach((length, i) => {
      const rest = gradient.select(0, i).narrow(0, length, longer.size(1) - length)
      expect(rest.abs().sum().item()).toBe(0)
    })
  })

  it('as published does change it', async () => {
    const rows = [31, 17, 17]
    const [exact, published] = [
      await last(model, { fbank, lengths: rows }),
      await last(model, { fbank, lengths: rows, compat: 'published' }),
    ]
    expect(published.select(0, 1).sub(exact.select(0, 1)).abs().max().item()).toBeGreaterThan(0.01)
    expectClose(published.select(0, 0), exact.select(0, 0))
  })

  it('waveforms of different lengths too', async () => {
    const wide = new Beats({ ...configOf('padded'), inputPatchSize: 16 }).eval()
    const clips = [randn([12000]).mul(0.1), randn([5000]).mul(0.1)]
    const batch = zeros([2, 12000])
    clips.forEach((clip, i) => {
      batch.select(0, i).narrow(0, 0, clip.size(0)).copy_(clip)
    })
    const together = await last(wide, { inputValues: batch, lengths: [12000, 5000] })
    for (const [i, clip] of clips.entries()) {
      const alone = await last(wide, { inputValues: clip.unsqueeze(0) })
      expectClose(together.narrow(0, i, 1).narrow(1, 0, alone.size(1)), alone, 1e-5)
    }
  })
})

describe('training', () => {
  it('skips layers only where the network itself learns', async () => {
    const model = load(new Beats({ ...configOf('padded'), encoderLayerdrop: 1, dropout: 0.5 }), 'padded')
    const fbank = randn([1, 12, 8])
    const none = (await model.forward({ fbank, outputHiddenStates: true, outputAttentions: true })).attentions
    expect(none).toEqual([])
    model.freeze()
    const frozen = await model.forward({ fbank, outputAttentions: true })
    expect(frozen.attentions.length).toBe(2)
    model.eval()
    expectClose(await last(model, { fbank }), frozen.lastHiddenState)
  })

  it('has one shared table, under every layer name', async () => {
    const model = new Beats({ ...configOf('padded'), encoderLayers: 3 })
    const names = Object.keys(model.stateDict()).filter((name) => name.includes('relative_attention_bias'))
    expect(names).toEqual([0, 1, 2].map((i) => `encoder.layers.${i}.self_attn.relative_attention_bias.weight`))
    const listed = model.namedParameters().filter(([name]) => name.includes('relative_attention_bias'))
    expect(listed.map(([name]) => name)).toEqual(['encoder.layers.0.self_attn.relative_attention_bias.weight'])
  })

  it('gives the same gradients with checkpointing', async () => {
    const model = load(new Beats(configOf('decayed')), 'decayed')
    const fbank = tensorsOf(file, 'decayed', 'in').fbank as Tensor
    model.gradientCheckpointing(true)
    const cotangent = tensorsOf(file, 'decayed', 'cotangent').last as Tensor
    await (await last(model, { fbank })).mul(cotangent).sum().backward()
    await expectGradients(model, file, 'decayed')
  })
})

describe('files', () => {
  const directory = mkdtempSync(join(tmpdir(), 'voxtorch-beats-'))
  afterAll(() => rmSync(directory, { recursive: true }))

  it.each([
    ['zip', {}],
    ['zip', { mmap: true }],
    ['legacy', {}],
  ])('reads the published layout, %s %o', async (layout, options) => {
    const answers = await fixture<Case>('models/beats-pretrained')
    const model = await Beats.fromPretrained(fixturePath(`models/beats-${layout}.pt`), options)
    const fbank = tensorsOf(answers, 'pretrained', 'in').fbank as Tensor
    const out = tensorsOf(answers, 'pretrained', 'out')
    expect(model.training).toBe(false)
    expect(model.labels).toEqual(answers.cases[0]?.labels)
    expectClose(await last(model, { fbank }), out.last as Tensor)
    expectClose((await model.classify({ fbank })).probabilities, out.probabilities as Tensor)
    expect(model.namedParameters().filter(([name]) => name.includes('relative_attention_bias')).length).toBe(1)

    await model.save(join(directory, layout))
    const again = await Beats.fromPretrained(join(directory, layout))
    expect(again.labels).toEqual(model.labels)
    expect((await last(again, { fbank })).equal(await last(model, { fbank }))).toBe(true)
    const half = await Beats.fromPretrained(join(directory, layout), { dtype: 'bfloat16' })
    expectClose((await last(half, { fbank })).float(), out.last as Tensor, 0.05)
  })

  it('says what is wrong with a file', async () => {
    const load = (from: string) => Beats.fromPretrained(from)
    await expect(load(join(directory, 'BEATs_nowhere.pt'))).rejects.toThrow(CheckpointError)
    await expect(load(join(directory, 'BEATs_nowhere.pt'))).rejects.toThrow(
      /expected a BEATs checkpoint, which does not exist/,
    )
    await expect(load(fixturePath('models/roberta-bin/pytorch_model.bin'))).rejects.toThrow(
      /expected a BEATs checkpoint with the dictionary 'cfg'/,
    )
    writeFileSync(join(directory, 'broken.pt'), 'not a checkpoint')
    await expect(load(join(directory, 'broken.pt'))).rejects.toThrow(CheckpointError)
    await expect(load(join(directory, 'broken.pt'))).rejects.toThrow(/has 16 bytes; it may be a web page.*363,145,291/)
    const whole = readFileSync(fixturePath('models/beats-zip.pt'))
    writeFileSync(join(directory, 'half.pt'), whole.subarray(0, whole.length / 2))
    await expect(load(join(directory, 'half.pt'))).rejects.toThrow(
      /half\.pt: .*an incomplete download.*363,145,291 bytes/,
    )
    const sha256 = createHash('sha256').update(whole).digest('hex')
    const of = (from: string) => Beats.fromPretrained(from, { sha256 })
    ;(await of(fixturePath('models/beats-zip.pt'))).dispose()
    await expect(of(fixturePath('models/beats-legacy.pt'))).rejects.toThrow(/expected the SHA-256 .*, got [0-9a-f]{64}/)
    await expect(of(directory)).rejects.toThrow(/expected a file with sha256, got a directory/)

    await (await load(fixturePath('models/beats-zip.pt'))).save(join(directory, 'untied'))
    const weights = join(directory, 'untied/model.safetensors')
    const { tensors } = await loadSafetensors(weights)
    const alias = 'encoder.layers.2.self_attn.relative_attention_bias.weight'
    const { [alias]: bias, 'layer_norm.weight': _, ...rest } = tensors
    await saveSafetensors(weights, rest)
    await expect(load(join(directory, 'untied'))).rejects.toMatchObject({ missing: ['layer_norm.weight'] })
    await saveSafetensors(weights, { ...tensors, [alias]: (bias as Tensor).add(1) })
    await expect(load(join(directory, 'untied'))).rejects.toThrow(/which BEATs. layers share, got others/)
  })
})

describe('tags', () => {
  const model = () => Beats.fromPretrained(fixturePath('models/beats-wave.pt'))
  const probabilitiesOf = (tags: AudioTag[]) => {
    const values = new Float64Array(tags.length)
    for (const { index, probability } of tags) values[index] = probability
    return [...values]
  }

  it('are what the predictor says, in order, of one clip and of many', async () => {
    const beats = await model()
    const clips = [randn([20000]).mul(0.1), randn([4000]).mul(0.1), randn([9000]).mul(0.1)]
    const all = await beats.tag(clips, { topK: 9, batchSize: 2 })
    for (const [i, clip] of clips.entries()) {
      const { probabilities } = await beats.classify({ inputValues: clip.unsqueeze(0) })
      const found = probabilitiesOf(all[i] as AudioTag[])
      numbers(probabilities).forEach((value, k) => {
        expect(found[k]).toBeCloseTo(Number(value), 5)
      })
      const order = (all[i] as AudioTag[]).map(({ probability }) => probability)
      expect(order).toEqual([...order].sort((a, b) => b - a))
      expect((all[i] as AudioTag[]).every(({ label, index }) => label === beats.labels?.[index])).toBe(true)
    }
    expect(await beats.tag(clips[0] as Tensor, { topK: 2 })).toEqual((all[0] as AudioTag[]).slice(0, 2))
  })

  it('of a file at another rate, its bytes and what readAudio gives', async () => {
    const beats = await model()
    const path = join(mkdtempSync(join(tmpdir(), 'voxtorch-tags-')), 'clip.wav')
    await writeWav(path, randn([2, 24000]).mul(0.05).clamp(-1, 1), { sampleRate: 8000 })
    const tags = await beats.tag(path)
    expect(tags.length).toBe(4)
    expect(await beats.tag([await readFile(path)])).toEqual([tags])
    const heard = await beats.tag(await readAudio(path))
    heard.forEach(({ probability }, i) => {
      expect(probability).toBeCloseTo(tags[i]?.probability as number, 4)
    })
    rmSync(join(path, '..'), { recursive: true })
  })

  it('of long audio: in equal parts, cut, or refused', async () => {
    const beats = await model()
    const clip = randn([40000]).mul(0.1)
    const parts = await Promise.all(
      [0, 1, 2].map(async (i) => {
        const from = Math.round((i * 40000) / 3)
        const to = Math.round(((i + 1) * 40000) / 3)
        return probabilitiesOf(await beats.tag(clip.narrow(0, from, to - from)))
      }),
    )
    const long = probabilitiesOf(await beats.tag(clip, { maxSeconds: 1 }))
    long.forEach((value, i) => {
      expect(value).toBeCloseTo(parts.reduce((sum, part) => sum + (part[i] as number), 0) / 3, 4)
    })
    const warned: string[] = []
    const listen = (warning: Error) => warned.push(warning.message)
    process.on('warning', listen)
    expect(await beats.tag(clip, { maxSeconds: 1, longAudio: 'cut' })).toEqual(
      await beats.tag(clip.narrow(0, 0, 16000)),
    )
    await new Promise((resolve) => setImmediate(resolve))
    process.off('warning', listen)
    expect(warned.join()).toMatch(/expected at most 1 s of audio, got 2.5 s/)
    await expect(beats.tag(clip, { maxSeconds: 1, longAudio: 'error' })).rejects.toThrow(DataError)
  })

  it('refuse what they cannot hear', async () => {
    const beats = await model()
    await expect(beats.tag([zeros([16000]), zeros([2799])])).rejects.toThrow(
      /clip 1: expected at least 2800 samples .*, got 2799/,
    )
    expect((await beats.tag(zeros([2800]))).length).toBe(4)
    await expect(beats.tag(zeros([2, 16000]))).rejects.toThrow(ConfigError)
    await expect(beats.tag(zeros([16000]), { topK: 0 })).rejects.toThrow(ConfigError)
    await expect(beats.tag(zeros([16000]), { longAudio: 'skip' as 'error' })).rejects.toThrow(ConfigError)
    const plain = new Beats(configOf('padded'))
    await expect(plain.tag(zeros([16000]))).rejects.toThrow(/expected a network with a predictor/)
  })
})

describe('the module', () => {
  it('has the published names and sizes, and allocates nothing on meta', () => {
    const model = Beats.fromConfig('as2m', { device: 'meta' })
    const count = model.parameters().reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
    expect(count).toBe(90_717_055)
    expect(Object.keys(model.stateDict()).length).toBe(252)
    expect(() => Beats.fromConfig('huge')).toThrow(ConfigError)
    expect(() => Beats.fromConfig({ encoderEmbedDim: 10, encoderAttentionHeads: 3 })).toThrow(ConfigError)
    expect(() => Beats.fromConfig({ layerNormFirst: true, deepNorm: true })).toThrow(/exclude each other/)
  })

  it('starts from the seed', async () => {
    const make = () => {
      manualSeed(3)
      return new Beats(configOf('classes')).eval()
    }
    const fbank = randn([1, 12, 8])
    expect((await last(make(), { fbank })).equal(await last(make(), { fbank }))).toBe(true)
  })

  it('leaves nothing behind', async () => {
    const before = await settledTensors()
    const model = await Beats.fromPretrained(fixturePath('models/beats-wave.pt'))
    await scope(async () => {
      await noGrad(() => model.forward({ inputValues: zeros([2, 8000]), lengths: [8000, 4000] }))
      await model.forward({ inputValues: zeros([2, 8000]), lengths: [8000, 4000], compat: 'published' })
    })
    const clip = zeros([8000])
    await model.tag([clip, clip])
    clip.dispose()
    model.dispose()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
    await expect(Beats.fromPretrained(fixturePath('models/roberta-bin/pytorch_model.bin'))).rejects.toThrow(
      CheckpointError,
    )
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('refuses what does not fit with a typed error', async () => {
    const model = new Beats({ ...configOf('padded'), inputPatchSize: 16 })
    const inputValues = zeros([2, 16000])
    await expect(model.forward({})).rejects.toThrow(ConfigError)
    await expect(model.forward({ inputValues, fbank: inputValues })).rejects.toThrow(ConfigError)
    await expect(model.forward({ inputValues: zeros([1, 2799]) })).rejects.toThrow(
      /expected at least 2800 samples, .*, got 2799/,
    )
    await expect(model.forward({ inputValues: zeros([1, 2799]) })).rejects.toThrow(ShapeError)
    await expect(model.forward({ inputValues: zeros([16000]) })).rejects.toThrow(ShapeError)
    await expect(model.forward({ inputValues, lengths: [16000] })).rejects.toThrow(ShapeError)
    await expect(model.forward({ inputValues, lengths: [16000, 2799] })).rejects.toThrow(/lengths\[1\]/)
    await expect(model.forward({ inputValues, lengths: [16001, 2800] })).rejects.toThrow(/lengths\[0\]/)
    await expect(model.forward({ fbank: zeros([1, 20, 4]) })).rejects.toThrow(ShapeError)
    await expect(model.forward({ inputValues, compat: 'other' as 'published' })).rejects.toThrow(ConfigError)
    expect((await last(model, { inputValues: zeros([1, 2800]) })).shape).toEqual([1, 8, 8])
  })
})
