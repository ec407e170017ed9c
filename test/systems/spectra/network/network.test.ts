import { describe, expect, it } from 'vitest'
import {
  autocast,
  autograd,
  ConfigError,
  full,
  getPeftModel,
  IndexError,
  manualSeed,
  memoryStats,
  noGrad,
  randint,
  randn,
  ShapeError,
  Spectra,
  scope,
  slice,
  type Tensor,
  tensor,
  VoxtorchError,
  zeros,
} from '../../../../lib/index.js'
import type {
  SpectraConfig,
  SpectraInputs,
  SpectraOutput,
  SpectraPretrainingInputs,
  SpectraPretrainingOutput,
} from '../../../../lib/systems/spectra/index.js'
import { SpectraForPreTraining, SpectraForSequenceClassification } from '../../../../lib/systems/spectra/index.js'
import { expectClose, ROUNDING, settledTensors } from '../../../helpers.js'

const SEVEN = { convKernel: [10, 3, 3, 3, 3, 2, 2], convStride: [5, 2, 2, 2, 2, 2, 2] }
const EIGHT = { convKernel: [...SEVEN.convKernel, 5], convStride: [...SEVEN.convStride, 5] }
const sizes = { hiddenSize: 16, numHiddenLayers: 2, numAttentionHeads: 2, intermediateSize: 24 }
const tiny = (options: Partial<SpectraConfig> = {}, audio: object = {}): SpectraConfig => ({
  textConfig: {
    ...sizes,
    vocabSize: 60,
    maxPositionEmbeddings: 40,
    typeVocabSize: 2,
    layerNormEps: 1e-5,
    padTokenId: 1,
  },
  audioConfig: {
    ...sizes,
    convDim: [6, 6, 6],
    convKernel: [10, 3, 2],
    convStride: [5, 2, 2],
    numConvPosEmbeddings: 8,
    numConvPosEmbeddingGroups: 2,
    ...audio,
  },
  ...options,
})
const stack = (layers: typeof SEVEN) => ({ ...layers, convDim: layers.convKernel.map(() => 4) })
const make = <M>(Network: { fromConfig(config: SpectraConfig): M }, config = tiny(), seed = 3): M => {
  manualSeed(seed)
  return Network.fromConfig(config)
}

/** Rows of different lengths as one batch; `pad` is what stands after them. */
function batch(
  texts: Tensor[],
  clips: Tensor[],
  pad: { id: number; sample: number; time?: number; samples?: number },
): SpectraInputs {
  const sizeOf = (rows: Tensor[]) => rows.map(({ shape }) => shape[0] as number)
  const [lengths, samples] = [sizeOf(texts), sizeOf(clips)]
  const time = pad.time ?? Math.max(...lengths)
  const inputIds = full([texts.length, time], pad.id, { dtype: 'int64' })
  const attentionMask = zeros([texts.length, time], { dtype: 'bool' })
  const inputValues = full([clips.length, pad.samples ?? Math.max(...samples)], pad.sample, { dtype: 'float32' })
  texts.forEach((text, i) => {
    inputIds.setAt([i, slice(0, lengths[i] as number)], text)
    attentionMask.setAt([i, slice(0, lengths[i] as number)], true)
  })
  clips.forEach((clip, i) => {
    if (samples[i]) inputValues.setAt([i, slice(0, samples[i] as number)], clip)
  })
  const perText = (clips.length / texts.length) as 1 | 2
  return {
    inputIds,
    attentionMask,
    inputValues,
    audioLengths: tensor(samples, { dtype: 'int64' }),
    audiosPerText: perText,
  }
}

const valid = (output: { lastHiddenState: Tensor; attentionMask: Tensor }, row: number) =>
  output.lastHiddenState.at(row).index([output.attentionMask.at(row)])

