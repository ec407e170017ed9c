import { describe, expect, it } from 'vitest'
import {
  autocast,
  autograd,
  Beats,
  Emotion2Vec,
  Generator,
  InternViT,
  type Module,
  manualSeed,
  noGrad,
  QFormer,
  Roberta,
  randint,
  randn,
  Spectra,
  scope,
  Tensor,
  tensor,
  Wav2Vec2,
  WavLM,
  Whisper,
} from '../../../lib/index.js'
import type { SpeechFeatures } from '../../../lib/models/audio-lm/encoder-inputs.js'
import { GlmAsrEncoder } from '../../../lib/models/audio-lm/glmasr-encoder.js'
import { GraniteProjector, GraniteSpeechEncoder } from '../../../lib/models/audio-lm/granite-speech-encoder.js'
import { Qwen3AsrEncoder } from '../../../lib/models/audio-lm/qwen3-asr-encoder.js'
import { op } from '../../../lib/native/call.js'
import { SpectraForSequenceClassification } from '../../../lib/systems/spectra/index.js'
import { expectClose, fixturePath } from '../../helpers.js'
import { counted } from './counts.js'

const useFlash = op('pretended_cuda::use_flash_attention')

const SPEECH = {
  ...{ hiddenSize: 32, numHiddenLayers: 2, numAttentionHeads: 4, intermediateSize: 48 },
  ...{ convDim: [16, 16, 16], convKernel: [10, 3, 2], convStride: [5, 2, 2] },
  ...{ numConvPosEmbeddings: 8, numConvPosEmbeddingGroups: 4 },
}
const TEXT = {
  ...{ vocabSize: 60, hiddenSize: 32, numHiddenLayers: 2, numAttentionHeads: 4, intermediateSize: 48 },
  ...{ maxPositionEmbeddings: 40, typeVocabSize: 2, layerNormEps: 1e-5 },
}
const SPECTRA = { textConfig: TEXT, audioConfig: SPEECH, numFusedLayers: 2, hasAudioCls: true }
const DROPOUT = { hiddenDropout: 0.1, attentionDropout: 0.1, activationDropout: 0.1 }

const host = { device: 'cpu' } as const
const random = () => new Generator(5)
const upTo = (lengths: number[], size: number) =>
  tensor(
    lengths.map((length) => Array.from({ length: size }, (_, i) => i < length)),
    host,
  )
const lengths = tensor([700, 111, 380], { dtype: 'int64', ...host })
const inputs = {
  inputIds: randint(3, 60, [3, 12], { ...host, generator: random() }),
  attentionMask: upTo([12, 5, 8], 12),
  inputValues: randn([3, 700], { ...host, generator: random() }),
  audioLengths: lengths,
}
/** The tensors of an object on the device. */
const away = <T extends object>(given: T): T =>
  Object.fromEntries(
    Object.entries(given).map(([name, one]) => [name, one instanceof Tensor ? one.to('cuda') : one]),
  ) as T

/** The same weights on both devices. */
function both<M extends Module>(make: (device: 'cpu' | 'cuda') => M): [M, M] {
  const [there, here] = [make('cuda').eval(), make('cpu').eval()]
  here.loadStateDict(Object.fromEntries(Object.entries(there.stateDict()).map(([name, one]) => [name, one.to('cpu')])))
  return [there, here]
}

const fbank = randn([2, 64, 128], { ...host, generator: random() })
const frames = randn([2, 60, 24], { ...host, generator: random() })
const BEATS = {
  ...{ embedDim: 24, encoderLayers: 2, encoderEmbedDim: 32, encoderFfnEmbedDim: 48, encoderAttentionHeads: 4 },
  ...{ relativePositionEmbedding: true, gruRelPos: true, deepNorm: true, convPos: 8, convPosGroups: 4 },
}
const QFORMER = {
  ...{ hiddenSize: 32, numHiddenLayers: 2, numAttentionHeads: 4, intermediateSize: 48, encoderWidth: 24 },
  ...{ queryLength: 2, window: 17, stride: 17 },
}

