import { describe, expect, it } from 'vitest'
import { Module, noGrad, ops, randn, type Tensor, zeros } from '../../lib/index.js'
import { AudioProjection } from '../../lib/models/audio-lm/connector.js'
import { type SpeechFeatures, type SpeechStates, stepMask } from '../../lib/models/audio-lm/encoder-inputs.js'
import { glmAsr } from '../../lib/models/audio-lm/families/glmasr.js'
import { GlmAsrEncoder } from '../../lib/models/audio-lm/glmasr-encoder.js'
import {
  GraniteProjector,
  GraniteSpeechEncoder,
  graniteSpeechFeatures,
  graniteTokens,
} from '../../lib/models/audio-lm/granite-speech-encoder.js'
import { Qwen3AsrEncoder, qwen3AsrFeatures, qwen3AsrFrames } from '../../lib/models/audio-lm/qwen3-asr-encoder.js'
import type { NativeModule } from '../../lib/nn/native-module.js'
import { expectClose, type Fixture, fixture, tensorsOf } from '../helpers.js'
import { type As, camelKeys, expectGradients, loadParameters } from './networks.js'

interface Case {
  name: string
  config: Record<string, unknown>
  projector?: Record<string, unknown>
  windows?: Record<string, number>
  training: boolean
}
type States = SpeechStates & { attentions?: Tensor[] }
type Encoder = NativeModule & {
  encode(inputs: SpeechFeatures & { outputAttentions?: boolean }): Promise<States>
  forward(features: Tensor, lengths?: readonly number[] | null): Promise<Tensor>
}
type Projector = NativeModule & { forward(states: Tensor): Promise<Tensor> }

/** Both parts under the names of the fixtures. */
class Parts extends Module {
  constructor(
    readonly encoder: Encoder,
    readonly projector: Projector,
  ) {
    super()
  }
}

interface Family {
  file: Fixture<Case>
  make(one: Case): Parts
  /** Whether the encoder takes the mask of the features. */
  isMasked: boolean
  /** Numbers of frames and of tokens of so many steps. */
  counts(one: Case, steps: number): [frames: number, tokens: number]
}

const mlp = (inputSize: number, intermediateSize: number, stackedFrames: number, activation: string) =>
  new AudioProjection(
    { inputSize, intermediateSize, stackedFrames, hiddenSize: 6, activation, hasActivation: true, bias: true },
    {},
  )
const FAMILIES: Record<string, Family> = {
  'Qwen3-ASR': {
    file: await fixture<Case>('models/qwen3-asr-encoder'),
    make: ({ config }) =>
      new Parts(
        new Qwen3AsrEncoder(camelKeys(config)),
        mlp(8, 8, 1, (config.activation_function as string | undefined) ?? 'gelu'),
      ),
    isMasked: true,
    counts: ({ config }, steps) => {
      const frames = qwen3AsrFrames(steps, camelKeys(config))
      return [frames, frames]
    },
  },
  'GLM-ASR': {
    file: await fixture<Case>('models/glmasr-encoder'),
    make: ({ config }) => new Parts(new GlmAsrEncoder(camelKeys(config)), mlp(8, 12, 4, 'gelu')),
    isMasked: false,
    counts: (_, steps) => [Math.ceil(steps / 2), glmAsr.tokens(steps, {})],
  },
  'Granite Speech': {
    file: await fixture<Case>('models/granite-speech-encoder'),
    make: ({ config, projector = {}, windows = {} }) =>
      new Parts(
        new GraniteSpeechEncoder(camelKeys(config)),
        new GraniteProjector(camelKeys(projector), { ...camelKeys(windows), hiddenSize: 6 }),
      ),
    isMasked: false,
    counts: ({ windows = {} }, steps) => [steps, graniteTokens(steps, camelKeys(windows))],
  },
}

/** The first `counts` of each row [rows, time, width], one after the other. */
const rowsOf = (batch: Tensor, counts: readonly number[]) =>
  ops.cat(
    counts.map((count, i) => batch.select(0, i).narrow(0, 0, count)),
    0,
  )