describe('padding', () => {
  const texts = [9, 4, 6].map((length) => randint(3, 60, [length]))
  const lengths: Record<string, number[]> = {
    'one clip': [700, 111, 380],
    'one clip, one absent': [700, 0, 20],
    'two clips': [700, 111, 0, 450, 95, 0],
  }

  it.each(
    Object.keys(lengths).flatMap((which) => [
      { which, config: tiny() },
      { which, config: tiny({ hasAudioCls: true, numFusedLayers: 2 }) },
      { which, config: tiny({}, { featExtractNorm: 'layer' }) },
    ]),
  )('never changes a result: $which, %#', async ({ which, config }) => {
    const network = make(SpectraForSequenceClassification, config).eval()
    const clips = (lengths[which] as number[]).map((length) => randn([length]))
    const each = clips.length / texts.length
    const tight = await network.forward(batch(texts, clips, { id: 0, sample: 0 }))
    // Padding that would be seen by any step that looks at it.
    const wide = await network.forward(batch(texts, clips, { id: 1, sample: Number.NaN, time: 20, samples: 1500 }))
    for (const [i, text] of texts.entries()) {
      const row = batch([text], clips.slice(i * each, (i + 1) * each), { id: 0, sample: 0 })
      const alone = await network.forward(row)
      for (const other of [tight, wide]) {
        expectClose(other.logits.at(slice(i, i + 1)), alone.logits, 1e-5, `logits ${i}`)
        expectClose(valid(other, i), valid(alone, 0), 1e-5, `states ${i}`)
      }
    }
    // Without gradients convolutions run another way.
    await noGrad(async () => {
      const quick = await network.forward(batch(texts, clips, { id: 1, sample: Number.NaN, time: 20, samples: 1500 }))
      expectClose(quick.logits, tight.logits, 1e-5, 'without a graph')
    })
  })

  it.each([
    ['seven', SEVEN, [2400, 900]],
    ['eight', EIGHT, [4200, 1700]],
  ])('never changes a result with %s convolutions', async (_, layers, samples) => {
    const network = make(Spectra, tiny({}, stack(layers))).eval()
    const clips = samples.map((length) => randn([length]))
    const two = texts.slice(0, 2)
    const together = await network.forward(batch(two, clips, { id: 0, sample: 5, samples: 6000 }))
    for (const [i, text] of two.entries()) {
      const alone = await network.forward(batch([text], [clips[i] as Tensor], { id: 0, sample: 0 }))
      expectClose(valid(together, i), valid(alone, 0), 1e-5, `row ${i}`)
    }
  })

  it('has no influence at all on what is there', async () => {
    for (const compat of [undefined, 'published'] as const) {
      const network = make(Spectra, tiny({ ...(compat && { compat }), maxAudioLength: 900 })).eval()
      const clips = [randn([700]), randn([111])]
      const of = async (id: number, sample: number) => {
        const output = await network.forward(batch(texts.slice(0, 2), clips, { id, sample, time: 12, samples: 900 }))
        return valid(output, 1)
      }
      expect((await of(0, 0)).equal(await of(0, 1000)), `${compat}`).toBe(true)
      expectClose(await of(0, 0), await of(7, 3), 1e-6)
    }
  })

  it('changes the gradients of nothing', async () => {
    const network = make(Spectra).eval()
    const clips = [randn([700]), randn([111])]
    const grads = async (sample: number, samples: number) => {
      const output = await network.forward(batch(texts.slice(0, 2), clips, { id: 0, sample, samples }))
      const states = [0, 1].map((row) => valid(output, row).square().sum())
      return autograd.grad((states[0] as Tensor).add(states[1] as Tensor), network.parameters(), { allowUnused: true })
    }
    const [tight, wide] = [await grads(0, 700), await grads(9, 1400)]
    const largest = Math.max(...tight.map((grad) => (grad?.abs().max().item() as number) ?? 0))
    tight.forEach((grad, i) => {
      if (grad)
        expect(
          grad
            .sub(wide[i] as Tensor)
            .abs()
            .max()
            .item() as number,
        ).toBeLessThan(1e-6 * largest)
    })
  })
})