const EMOTION2VEC = {
  ...{ hiddenSize: 32, numHiddenLayers: 2, numAttentionHeads: 4, intermediateSize: 48, numExtraTokens: 2 },
  ...{ convDim: [16, 16, 16], convKernel: [10, 3, 2], convStride: [5, 2, 2], numLabels: 3 },
  ...{ numConvPosEmbeddings: 2, convPosKernelSize: 5, numConvPosEmbeddingGroups: 4 },
}

const VIT = {
  ...{ hiddenSize: 32, numHiddenLayers: 2, numAttentionHeads: 4, intermediateSize: 48, imageSize: 8, patchSize: 4 },
  ...{ qkvBias: true, qkNormalization: true, normType: 'rms_norm' as const, dropPathRate: 0.1 },
}

const QWEN3_ASR = {
  ...{ numMelBins: 5, encoderLayers: 2, encoderAttentionHeads: 2, encoderFfnDim: 12, dModel: 8 },
  ...{ nWindowInfer: 200, downsampleHiddenSize: 4 },
}
const GLMASR = { hiddenSize: 8, intermediateSize: 32, numHiddenLayers: 2, numAttentionHeads: 2, numMelBins: 5 }
const GRANITE = {
  ...{ inputDim: 6, numLayers: 2, hiddenDim: 8, feedforwardMult: 2, numHeads: 2, outputDim: 7, contextSize: 5 },
  ...{ maxPosEmb: 8, convKernelSize: 5 },
}
const GRANITE_PROJECTOR = {
  ...{ hiddenSize: 8, numHiddenLayers: 2, numAttentionHeads: 2, intermediateSize: 12, encoderHiddenSize: 8 },
}

/** The encoder of a speech language model under the name of its full output. */
const encoding = (encoder: Module & { encode(inputs: SpeechFeatures): Promise<object> }) =>
  Object.assign(encoder, { forward: (inputs: SpeechFeatures) => encoder.encode(inputs) })
const mel = {
  inputFeatures: randn([2, 5, 300], { ...host, generator: random() }),
  attentionMask: upTo([300, 111], 300),
}
const conformer = {
  inputFeatures: randn([2, 13, 6], { ...host, generator: random() }),
  attentionMask: upTo([13, 7], 13),
}

type Network = Module & { forward(inputs: object): Promise<{ lastHiddenState: Tensor }> }
const waveMask = upTo([700, 111, 380], 700)
const speech = { inputValues: inputs.inputValues, attentionMask: waveMask }
const text = { inputIds: inputs.inputIds, attentionMask: inputs.attentionMask }
// Waits with all inputs on the device, and launches at most.
const NETWORKS: [string, (device: 'cpu' | 'cuda') => unknown, object, number, number][] = [
  ['WavLM', (device) => WavLM.fromConfig({ ...SPEECH, ...DROPOUT, maskTimeProb: 0.1 }, { device }), speech, 0, 104],
  ['Wav2Vec2', (device) => Wav2Vec2.fromConfig({ ...SPEECH, ...DROPOUT }, { device }), speech, 0, 116],
  ['Emotion2Vec', (device) => Emotion2Vec.fromConfig(EMOTION2VEC, { device }), speech, 0, 133],
  ['Roberta', (device) => Roberta.fromConfig(TEXT, { device }), text, 0, 76],
  ['BEATs', (device) => Beats.fromConfig(BEATS, { device }), { fbank, lengths: [64, 33] }, 0, 66],
  [
    'InternViT',
    (device) => InternViT.fromConfig(VIT, { device }),
    { pixelValues: randn([3, 3, 16, 16], { ...host, generator: random() }) },
    0,
    120,
  ],
  [
    'QFormer',
    (device) => QFormer.fromConfig(QFORMER, { device }),
    { encoderHiddenStates: frames, lengths: [60, 30] },
    0,
    82,
  ],
  ['Qwen3-ASR', (device) => encoding(new Qwen3AsrEncoder(QWEN3_ASR, { device })), mel, 0, 104],
  ['GLM-ASR', (device) => encoding(new GlmAsrEncoder(GLMASR, { device })), mel, 0, 111],
  ['Granite Speech', (device) => encoding(new GraniteSpeechEncoder(GRANITE, { device })), conformer, 0, 160],
  [
    'GraniteProjector',
    (device) => {
      const projector = new GraniteProjector(
        GRANITE_PROJECTOR,
        { windowSize: 6, downsampleRate: 2, hiddenSize: 4 },
        { device },
      )
      const run = projector.forward.bind(projector)
      return Object.assign(projector, {
        forward: async ({ states }: { states: Tensor }) => ({ lastHiddenState: await run(states) }),
      })
    },
    { states: randn([2, 13, 8], { ...host, generator: random() }) },
    0,
    71,
  ],
  ['SPECTRA', (device) => Spectra.fromConfig(SPECTRA, { device }), inputs, 1, 310],
]