describe.each(Object.entries(FAMILIES))('%s against transformers', (_, { file, make, isMasked, counts }) => {
  it.each(file.cases)('$name', async (one) => {
    const { name, training } = one
    const parts = make(one).train(training)
    loadParameters(parts, file, name)
    const { input_features: inputFeatures, input_features_mask: mask } = tensorsOf(file, name, 'in') as {
      input_features: Tensor
      input_features_mask?: Tensor
    }
    const stepDim = mask ? 2 : 1
    const lengths = mask
      ? (mask.sum(1).toArray() as number[]).map(Number)
      : Array.from({ length: inputFeatures.size(0) }, () => inputFeatures.size(stepDim))
    const frames = isMasked
      ? lengths.map((steps) => counts(one, steps)[0])
      : lengths.map(() => counts(one, inputFeatures.size(stepDim))[0])
    const tokens = lengths.map((steps) => counts(one, steps)[1])
    const expected = tensorsOf(file, name, 'out')
    const flat = (tensor: Tensor) => (tensor.ndim === 3 ? tensor.flatten(0, 1) : tensor)
    const inputs = (as: As = (input) => input): SpeechFeatures => ({
      inputFeatures: as(inputFeatures),
      ...(isMasked && { attentionMask: mask ?? null }),
    })
    const run = async (given: SpeechFeatures) => {
      const states = await parts.encoder.encode(given)
      return { states, embeds: rowsOf(await parts.projector.forward(states.lastHiddenState), tokens) }
    }
    const compare = ({ states, embeds }: Awaited<ReturnType<typeof run>>, label: string) => {
      expectClose(rowsOf(states.lastHiddenState, frames), flat(expected.last as Tensor), 1e-5, `${label}: states`)
      expectClose(embeds, flat(expected.embeds as Tensor), 1e-5, `${label}: embeddings`)
    }
    const plain = await run(inputs())
    compare(plain, 'with a graph')
    const statistics = Object.keys(expected).filter((key) => /running|tracked/.test(key))
    expect(statistics.length > 0).toBe(training)
    for (const key of statistics) expectClose(parts.stateDict()[key] as Tensor, expected[key] as Tensor, 1e-5, key)
    const cotangent = flat(tensorsOf(file, name, 'cotangent').embeds as Tensor)
    const back = ({ embeds }: { embeds: Tensor }) => embeds.mul(cotangent).sum().backward()
    await back(plain)
    await expectGradients(parts, file, name, { again: async (as) => back(await run(inputs(as))) })
    if (training) return
    await noGrad(async () => compare(await run(inputs()), 'without a graph'))
    parts.encoder.gradientCheckpointing(true)
    compare(await run(inputs()), 'with checkpoints')
    if (!expected['hidden.0']) return
    const full = await parts.encoder.encode({ ...inputs(), outputHiddenStates: true })
    const hidden = Object.keys(expected).filter((key) => key.startsWith('hidden.'))
    expect(full.hiddenStates.length).toBe(hidden.length)
    full.hiddenStates.forEach((state, i) => {
      expectClose(rowsOf(state, frames), flat(expected[`hidden.${i}`] as Tensor), 1e-5, `states ${i}`)
    })
    if (!expected['attention.0']) return
    const { attentions = [] } = await parts.encoder.encode({ ...inputs(), outputAttentions: true })
    expect(attentions.length).toBe(hidden.length - 1)
    attentions.forEach((weights, i) => {
      expectClose(weights, expected[`attention.${i}`] as Tensor, 1e-5, `attention ${i}`)
    })
  })
})

const TINY: Record<
  string,
  [Encoder, features: (steps: number) => Tensor, stepDim: 1 | 2, long: number, short: number]
> = {
  'Qwen3-ASR': [
    new Qwen3AsrEncoder({
      ...{ numMelBins: 5, encoderLayers: 2, encoderAttentionHeads: 2, encoderFfnDim: 12, dModel: 8 },
      ...{ nWindowInfer: 200, downsampleHiddenSize: 4 },
    }),
    (steps) => randn([1, 5, steps]),
    2,
    500,
    137,
  ],
  'GLM-ASR': [
    new GlmAsrEncoder({
      ...{ hiddenSize: 8, intermediateSize: 32, numHiddenLayers: 2, numAttentionHeads: 2, numMelBins: 6 },
    }),
    (steps) => randn([1, 6, steps]),
    2,
    33,
    18,
  ],
  'Granite Speech': [
    new GraniteSpeechEncoder({
      ...{ inputDim: 6, numLayers: 2, hiddenDim: 8, feedforwardMult: 2, numHeads: 2, outputDim: 7 },
      ...{ contextSize: 5, maxPosEmb: 8, convKernelSize: 5 },
    }),
    (steps) => randn([1, steps, 6]),
    1,
    23,
    12,
  ],
}

