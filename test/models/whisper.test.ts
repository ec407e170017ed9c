import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  ConfigError,
  getPeftModel,
  KvCache,
  type LoraConfig,
  memoryStats,
  noGrad,
  ones,
  ops,
  randn,
  scope,
  setNumThreads,
  type Tensor,
  tensor,
  Whisper,
  WhisperEncoder,
  type WhisperInputs,
} from '../../lib/index.js'
import { expectClose, settledTensors, tensorsOf } from '../helpers.js'
import { atReal, get } from './decoder.js'
import { type As, expectGradients } from './networks.js'
import { file, open } from './whisper.js'

setNumThreads(1)

const names = file.cases.map(({ name }) => name)

async function lossOf(name: string, checkpointing = false) {
  const opened = open(name)
  const { model, inputs, real } = opened
  model.gradientCheckpointing(checkpointing)
  get(inputs.inputFeatures).requiresGrad_()
  const cotangent = get(tensorsOf(file, name, 'cotangent').logits)
  const run = async (given: WhisperInputs) => {
    const plain = await model.forward({ ...given, logitsToKeep: 0 })
    await get(plain.loss).add(get(plain.logits).mul(cotangent).sum()).backward()
    return plain
  }
  const plain = await run(inputs)
  const again = async (as: As) => run({ ...inputs, inputFeatures: as(get(inputs.inputFeatures)) })
  // transformers takes softmax through float32, and everything where padding is on the left.
  const exact = name === 'left' ? 1e-5 : 1e-6
  return { ...opened, plain, logits: atReal(get(plain.logits), real, 1), passes: { again, exact } }
}

describe('against transformers', () => {
  it.each(names)('%s: loss, logits and all gradients', async (name) => {
    const { model, inputs, expected, plain, logits, passes } = await lossOf(name)
    expectClose(logits, get(expected.logits), 1e-5, 'logits')
    expectClose(get(plain.loss), get(expected.loss), 1e-5, 'loss')
    expectClose(get(plain.encoderLastHiddenState), get(expected.encoder), 1e-5, 'encoder')
    await expectGradients(model, file, name, passes)
    const features = get(inputs.inputFeatures)
    expectClose(get(features.grad), get(expected['input_features.grad']), 1e-5, 'gradient of input_features')
  })

  it.each(names)('%s: hidden states and attentions; without gradients too', async (name) => {
    const { model, inputs, expected, real } = open(name)
    const all = { ...inputs, logitsToKeep: 0, outputHiddenStates: true, outputAttentions: true }
    const full = await noGrad(() => model.forward(all))
    expectClose(atReal(get(full.logits), real, 1), get(expected.logits), 1e-5, 'logits')
    const lists: [string, Tensor[], number?][] = [
      ['encoder_hidden', full.encoderHiddenStates],
      ['encoder_attention', full.encoderAttentions],
      ['decoder_hidden', full.decoderHiddenStates, 1],
      ['decoder_attention', full.decoderAttentions, 2],
      ['cross_attention', full.crossAttentions, 2],
    ]
    for (const [role, tensors, dim] of lists) {
      const wanted = Object.keys(expected).filter((key) => key.startsWith(`${role}.`))
      if (!expected['encoder_hidden.0'] && role !== 'cross_attention') continue // a brief case
      expect(tensors.length, role).toBe(wanted.length)
      tensors.forEach((value, i) => {
        expectClose(dim ? atReal(value, real, dim) : value, get(expected[`${role}.${i}`]), 1e-5, `${role} ${i}`)
      })
    }
    const plain = await noGrad(() => model.forward({ ...inputs, logitsToKeep: 0 }))
    expectClose(atReal(get(plain.logits), real, 1), get(expected.logits), 1e-5, 'logits by the short way')
  })

  it.each(['plain', 'left'])('%s: gradients with checkpointing', async (name) => {
    const { model, passes } = await lossOf(name, true)
    await expectGradients(model, file, name, passes)
  })
})