describe('the published behaviour', () => {
  const of = async (layers: typeof SEVEN, lengths: number[], compat = true) => {
    const network = make(
      Spectra,
      tiny(compat ? { compat: 'published' } : {}, { ...stack(layers), numHiddenLayers: 1 }),
    ).eval()
    const clips = lengths.map((length) => randn([length]))
    const { attentionMask } = await noGrad(() =>
      network.forward(batch([randint(3, 60, [5])], clips, { id: 0, sample: 0 })),
    )
    const audio = attentionMask.at(0, slice(5))
    return [audio.shape[0], audio.long().sum().item()]
  }

  it.each([
    [SEVEN, [50_000, 160_000], [1000, 157 + 499 + 2]],
    [EIGHT, [50_000, 160_000], [200, 32 + 99 + 2]],
    [SEVEN, [0, 160_000], [1000, 502]],
    [EIGHT, [0, 160_000], [200, 102]],
    [EIGHT, [16_000], [99, 10]],
  ])('has the sequence lengths of the authors', async (layers, lengths, expected) => {
    expect(await of(layers, lengths)).toEqual(expected)
  })

  it('has no frames of what is not there by default', async () => {
    expect(await of(EIGHT, [0, 160_000], false)).toEqual([101, 101])
    expect(await of(EIGHT, [0, 0], false)).toEqual([2, 2])
    expect(await of(EIGHT, [0], false)).toEqual([1, 0])
  })

  it('counts frames', () => {
    const counts = (compat: object, layers = SEVEN) =>
      Spectra.fromConfig(tiny(compat, stack(layers)), { device: 'meta' }).frameCounts([
        0, 100, 399, 400, 16_000, 50_000, 160_000,
      ])
    expect(counts({})).toEqual([0, 0, 0, 1, 49, 156, 499])
    expect(counts({ compat: 'published' })).toEqual([1, 1, 2, 2, 50, 157, 499])
    expect(counts({ compat: 'published' }, EIGHT)).toEqual([1, 1, 2, 2, 10, 32, 99])
  })
})

describe('speech that is not there', () => {
  it('is allowed, whatever the width of the batch', async () => {
    const network = make(Spectra).eval()
    const text = [randint(3, 60, [7]), randint(3, 60, [5])]
    const none = [randn([0]), randn([0])]
    const outputs: SpectraOutput[] = []
    for (const samples of [0, 5, 400]) {
      outputs.push(await network.forward(batch(text, none, { id: 0, sample: 1, samples })))
    }
    for (const output of outputs) {
      expect(output.lastHiddenState.isfinite().all().item()).toBe(true)
      expect(output.attentionMask.at(0, slice(7)).any().item()).toBe(false)
      for (const row of [0, 1]) expect(valid(output, row).equal(valid(outputs[0] as SpectraOutput, row))).toBe(true)
    }
    const loss = (outputs.at(-1) as SpectraOutput).lastHiddenState.at(0, 0).square().sum()
    const grads = await autograd.grad(loss, network.parameters(), { allowUnused: true })
    expect(grads.every((grad) => grad === null || grad === undefined || grad.isfinite().all().item())).toBe(true)
  })
})

const pretrainingInputs = (examples: number, frames = 20): SpectraPretrainingInputs => {
  const time = 12
  const attentionMask = tensor(
    Array.from({ length: 2 * examples }, (_, row) => Array.from({ length: time }, (_, t) => t < time - row)),
  )
  const mlmLabels = full([examples, time], -100, { dtype: 'int64' })
  const startMask = zeros([examples, time], { dtype: 'bool' })
  const endMask = zeros([examples, time], { dtype: 'bool' })
  const mamMask = zeros([3 * examples, frames], { dtype: 'int8' })
  return {
    inputIds: randint(3, 60, [2 * examples, time]),
    attentionMask,
    tokenTypeIds: randint(0, 2, [2 * examples, time]),
    mlmLabels,
    inputValues: randn([3 * examples, 500]),
    audioLengths: tensor(
      Array.from({ length: 3 * examples }, (_, row) => 500 - 40 * row),
      { dtype: 'int64' },
    ),
    mamMask,
    mamSource: zeros([3 * examples, frames], { dtype: 'int64' }),
    startMask,
    endMask,
    starts: zeros([0]),
    ends: zeros([0]),
  }
}