describe.each(NETWORKS)('%s on the device', (_, make, given, waits, launches) => {
  const [there, here] = both((device) => make(device) as Network)

  it('gives what the CPU gives', async () => {
    await scope(() =>
      noGrad(async () => {
        const { lastHiddenState } = await there.forward(away(given))
        expectClose(lastHiddenState.to('cpu'), (await here.forward(given)).lastHiddenState, 1e-5)
      }),
    )
  })

  it.each(['inference', 'training'])('waits for nothing that is there: %s', async (mode) => {
    there.train(mode === 'training')
    const onDevice = away(given)
    const run = () => scope(async () => void (await there.forward(onDevice)))
    const passed = () => (mode === 'training' ? run() : noGrad(run))
    await passed()
    const spent = await counted(passed)
    expect(spent.waits).toBe(waits)
    expect(spent.launches).toBeLessThanOrEqual(mode === 'training' ? launches + 40 : launches)
    there.eval()
    // Training moves the statistics of batch norms.
    there.loadStateDict(away(here.stateDict()))
  })

  it('takes a mask of the CPU, and waits for nothing', async () => {
    const mixed = { ...away(given), ...('attentionMask' in given && { attentionMask: given.attentionMask }) }
    if ('audioLengths' in given) Object.assign(mixed, { audioLengths: given.audioLengths })
    await scope(() =>
      noGrad(async () => {
        let states: Tensor | undefined
        const { waitsBy } = await counted(async () => {
          states = (await there.forward(mixed)).lastHiddenState
        })
        expect(waitsBy).toEqual({})
        expectClose((states as Tensor).to('cpu'), (await here.forward(given)).lastHiddenState, 1e-5)
      }),
    )
  })
})

describe("Whisper's encoder on the device", () => {
  it('waits for nothing that is there', async () => {
    const model = await Whisper.fromPretrained(fixturePath('models/whisper-tiny'), { device: 'cuda' })
    const { numMelBins = 80, maxSourcePositions = 1500 } = model.config
    const inputFeatures = randn([2, numMelBins, 2 * maxSourcePositions], { device: 'cuda' })
    const attentionMask = upTo([2 * maxSourcePositions, maxSourcePositions], 2 * maxSourcePositions).to('cuda')
    for (const training of [false, true]) {
      model.train(training)
      const run = () => scope(async () => void (await model.encode({ inputFeatures, attentionMask })))
      await run()
      expect((await counted(run)).waitsBy).toEqual({})
    }
  })
})