describe('padding', () => {
  it('answers for a short clip as if it were alone, at its own length', async () => {
    const { model } = open('plain')
    for (const steps of [1, 2, 5, 8, 13]) {
      const clip = randn([1, 6, steps])
      const alone = await model.encode({ inputFeatures: clip })
      expect(alone.lastHiddenState.shape).toEqual([1, Math.ceil(steps / 2), 8])
      expect(alone.attentionMask).toBeNull()
      const inputFeatures = ops.cat([ops.constantPadNd(clip, [0, 14 - steps], 9), randn([1, 6, 14])], 0)
      const attentionMask = ops.cat([ops.constantPadNd(ones([1, steps]), [0, 14 - steps]), ones([1, 14])], 0)
      for (const inference of [false, true]) {
        const run = () => model.encode({ inputFeatures, attentionMask })
        const padded = await (inference ? noGrad(run) : run())
        const own = padded.lastHiddenState.narrow(0, 0, 1).narrow(1, 0, Math.ceil(steps / 2))
        expectClose(own, alone.lastHiddenState, 1e-5, `${steps} steps`)
        expect(get(padded.attentionMask).to('int64').sum(1).toArray()).toEqual([Math.ceil(steps / 2), 7])
        const decoderInputIds = tensor([[4n, 9n, 7n]])
        const expected = get((await model.forward({ inputFeatures: clip, decoderInputIds })).logits)
        const both = ops.cat([decoderInputIds, decoderInputIds], 0)
        const { logits } = await model.forward({ inputFeatures, attentionMask, decoderInputIds: both })
        expectClose(get(logits).narrow(0, 0, 1), expected, 1e-5, `${steps} steps, decoder`)
      }
    }
  })

  it('the encoder alone is the same encoder', async () => {
    const { model, inputs, expected } = open('plain')
    const encoder = new WhisperEncoder(model.config).eval()
    const prefix = 'model.encoder.'
    const own = Object.entries(model.stateDict()).filter(([name]) => name.startsWith(prefix))
    noGrad(() => encoder.loadStateDict(Object.fromEntries(own.map(([name, t]) => [name.slice(prefix.length), t]))))
    const { lastHiddenState } = await encoder.forward({ inputFeatures: get(inputs.inputFeatures) })
    expectClose(lastHiddenState, get(expected.encoder), 1e-5)
  })
})

describe('caches', () => {
  it('reads token by token what it reads at once; the audio once', async () => {
    for (const name of ['plain', 'distil', 'left', 'turbo', 'distil-v3']) {
      const { model, inputs } = open(name)
      const decoderInputIds = inputs.decoderInputIds ?? get(inputs.labels).clampMin(0)
      const mask = inputs.decoderAttentionMask
      const inputFeatures = get(inputs.inputFeatures)
      const whole = get((await model.forward({ inputFeatures, decoderInputIds, decoderAttentionMask: mask })).logits)
      using cache = new KvCache()
      using encoderCache = new KvCache()
      for (const [from, count] of [
        [0, 2],
        [2, 3],
        [5, 1],
      ] as const) {
        const { logits } = await model.forward({
          ...(from === 0 && { inputFeatures }),
          decoderInputIds: decoderInputIds.narrow(1, from, count),
          decoderAttentionMask: mask?.narrow(1, 0, from + count),
          cache,
          encoderCache,
        })
        const real = mask?.to('float32').narrow(1, from, count).unsqueeze(-1) ?? tensor(1)
        expectClose(get(logits).mul(real), whole.narrow(1, from, count).mul(real), 1e-5, `${name} from ${from}`)
      }
      expect([cache.length, encoderCache.length]).toEqual([6, 7])
    }
  })

  it('several texts share the audio of a row', async () => {
    const { model, inputs } = open('plain')
    const inputFeatures = get(inputs.inputFeatures)
    const decoderInputIds = tensor([1, 2, 3, 4, 5, 6].map((id) => [4n, BigInt(id + 5)]))
    const each = inputFeatures.repeatInterleave(2, 0)
    const expected = get((await model.forward({ inputFeatures: each, decoderInputIds })).logits)
    using encoderCache = new KvCache()
    const { logits, crossAttentions } = await model.forward({
      inputFeatures,
      decoderInputIds,
      encoderCache,
      outputAttentions: true,
    })
    expectClose(get(logits), expected, 1e-5)
    expect(crossAttentions[0]?.shape).toEqual([6, 4, 2, 7])
  })
})