describe('pre-training', () => {
  it.each([1, 2, 3])(
    'pairs texts p p n n with speech p n p n, with the masks of each, for %i examples',
    async (examples) => {
      const network = make(SpectraForPreTraining).eval()
      const inputs = pretrainingInputs(examples)
      const { crsLogits } = await network.forward(inputs)
      for (let row = 0; row < 4 * examples; row += 1) {
        const [example, pairing] = [Math.floor(row / 4), row % 4]
        const text = 2 * example + (pairing < 2 ? 0 : 1)
        const clips = tensor([3 * example, 3 * example + (pairing % 2 === 0 ? 1 : 2)])
        const alone = await network.predict({
          inputIds: inputs.inputIds.at(slice(text, text + 1)),
          attentionMask: inputs.attentionMask.at(slice(text, text + 1)),
          tokenTypeIds: (inputs.tokenTypeIds as Tensor).at(slice(text, text + 1)),
          inputValues: inputs.inputValues.indexSelect(0, clips),
          audioLengths: inputs.audioLengths.indexSelect(0, clips),
          audiosPerText: 2,
        })
        expectClose(alone.crsLogits, crsLogits.at(slice(row, row + 1)), 1e-5, `row ${row}`)
      }
    },
  )

  it('loses nothing where nothing is masked and no word is timed', async () => {
    const network = make(SpectraForPreTraining)
    const { loss, mlmLoss, mamLoss, tppLoss, crsLoss } = await network.forward(pretrainingInputs(2))
    expect([mlmLoss, mamLoss, tppLoss].map((one) => one.item())).toEqual([0, 0, 0])
    expect(loss.item()).toBe(crsLoss.item())
    await loss.backward()
    expect(network.parameters().every(({ grad }) => grad === null || grad.isfinite().all().item())).toBe(true)
  })

  it('cuts frames to predict off from the gradient, unless told otherwise', async () => {
    const gradient = async (options: Partial<SpectraConfig>) => {
      const network = make(SpectraForPreTraining, tiny(options)).eval()
      const inputs = pretrainingInputs(1)
      inputs.mamMask.setAt([0, slice(0, 10)], 1)
      const { mamLoss } = await network.forward(inputs)
      const weight = network.get('audio_encoder.feature_extractor.conv_layers.2.conv').stateDict().weight as Tensor
      return (await autograd.grad(mamLoss, [weight]))[0] as Tensor
    }
    manualSeed(9)
    const detached = await gradient({})
    manualSeed(9)
    const through = await gradient({ mamTargetGradients: true })
    expect(through.sub(detached).abs().max().item()).toBeGreaterThan(1e-4)
  })

  it.each<[string, (inputs: SpectraPretrainingInputs) => void, RegExp]>([
    ['a frame that is not there', ({ mamMask }) => mamMask.setAt([5, 17], 1), /frame 17 of row 5/],
    ['a mask of 4', ({ mamMask }) => mamMask.setAt([0, 1], 4), /mam_mask is 0 to 3/],
    [
      'a source that is not there',
      ({ mamMask, mamSource }) => {
        mamMask.setAt([0, 1], 2)
        mamSource.setAt([0, 1], 99)
      },
      /mam_source names the frame 99/,
    ],
    ['a label that is no token', ({ mlmLabels }) => mlmLabels.setAt([0, 1], 60), /60 tokens/],
    ['words without times', ({ startMask }) => startMask.setAt([0, 1], true), /start_mask marks 1/],
    ['texts without partners', (inputs) => Object.assign(inputs, { inputIds: randint(3, 9, [3, 12]) }), /2 \* batch/],
    ['two clips for three', (inputs) => Object.assign(inputs, { inputValues: randn([4, 500]) }), /3 \* batch/],
    ['labels of another width', (inputs) => Object.assign(inputs, { mlmLabels: zeros([2, 5]).long() }), /mlm_labels/],
  ])('refuses %s', async (_, spoil, message) => {
    const network = make(SpectraForPreTraining)
    const inputs = pretrainingInputs(2)
    spoil(inputs)
    const run = network.forward(inputs)
    await expect(run).rejects.toThrow(message)
    await expect(run).rejects.toThrow(VoxtorchError)
    await run.catch((error) => expect([ShapeError, IndexError]).toContain(error.constructor))
  })
})