describe('SpecAugment where the lengths are', () => {
  it('blanks spans of its length within each row, as many as on the CPU', async () => {
    const masked = {
      ...SPEECH,
      maskTimeProb: 0.4,
      maskTimeLength: 4,
      maskTimeMinMasks: 1,
      hiddenDropout: 0,
      layerdrop: 0,
    }
    const model = WavLM.fromConfig(
      { ...masked, featProjDropout: 0, attentionDropout: 0, activationDropout: 0 },
      { device: 'cuda' },
    )
    model.train()
    manualSeed(2)
    await scope(() =>
      noGrad(async () => {
        const counts: number[] = []
        for (let i = 0; i < 20; i++) {
          const blanks = await blanked(model)
          expect(blanks).toHaveLength(3)
          for (const [row, places] of blanks.entries()) {
            const real = [34, 5, 18][row] as number
            expect(places.every((place) => place < real)).toBe(true)
            if (row === 0) counts.push(places.length)
          }
        }
        // 34 frames, 0.4 · 34 / 4 = 3.4 spans: three or four of four frames, which may overlap.
        expect(Math.max(...counts)).toBeLessThanOrEqual(16)
        expect(Math.min(...counts)).toBeGreaterThanOrEqual(6)
        expect(new Set(counts).size).toBeGreaterThan(1)
      }),
    )
  })

  /** The frames of each row that are the vector of what is masked, as the transformer is given them. */
  async function blanked(model: WavLM): Promise<number[][]> {
    const mark = (model.stateDict().masked_spec_embed as Tensor).to('cpu')
    let places: number[][] = []
    const unhook = model.get('encoder').registerForwardHook((_, [given]) => {
      const is = (given as Tensor).to('cpu').eq(mark).all(-1).toArray() as boolean[][]
      places = is.map((row) => row.flatMap((one, place) => (one ? [place] : [])))
    })
    await model.forward(away(speech))
    unhook()
    return places
  }
})

/** The states that count, and the gradients of all parameters, of SPECTRA. */
async function learn(model: Spectra, given: object) {
  const output = await model.forward(given as Parameters<Spectra['forward']>[0])
  const real = output.lastHiddenState.float().mul(output.attentionMask.unsqueeze(-1))
  const grads = await autograd.grad(real.pow(3).sum(), [...model.parameters()], { allowUnused: true })
  return { states: real.to('cpu'), grads: grads.map((one) => one?.to('cpu')) }
}
/** max |a - b| of all gradients, relative to the largest of all: those of keys' biases are rounding errors alone. */
function apart(a: readonly (Tensor | undefined)[], b: readonly (Tensor | undefined)[]): number {
  const most = (tensors: readonly (Tensor | undefined)[]) =>
    Math.max(...tensors.map((one) => (one?.abs().max().item() as number) ?? 0))
  return most(a.map((one, i) => one?.float().sub((b[i] as Tensor).float()))) / most(b.map((one) => one?.float()))
}