describe('arguments', () => {
  it('refuses what does not fit with the name of the argument', async () => {
    const { model, inputs } = open('plain')
    const inputFeatures = get(inputs.inputFeatures).narrow(0, 0, 1)
    const decoderInputIds = tensor([[4n, 5n]])
    const refused = (inputs: WhisperInputs, message: RegExp) => expect(model.forward(inputs)).rejects.toThrow(message)
    await refused({ inputFeatures }, /decoder_input_ids, or labels/)
    await refused({ decoderInputIds }, /nothing to hear/)
    await refused({ inputFeatures: randn([1, 5, 14]), decoderInputIds }, /\[batch, 6, steps\]/)
    await refused({ inputFeatures: randn([1, 6, 15]), decoderInputIds }, /15 steps.*14/)
    await refused({ inputFeatures, attentionMask: ones([1, 3]), decoderInputIds }, /attention_mask must be \[1, 14\]/)
    await refused({ inputFeatures, decoderInputIds: tensor([4n]) }, /\[batch, time\]/)
    await refused({ inputFeatures, decoderInputIds, decoderAttentionMask: ones([1, 3]) }, /decoder_attention_mask/)
    await refused({ inputFeatures, decoderInputIds, labels: tensor([[1n]]) }, /labels/)
    await refused({ inputFeatures, decoderInputIds: ones([1, 13], { dtype: 'int64' }) }, /13 tokens.*12/)
    await refused({ inputFeatures: randn([2, 6, 14]), decoderInputIds: ones([3, 1], { dtype: 'int64' }) }, /3 rows/)
    using cache = new KvCache()
    await refused({ inputFeatures, decoderInputIds, labels: decoderInputIds, cache }, /labels or a cache/)
  })

  it('refuses configurations that contradict themselves', () => {
    const refused = (config: object, message: RegExp) => {
      expect(() => new Whisper({ dModel: 8, encoderAttentionHeads: 2, decoderAttentionHeads: 2, ...config })).toThrow(
        message,
      )
      expect(() => new Whisper({ dModel: 8, encoderAttentionHeads: 2, decoderAttentionHeads: 2, ...config })).toThrow(
        ConfigError,
      )
    }
    refused({ encoderAttentionHeads: 3 }, /encoder_attention_heads/)
    refused({ decoderAttentionHeads: 3 }, /decoder_attention_heads/)
    refused({ dModel: 9, encoderAttentionHeads: 3, decoderAttentionHeads: 3 }, /even/)
    refused({ dropout: 2 }, /dropout/)
    refused({ padTokenId: 60000 }, /pad_token_id/)
    expect(() => Whisper.fromConfig('huge')).toThrow(/tiny, tiny.en/)
  })

  it('an encoder needs the fields of an encoder only', async () => {
    const size = { dModel: 8, encoderLayers: 1, encoderAttentionHeads: 4, encoderFfnDim: 8, maxSourcePositions: 5 }
    // The decoder's six heads by default do not fit.
    using encoder = WhisperEncoder.fromConfig(size)
    const { lastHiddenState } = await encoder.forward({ inputFeatures: randn([1, 80, 10]) })
    expect(lastHiddenState.shape).toEqual([1, 5, 8])
    const others = { decoderAttentionHeads: 3, decoderLayers: -1, maxTargetPositions: 0, padTokenId: 60000 }
    WhisperEncoder.fromConfig({ ...size, ...others }).dispose()
    for (const [key, value] of Object.entries(others)) {
      expect(() => new Whisper({ ...size, decoderAttentionHeads: 2, [key]: value })).toThrow(ConfigError)
    }
    expect(() => WhisperEncoder.fromConfig({ ...size, encoderAttentionHeads: 3 })).toThrow(/encoder_attention_heads/)
    expect(() => WhisperEncoder.fromConfig({ ...size, encoderLayers: -1 })).toThrow(/encoder_layers/)
  })
})