describe('training', () => {
  const inputs = () =>
    batch([randint(3, 60, [7]), randint(3, 60, [5])], [randn([500]), randn([300])], { id: 0, sample: 0 })

  it('has the same gradients with activation checkpointing', async () => {
    const dropout = { hiddenDropout: 0.2, attentionDropout: 0.1, layerdrop: 0.3 }
    const network = make(Spectra, tiny({ numFusedLayers: 2 }, dropout))
    const given = inputs()
    const run = async () => {
      manualSeed(8)
      const { lastHiddenState } = await network.forward(given)
      return autograd.grad(lastHiddenState.square().sum(), network.parameters(), { allowUnused: true })
    }
    const plain = await run()
    network.gradientCheckpointing(true)
    const again = await run()
    expect(plain.filter((grad) => grad).length).toBeGreaterThan(60)
    plain.forEach((grad, i) => {
      if (grad) expectClose(again[i] as Tensor, grad, 1e-4, `${network.namedParameters()[i]?.[0]}`)
    })
  })

  it('takes adapters in every projection', async () => {
    const network = make(SpectraForSequenceClassification).eval()
    const given = inputs()
    const before = (await network.forward(given)).logits
    const targets = [
      'q_proj',
      'query',
      'dense',
      'intermediate_dense',
      'projection',
      'head.0',
      'head.2',
      'token_type_embeddings',
    ]
    getPeftModel(network, { r: 2, targetModules: targets })
    expectClose((await network.forward(given)).logits, before, 1e-5, 'adapters that add nothing yet')
    noGrad(() => {
      for (const [name, parameter] of network.namedParameters()) if (name.includes('lora_')) parameter.add_(0.1)
    })
    const after = (await network.forward({ ...given, labels: tensor([0, 1]) })) as { logits: Tensor; loss: Tensor }
    expect(after.logits.sub(before).abs().max().item()).toBeGreaterThan(1e-3)
    await after.loss.backward()
    const lora = network.namedParameters().filter(([name]) => name.includes('lora_') && !name.includes('pooler'))
    expect(lora.length).toBeGreaterThan(40)
    for (const [name, { grad }] of lora) expect(grad, name).not.toBeNull()
  })

  it('starts from the seed, fusion and heads as PyTorch’s layers do', () => {
    const config = tiny({ numLabels: 7 })
    const [a, b] = [make(SpectraForSequenceClassification, config), make(SpectraForSequenceClassification, config)]
    const [one, two] = [a.stateDict(), b.stateDict()]
    for (const [name, value] of Object.entries(one)) expect(value.equal(two[name] as Tensor), name).toBe(true)
    const largest = (name: string) => (one[name] as Tensor).abs().max().item() as number
    const within = (name: string, bound: number) => {
      expect(largest(name), name).toBeLessThanOrEqual(bound)
      expect(largest(name), name).toBeGreaterThan(0.6 * bound)
    }
    for (const name of ['attention.self.query', 'attention.output.dense', 'intermediate.dense']) {
      within(`fused_encoder.0.${name}.weight`, 1 / 4)
      within(`fused_encoder.0.${name}.bias`, 1 / 4)
    }
    within('fused_encoder.0.output.dense.weight', 1 / Math.sqrt(24))
    within('head.0.weight', 1 / 4)
    within('head.2.bias', 1 / 4)
    expect(largest('text_encoder.encoder.layer.0.attention.self.query.weight')).toBeLessThan(0.12)
    expect(largest('text_encoder.encoder.layer.0.attention.self.query.bias')).toBe(0)
    expect(largest('audio_encoder.audio_cls')).toBeGreaterThan(0.8)
    expect(largest('token_type_embeddings.weight')).toBeGreaterThan(0.8)
  })

  it('gives attention maps, which leave out what is masked', async () => {
    const network = make(Spectra, tiny({ numFusedLayers: 2 })).eval()
    const output = await network.forward({ ...inputs(), outputAttentions: true })
    const audio = output.audioHiddenState.shape[1] as number
    const shapes = [output.attentions, output.textAttentions, output.audioAttentions].map((maps) =>
      maps.map(({ shape }) => shape),
    )
    expect(shapes).toEqual(
      [7 + audio, 7, audio].map((size) => [
        [2, 2, size, size],
        [2, 2, size, size],
      ]),
    )
    for (const map of output.attentions) {
      expect(map.sum(-1).sub(1).abs().max().item()).toBeLessThan(1e-5)
      const unseen = output.attentionMask.logicalNot().unsqueeze(1).unsqueeze(1)
      expect(map.mul(unseen).abs().max().item()).toBe(0)
      expect(unseen.any().item()).toBe(true)
    }
  })

  it.each(['bfloat16', 'float64'] as const)('computes in %s', async (dtype) => {
    const [plain, other] = [make(SpectraForPreTraining).eval(), make(SpectraForPreTraining).eval()]
    other.to({ dtype })
    const given = pretrainingInputs(2)
    given.mamMask.setAt([slice(), slice(0, 5)], 1)
    given.mlmLabels.setAt([slice(), 1], 5)
    const exact = await make(SpectraForPreTraining).eval().to({ dtype: 'float64' }).forward(given)
    // Two dozen roundings in a row; a loss is a mean over many.
    const compare = (output: SpectraPretrainingOutput, half: boolean, label: string) => {
      const once = half ? ROUNDING.bfloat16 : ROUNDING.float32
      for (const key of ['loss', 'mlmLoss', 'mamLoss', 'crsLoss', 'crsLogits'] as const) {
        expectClose(output[key].double(), exact[key], (key === 'crsLogits' ? 24 : 4) * once, `${label} ${key}`)
      }
    }
    compare(await plain.forward(given), false, 'float32')
    const output = await other.forward(given)
    compare(output, dtype === 'bfloat16', dtype)
    await output.loss.backward()
    const cast = await autocast({ dtype: 'bfloat16' }, () => plain.forward(given))
    compare(cast, true, 'autocast')
    await cast.loss.backward()
    expect(plain.parameters().every(({ grad }) => grad === null || grad.isfinite().all().item())).toBe(true)
  })

  it('leaves nothing behind', async () => {
    const network = make(SpectraForPreTraining)
    const before = await settledTensors()
    await scope(async () => {
      await (await network.forward(pretrainingInputs(1))).crsLogits.sum().item()
      await network.predict(inputs())
    })
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
    network.dispose()
  })
})