describe('padding on the device', () => {
  const [there, here] = both((device) => Spectra.fromConfig(SPECTRA, { device }))

  it('is not computed by any layer', async () => {
    const shapes: number[][] = []
    const parts = ['text_encoder.encoder.layer.1.intermediate.dense', 'audio_encoder.encoder.layers.1.attention.k_proj']
    const names = [...parts, 'fused_encoder.0.attention.self.query', 'audio_encoder.feature_projection.projection']
    const unhook = names.map((name) =>
      there.get(name).registerForwardHook((_, [given]) => void shapes.push([...(given as Tensor).shape])),
    )
    await scope(() => noGrad(() => there.forward(away(inputs))))
    for (const one of unhook) one()
    // 12, 5 and 8 tokens; 34, 5 and 18 frames, before each a vector.
    expect(shapes.map((shape) => shape.slice(0, -1))).toEqual([[1, 25], [57], [1, 60], [1, 85]])
  })

  it('and not computing it changes neither states nor gradients', async () => {
    await scope(async () => {
      const [a, b] = [await learn(there, away(inputs)), await learn(here, inputs)]
      expectClose(a.states, b.states, 1e-5)
      expect(apart(a.grads, b.grads)).toBeLessThan(1e-5)
    })
  })

  // The stand-in computes in float64 and rounds, ATen's own attention rounds in between: both are compared with float32.
  it.each([
    ['flash attention', true],
    ['attention that is spread out', false],
  ])('in bfloat16, by %s', async (_, flash) => {
    useFlash(flash)
    try {
      await scope(async () => {
        const low = Spectra.fromConfig(SPECTRA, { device: 'cuda', dtype: 'bfloat16' }).eval()
        low.loadStateDict(there.stateDict())
        const exact = Spectra.fromConfig(SPECTRA, { device: 'cpu' }).eval()
        exact.loadStateDict(
          Object.fromEntries(Object.entries(low.stateDict()).map(([name, one]) => [name, one.to('cpu').float()])),
        )
        let made: Awaited<ReturnType<typeof learn>> | undefined
        const { launchesBy } = await counted(async () => {
          made = await learn(low, away(inputs))
        })
        // Two layers of text, two of fusion; WavLM's attention is its own.
        expect(launchesBy['aten::_flash_attention_forward'] ?? 0).toBe(flash ? 4 : 0)
        expect(launchesBy['aten::_flash_attention_backward'] ?? 0).toBe(flash ? 4 : 0)
        const wanted = await learn(exact, inputs)
        expectClose(made!.states, wanted.states, 0.05)
        expect(apart(made!.grads, wanted.grads)).toBeLessThan(0.1)
      })
    } finally {
      useFlash(true)
    }
  })

  it('flash attention gives the same gradients with activation checkpointing, dropout and autocast', async () => {
    await scope(async () => {
      const dropped = {
        ...SPECTRA,
        textConfig: { ...TEXT, attentionProbsDropoutProb: 0.3 },
        audioConfig: { ...SPEECH, ...DROPOUT, layerdrop: 0 },
      }
      const model = Spectra.fromConfig(dropped, { device: 'cuda' }).train()
      const run = () => {
        manualSeed(8)
        return autocast({ device: 'cuda', dtype: 'bfloat16' }, () => learn(model, away(inputs)))
      }
      const plain = await run()
      model.gradientCheckpointing(true)
      const { launchesBy } = await counted(async () => {
        const again = await run()
        expect(apart(again.grads, plain.grads)).toBeLessThan(1e-3)
      })
      expect(launchesBy['aten::_flash_attention_backward']).toBe(4)
    })
  })

  it('of rows that hold several texts: a mask of blocks on the CPU', async () => {
    const [far, near] = both((device) => Roberta.fromConfig(TEXT, { device }))
    const ends = [
      [5, 9, 12],
      [3, 12],
    ]
    const block = (row: number, i: number) => (ends[row] as number[]).findIndex((end) => i < end)
    const mask = tensor(
      [0, 1].map((row) => [
        Array.from({ length: 12 }, (_, i) => Array.from({ length: 12 }, (_, j) => block(row, i) === block(row, j))),
      ]),
      host,
    )
    const inputIds = inputs.inputIds.narrow(0, 0, 2)
    await scope(() =>
      noGrad(async () => {
        const { lastHiddenState } = await far.forward({ inputIds: inputIds.to('cuda'), attentionMask: mask })
        const wanted = await near.forward({ inputIds, attentionMask: mask })
        expectClose(lastHiddenState.to('cpu'), wanted.lastHiddenState, 1e-5)
      }),
    )
  })
})

describe('a step of fine-tuning SPECTRA', () => {
  it('waits once for lengths, mask and classes of the device, and never for those of the CPU', async () => {
    const model = SpectraForSequenceClassification.fromConfig({ ...SPECTRA, numLabels: 4 }, { device: 'cuda' }).train()
    const labels = tensor([1, 2, 0], { dtype: 'int64', ...host })
    const step = (given: object) => () =>
      scope(async () => {
        const { loss } = await model.forward(given as Parameters<SpectraForSequenceClassification['forward']>[0])
        await (loss as Tensor).backward()
      })
    const all = away({ ...inputs, labels })
    await step(all)()
    expect((await counted(step(all))).waitsBy).toEqual({ 'copy to the host': 1 })
    const { attentionMask, audioLengths } = inputs
    expect((await counted(step({ ...all, attentionMask, audioLengths, labels }))).waitsBy).toEqual({})
    await expect(model.forward({ ...all, labels: labels.add(3) })).rejects.toThrow(/labels has the index 4/)
    await expect(model.forward({ ...all, labels: labels.add(3).to('cuda') })).rejects.toThrow(/labels has the index 4/)
  })
})