describe('sizes', () => {
  // Counted with transformers on the meta device.
  it.each([
    ['tiny', 37760640, 8208384],
    ['tiny.en', 37760256, 8208384],
    ['base', 72593920, 20590592],
    ['small', 241734912, 88154112],
    ['medium.en', 763856896, 307216384],
    ['large-v2', 1543304960, 636784640],
    ['large-v3', 1543490560, 636968960],
    ['large-v3-turbo', 808878080, 636968960],
    ['distil-large-v3', 756405760, 636968960],
    ['distil-large-v2', 756220160, 636784640],
    ['distil-medium.en', 394375168, 307216384],
    ['distil-small.en', 166132224, 88154112],
  ])('%s', (size, whole, encoder) => {
    const count = (parameters: Tensor[]) =>
      parameters.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
    expect(count(Whisper.fromConfig(size, { device: 'meta' }).parameters())).toBe(whole)
    expect(count(WhisperEncoder.fromConfig(size, { device: 'meta' }).parameters())).toBe(encoder)
  })

  it('a fresh encoder has the published sinusoids, which do not learn', () => {
    const model = Whisper.fromConfig({
      dModel: 8,
      encoderAttentionHeads: 2,
      decoderAttentionHeads: 2,
      vocabSize: 51865,
    })
    const { model: filled } = open('plain')
    const positions = (one: Whisper) =>
      get(one.namedParameters().find(([name]) => name === 'model.encoder.embed_positions.weight'))[1]
    expectClose(positions(model).narrow(0, 0, 7), positions(filled), 1e-6)
    expect(positions(model).requiresGrad).toBe(false)
  })
})

describe('with others', () => {
  const directory = mkdtempSync(join(tmpdir(), 'whisper-'))
  afterAll(() => rmSync(directory, { recursive: true }))

  it('saves and loads; also the encoder alone', async () => {
    const { model, inputs, expected } = open('plain')
    await model.save(directory)
    const loaded = await Whisper.fromPretrained(directory)
    expect(loaded.tokens).toEqual(model.tokens)
    expect(loaded.generationConfig.eosTokenId).toBe(3)
    expectClose(get((await loaded.forward({ ...inputs, logitsToKeep: 0 })).logits), get(expected.logits), 1e-5)
    const encoder = await WhisperEncoder.fromPretrained(directory)
    const { lastHiddenState } = await encoder.forward({ inputFeatures: get(inputs.inputFeatures) })
    expectClose(lastHiddenState, get(expected.encoder), 1e-5)
  })

  it('LoRA attaches to attention, feed-forward, convolutions and the head', async () => {
    const { model, inputs } = open('untied')
    const before = get((await model.forward({ ...inputs, logitsToKeep: 0 })).logits).clone()
    const targetModules = ['q_proj', 'k_proj', 'v_proj', 'out_proj', 'fc1', 'fc2', 'conv1', 'conv2', 'proj_out']
    getPeftModel(model, { r: 2, loraAlpha: 4, targetModules } as LoraConfig)
    const forward = () => model.forward({ ...inputs, logitsToKeep: 0 })
    expectClose(get((await forward()).logits), before, 1e-5, 'B is 0')
    for (const [name, parameter] of model.namedParameters()) {
      if (name.includes('lora_B')) noGrad(() => parameter.copy_(randn(parameter.shape).mul(0.1)))
    }
    const { loss, logits } = await forward()
    expect(get(logits).sub(before).abs().max().item()).toBeGreaterThan(0.01)
    const inference = await noGrad(forward)
    expectClose(get(inference.logits), get(logits), 1e-5, 'without gradients')
    await get(loss).backward()
    const trained = model.namedParameters().filter(([, parameter]) => parameter.requiresGrad)
    expect(trained.length).toBe(2 * (2 * 6 + 2 * 10 + 2 + 1))
    for (const [name, { grad }] of trained) expect(get(grad).abs().max().item(), name).toBeGreaterThan(0)
  })

  it('leaves no tensors behind', async () => {
    const { model, inputs } = open('plain')
    const run = () => scope(async () => void (await noGrad(() => model.forward(inputs))))
    await run()
    const before = await settledTensors()
    for (let i = 0; i < 5; i++) await run()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})