describe.each(Object.entries(TINY))('%s', (_, [encoder, features, stepDim, long, short]) => {
  it('gives each row of a padded batch what it has alone, and gradients without padding', async () => {
    encoder.eval()
    const clips = [features(long), features(short)]
    const alone = await Promise.all(clips.map((clip) => encodeAlone(encoder, clip)))
    const shape = [2, ...(clips[0] as Tensor).shape.slice(1)]
    const batch = zeros(shape).add(3)
    for (const [i, clip] of clips.entries())
      batch
        .select(0, i)
        .narrow(stepDim - 1, 0, clip.size(stepDim))
        .copy_(clip.select(0, 0))
    const lengths = clips.map((clip) => clip.size(stepDim))
    const attentionMask = stepMask(lengths, long)
    for (const mode of ['without a graph', 'with a graph']) {
      const pass = () => encoder.encode({ inputFeatures: batch, attentionMask })
      const { lastHiddenState, attentionMask: valid } = await (mode === 'with a graph' ? pass() : noGrad(pass))
      for (const [i, states] of alone.entries()) {
        const frames = states.size(1)
        expectClose(lastHiddenState.select(0, i).narrow(0, 0, frames), states.select(0, 0), 1e-5, `${mode}: row ${i}`)
        expect(Number(valid?.select(0, i).sum().item())).toBe(frames)
      }
    }
  })

  it('refuses features and masks of other shapes by name', async () => {
    const good = features(long)
    await expect(encoder.encode({ inputFeatures: good.select(0, 0) })).rejects.toThrow(/input_features must be \[batch/)
    const attentionMask = stepMask([3], long - 1)
    await expect(encoder.encode({ inputFeatures: good, attentionMask })).rejects.toThrow(/attention_mask must/)
  })
})

/** The states of one clip; Qwen3-ASR takes complete chunks. */
async function encodeAlone(encoder: Encoder, clip: Tensor): Promise<Tensor> {
  if (!(encoder instanceof Qwen3AsrEncoder)) return (await encoder.encode({ inputFeatures: clip })).lastHiddenState
  const states = await encoder.forward(clip)
  return states.narrow(1, 0, qwen3AsrFrames(clip.size(2), {}))
}

describe('features against transformers', async () => {
  const file = await fixture<{ name: string; size: number }>('models/speech-lm-features')
  it.each(file.cases)('$name', async ({ name, size }) => {
    const { samples } = tensorsOf(file, name, 'in') as { samples: Tensor }
    const expected = tensorsOf(file, name, 'out') as { features: Tensor; length?: Tensor; tokens?: Tensor }
    if (expected.length) {
      const { features, lengths } = await qwen3AsrFeatures(samples, { numMelBins: size })
      expect(lengths).toEqual((expected.length.toArray() as bigint[]).map(Number))
      // The original pads to complete chunks; so does the encoder.
      expectClose(features, expected.features.narrow(2, 0, features.size(2)), 1e-5, name)
      return
    }
    const { features, lengths } = await graniteSpeechFeatures(samples, { inputDim: size })
    expectClose(features, expected.features, 1e-5, name)
    expect(lengths.map((frames) => graniteTokens(frames, {}))).toEqual(
      ((expected.tokens as Tensor).toArray() as bigint[]).map(Number),
    )
  })
})

describe('configurations', () => {
  it('are refused with the name of the key', () => {
    const meta = { device: 'meta' } as const
    const qwen = (config: object) => () => new Qwen3AsrEncoder({ ...config }, meta)
    expect(qwen({ nWindowInfer: 150 })).toThrow(/n_window_infer must be a multiple of 100, 2 \* n_window, got 150/)
    expect(qwen({ maxPositionEmbeddings: 12 })).toThrow(/max_position_embeddings must be at least the 13 frames/)
    expect(qwen({ encoderAttentionHeads: 3 })).toThrow(/encoder_attention_heads 3/)
    expect(qwen({ nWindows: 50 })).toThrow(/nWindows.*did you mean 'nWindow'/)
    const glm = (config: object) => () => new GlmAsrEncoder({ ...config }, meta)
    expect(glm({ numKeyValueHeads: 4 })).toThrow(/numKeyValueHeads 20, got 4/)
    expect(glm({ ropeParameters: { ropeType: 'linear', factor: 2 } })).toThrow(/factor|ropeType/)
    expect(glm({ partialRotaryFactor: 1.5 })).toThrow(/partial_rotary_factor/)
    const granite = (config: object) => () => new GraniteSpeechEncoder({ ...config }, meta)
    expect(granite({ contextSize: 600 })).toThrow(/context_size must be from 1 to max_pos_emb 512, got 600/)
    expect(granite({ convKernelSize: 4 })).toThrow(/conv_kernel_size must be odd, got 4/)
    expect(granite({ hiddenSize: 8 })).toThrow(/hiddenSize/)
    const projector = (config: object, windows = {}) => {
      return () => new GraniteProjector({ ...config }, { hiddenSize: 8, ...windows }, meta)
    }
    expect(projector({}, { windowSize: 14 })).toThrow(/window_size must be a multiple of downsample_rate 5, got 14/)
    expect(projector({ useQformerTextInput: true })).toThrow(/useQformerTextInput false/)
  })

  it('a row without audio is refused', async () => {
    const [encoder, features] = TINY['Qwen3-ASR'] as (typeof TINY)[string]
    const inputFeatures = ops.cat([features(100), features(100)], 0)
    const attentionMask = stepMask([40, 0], 100)
    await expect(encoder.encode({ inputFeatures, attentionMask })).rejects.toThrow(/attention_mask.*row 1/)
    await expect(encoder.encode({ inputFeatures: features(99) })).rejects.toThrow(/multiple of 100 steps/)
  })
})