describe('the published size', () => {
  const count = (tensors: Iterable<Tensor>) =>
    [...tensors].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
  const meta = { device: 'meta' } as const

  it('has as many parameters', () => {
    const backbone = Spectra.fromConfig('base', meta)
    expect(count(backbone.parameters())).toBe(226_118_512)
    expect(count(backbone.get('audio_encoder').parameters())).toBe(94_382_704)
    expect(count(SpectraForPreTraining.fromConfig('base', meta).parameters())).toBe(266_354_895)
    const { textConfig, audioConfig } = backbone.config
    const eight = Spectra.fromConfig(
      { textConfig, audioConfig: { ...audioConfig, ...EIGHT, convDim: Array(8).fill(512) } },
      meta,
    )
    expect(count(eight.parameters())).toBe(226_118_512 + 1_310_720)
  })

  it('has the names and shapes of the checkpoint', () => {
    const state = SpectraForPreTraining.fromConfig('base', meta).stateDict()
    const expected: Record<string, number[]> = {}
    const add = (name: string, weight: number[], bias = [weight[0] as number]) =>
      Object.assign(expected, { [`${name}.weight`]: weight, [`${name}.bias`]: bias })
    const robertaLayer = (name: string) => {
      for (const part of ['query', 'key', 'value']) add(`${name}.attention.self.${part}`, [768, 768])
      add(`${name}.attention.output.dense`, [768, 768])
      add(`${name}.attention.output.LayerNorm`, [768])
      add(`${name}.intermediate.dense`, [3072, 768])
      add(`${name}.output.dense`, [768, 3072])
      add(`${name}.output.LayerNorm`, [768])
    }
    const a = 'audio_encoder'
    Object.assign(expected, { [`${a}.audio_cls`]: [768], [`${a}.audio_sep`]: [768] })
    ;[10, 3, 3, 3, 3, 2, 2].forEach((kernel, i) => {
      expected[`${a}.feature_extractor.conv_layers.${i}.conv.weight`] = [512, i === 0 ? 1 : 512, kernel]
    })
    add(`${a}.feature_extractor.conv_layers.0.layer_norm`, [512])
    add(`${a}.feature_projection.layer_norm`, [512])
    add(`${a}.feature_projection.projection`, [768, 512])
    expected[`${a}.encoder.pos_conv_embed.conv.bias`] = [768]
    expected[`${a}.encoder.pos_conv_embed.conv.parametrizations.weight.original0`] = [1, 1, 128]
    expected[`${a}.encoder.pos_conv_embed.conv.parametrizations.weight.original1`] = [768, 48, 128]
    add(`${a}.encoder.layer_norm`, [768])
    expected[`${a}.encoder.layers.0.attention.rel_attn_embed.weight`] = [320, 12]
    for (let i = 0; i < 12; i += 1) {
      const layer = `${a}.encoder.layers.${i}`
      for (const part of ['q', 'k', 'v', 'out']) add(`${layer}.attention.${part}_proj`, [768, 768])
      expected[`${layer}.attention.gru_rel_pos_const`] = [1, 12, 1, 1]
      add(`${layer}.attention.gru_rel_pos_linear`, [8, 64])
      add(`${layer}.layer_norm`, [768])
      add(`${layer}.final_layer_norm`, [768])
      add(`${layer}.feed_forward.intermediate_dense`, [3072, 768])
      add(`${layer}.feed_forward.output_dense`, [768, 3072])
      robertaLayer(`text_encoder.encoder.layer.${i}`)
    }
    for (const [part, rows] of Object.entries({ word: 50_265, position: 514, token_type: 2 })) {
      expected[`text_encoder.embeddings.${part}_embeddings.weight`] = [rows, 768]
    }
    add('text_encoder.embeddings.LayerNorm', [768])
    add('text_encoder.pooler.dense', [768, 768])
    expected['token_type_embeddings.weight'] = [2, 768]
    robertaLayer('fused_encoder.0')
    for (const [head, out] of Object.entries({ mlm_head: 50_265, mam_head: 512 })) {
      add(`${head}.dense`, [768, 768])
      add(`${head}.layer_norm`, [768])
      add(`${head}.decoder`, [out, 768])
      expected[`${head}.bias`] = [out]
    }
    add('selection_head', [4, 768])
    add('start_prediction_head.0', [1, 768])
    add('end_prediction_head.0', [1, 768])
    const shapes = Object.fromEntries(Object.entries(state).map(([name, { shape }]) => [name, shape]))
    expect(shapes).toEqual(expected)
  })
})

describe('what does not fit', () => {
  it.each<[Partial<SpectraConfig>, RegExp]>([
    [{ numFusedLayer: 1 } as object, /did you mean 'numFusedLayers'/],
    [{ textConfig: 3 as never }, /textConfig/],
    [{ compat: 'old' as never }, /compat/],
    [{ numFusedLayers: 0 }, /num_fused_layers/],
    [{ textConfig: { ...tiny().textConfig, hiddenSize: 18 } }, /hidden_size 18 and audio_config.hidden_size 16/],
    [{ textConfig: { ...tiny().textConfig, typeVocabSize: 1 } }, /type_vocab_size/],
    [{ compat: 'published', maxAudioLength: 20 }, /max_audio_length 20/],
    [{ hasAudioCls: 'yes' as never }, /has_audio_cls/],
  ])('is a ConfigError: %o', (options, message) => {
    const build = () => Spectra.fromConfig(tiny(options))
    expect(build).toThrow(ConfigError)
    expect(build).toThrow(message)
  })

  const good = () =>
    batch([randint(3, 60, [7]), randint(3, 60, [5])], [randn([500]), randn([300])], { id: 0, sample: 0 })
  it.each<[string, object, RegExp, typeof VoxtorchError]>([
    [
      'clips of other texts',
      { inputValues: randn([3, 500]), audioLengths: tensor([1, 2, 3]) },
      /audios_per_text/,
      ShapeError,
    ],
    ['clips that are not there', { audiosPerText: 2 }, /input_values must have 2 row/, ShapeError],
    ['three clips', { audiosPerText: 3 }, /audios_per_text must be 1 or 2/, VoxtorchError],
    ['too long a length', { audioLengths: tensor([501, 300]) }, /audio_lengths says 501/, ShapeError],
    ['a negative length', { audioLengths: tensor([-1, 300]) }, /audio_lengths says -1/, ShapeError],
    ['lengths of other clips', { audioLengths: tensor([500]) }, /audio_lengths must have the shape/, ShapeError],
    ['lengths in seconds', { audioLengths: tensor([0.5, 0.3]) }, /integer dtype/, VoxtorchError],
    ['whole samples', { inputValues: zeros([2, 500], { dtype: 'int64' }) }, /floating-point/, VoxtorchError],
    ['one text', { inputIds: randint(3, 60, [7]) }, /input_ids must be/, ShapeError],
    ['no tokens', { inputIds: randint(3, 60, [2, 0]) }, /at least one token/, ShapeError],
    ['another mask', { attentionMask: zeros([2, 4]).bool() }, /attention_mask must have the shape/, ShapeError],
    ['other types', { tokenTypeIds: randint(0, 2, [2, 4]) }, /token_type_ids/, ShapeError],
    [
      'too long a text',
      { inputIds: randint(3, 60, [2, 50]), attentionMask: zeros([2, 50]).bool() },
      /50 tokens/,
      VoxtorchError,
    ],
    ['a token that is not there', { inputIds: randint(60, 70, [2, 7]) }, /index/, IndexError],
    ['nothing', { inputIds: undefined }, /input_ids/, VoxtorchError],
  ])('is refused: %s', async (_, change, message, Kind) => {
    const run = make(Spectra).forward({ ...good(), ...change })
    await expect(run).rejects.toThrow(message)
    await expect(run).rejects.toThrow(Kind)
  })

  it('is refused in labels', async () => {
    const classes = make(SpectraForSequenceClassification, tiny({ numLabels: 3 }))
    const run = (labels: Tensor) => classes.forward({ ...good(), labels })
    await expect(run(tensor([0, 3]))).rejects.toThrow(/3 classes/)
    await expect(run(tensor([0, 1, 2]))).rejects.toThrow(ShapeError)
    await expect(run(tensor([0.5, 1]))).rejects.toThrow(/integer/)
  })

  it('is refused where the last two rows are asked for and there is one', async () => {
    const config = tiny({ compat: 'published', hasAudioCls: true, legacyAudioClsRows: true, maxAudioLength: 600 })
    const one = batch([randint(3, 60, [7])], [randn([500])], { id: 0, sample: 0 })
    await expect(make(Spectra, config).forward(one)).rejects.toThrow(/last two rows/)
  })
})
