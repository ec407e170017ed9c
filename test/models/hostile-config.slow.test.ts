import { describe, expect, test } from 'vitest'
import {
  AudioLM,
  Beats,
  BigVGAN,
  Clip,
  ClipTextModel,
  ClipVisionModel,
  ConfigError,
  Data2VecAudio,
  DecoderLM,
  Emotion2Vec,
  FastConformerEncoder,
  Hubert,
  InsufficientMemoryError,
  InternViT,
  Mimi,
  Moonshine,
  memoryStats,
  type NativeModule,
  ParakeetForCTC,
  ParakeetForTDT,
  QFormer,
  Roberta,
  RobertaForMaskedLM,
  SiglipVisionModel,
  UnitVoicebox,
  VoxtorchError,
  Wav2Vec2,
  Wav2Vec2Bert,
  Wav2Vec2Conformer,
  WavLM,
  Whisper,
  WhisperEncoder,
} from '../../lib/index.js'
import { SpectraForPreTraining } from '../../lib/systems/spectra/index.js'

type Network = { new (config: never, options: object): NativeModule }

const convolutions = { convDim: [4, 4], convKernel: [3, 2], convStride: [2, 2] }
const trunk = { hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 8 }
const speech = { ...trunk, ...convolutions, numConvPosEmbeddings: 4, numConvPosEmbeddingGroups: 2 }
const roberta = {
  ...trunk,
  vocabSize: 12,
  maxPositionEmbeddings: 9,
  typeVocabSize: 2,
  padTokenId: 1,
  layerNormEps: 1e-5,
}
const whisper = {
  vocabSize: 60,
  numMelBins: 4,
  dModel: 8,
  encoderLayers: 1,
  encoderAttentionHeads: 2,
  encoderFfnDim: 8,
  maxSourcePositions: 6,
  decoderLayers: 1,
  decoderAttentionHeads: 2,
  decoderFfnDim: 8,
  maxTargetPositions: 6,
  padTokenId: 2,
  eosTokenId: 2,
  decoderStartTokenId: 3,
}

const fastConformer = {
  ...trunk,
  ...{ numMelBins: 16, convKernelSize: 3, subsamplingFactor: 4, subsamplingConvChannels: 4, scaleInput: true },
  ...{ subsamplingConvKernelSize: 3, subsamplingConvStride: 2, attentionBias: false, convolutionBias: false },
  ...{ hiddenAct: 'silu', dropout: 0.1, layerdrop: 0.1 },
}

const ear = {
  ...{ dModel: 8, encoderLayers: 1, encoderAttentionHeads: 2, encoderFfnDim: 8, numMelBins: 4 },
  maxSourcePositions: 12,
}
const tower = { ...trunk, numMelBins: 4, maxSourcePositions: 12 }
const encoderConfig = {
  ...{
    inputDim: 8,
    numLayers: 2,
    hiddenDim: 8,
    numHeads: 2,
    outputDim: 8,
    contextSize: 5,
    maxPosEmb: 8,
    convKernelSize: 5,
  },
}
const projectorConfig = { ...trunk, encoderHiddenSize: 8 }

/** Without memory, since the default of a part is a published size. */
class OnMeta extends AudioLM {
  constructor(config: object, options: object) {
    super(config as never, { ...options, device: 'meta' })
  }
}

/** Keys of an AudioLM, and those of its audio part in place of the whole. */
const audioLMs: [string, Network, Record<string, unknown>][] = Object.entries({
  qwen2_audio: { audioConfig: ear, audioTokenIndex: 3 },
  voxtral: { audioConfig: { ...tower, intermediateSize: 32 }, audioTokenId: 3, projectorHiddenAct: 'gelu' },
  audioflamingo3: { audioConfig: tower, audioTokenId: 3, projectorHiddenAct: 'gelu', projectorBias: true },
  qwen3_asr: {
    ...{
      audioConfig: { ...ear, maxSourcePositions: undefined, outputDim: 8, downsampleHiddenSize: 4 },
      audioTokenId: 3,
    },
    ...{ numLabels: 3, timestampTokenId: 4, timestampSegmentTime: 80, tokenClassificationBias: true },
  },
  glmasr: {
    audioConfig: { ...trunk, intermediateSize: 32, numMelBins: 4 },
    audioTokenId: 3,
    projectorHiddenAct: 'gelu',
  },
  granite_speech: {
    encoderConfig,
    projectorConfig,
    audioTokenIndex: 3,
    windowSize: 6,
    downsampleRate: 2,
    hasLoraAdapter: true,
  },
  ultravox: {
    ...{ audioConfig: ear, hiddenSize: 8, stackFactor: 2, normInit: 0.4, projectorAct: 'swiglu', projectorLnMid: true },
    audioTokenIndex: 12,
  },
}).flatMap(([modelType, config]) => {
  const textConfig = { modelType: 'llama', ...trunk, vocabSize: 12, numKeyValueHeads: 1, headDim: 4 }
  const whole = { modelType, textConfig, ...config }
  const { audioConfig } = config as { audioConfig?: Record<string, unknown> }
  class OfAudio extends AudioLM {
    constructor(part: object, options: object) {
      // Without a part, its defaults count.
      super((part ? { ...whole, audioConfig: part } : part) as never, { ...options, device: 'meta' })
    }
  }
  const rows: [string, Network, Record<string, unknown>][] = [[modelType, OnMeta as never, whole]]
  if (audioConfig !== undefined) rows.push([`audioConfig of ${modelType}`, OfAudio as never, audioConfig])
  return rows
})

const clipText = {
  ...trunk,
  vocabSize: 12,
  maxPositionEmbeddings: 8,
  hiddenAct: 'gelu',
  eosTokenId: 11,
  layerNormEps: 1e-5,
}
const clipVision = {
  ...trunk,
  imageSize: 8,
  patchSize: 4,
  numChannels: 3,
  numFrames: 2,
  addTimeAttn: true,
  clipType: 'vl_new',
  tubeSize: 1,
  temporalMlp: true,
  forcePatchDropout: 0.1,
  attentionDropout: 0.1,
  initializerFactor: 1,
  initializerRange: 0.02,
  numMelBins: 8,
  targetLength: 8,
}

const networks: [string, Network, Record<string, unknown>][] = [
  [
    'WavLM',
    WavLM as never,
    { ...speech, numBuckets: 8, maxBucketDistance: 16, maskTimeProb: 0.05, maskTimeLength: 10 },
  ],
  ['Wav2Vec2', Wav2Vec2 as never, { ...speech, featExtractNorm: 'group', doStableLayerNorm: false, hiddenAct: 'gelu' }],
  ['Hubert', Hubert as never, { ...speech, featProjLayerNorm: false, convPosBatchNorm: true }],
  ['Data2VecAudio', Data2VecAudio as never, { ...speech, convPosKernelSize: 3, numConvPosEmbeddings: 2 }],
  [
    'Wav2Vec2Conformer',
    Wav2Vec2Conformer as never,
    {
      ...{ ...speech, positionEmbeddingsType: 'rotary', rotaryEmbeddingBase: 100, convDepthwiseKernelSize: 3 },
      ...{ maxSourcePositions: 50, layerdrop: 0.1 },
    },
  ],
  [
    'Wav2Vec2Bert',
    Wav2Vec2Bert as never,
    {
      ...{ ...trunk, featureProjectionInputDim: 8, positionEmbeddingsType: 'relative_key', convDepthwiseKernelSize: 3 },
      ...{ leftMaxPositionEmbeddings: 4, rightMaxPositionEmbeddings: 2, addAdapter: true, numAdapterLayers: 1 },
      ...{ adapterKernelSize: 3, adapterStride: 2, adapterAct: 'relu', useIntermediateFfnBeforeAdapter: true },
    },
  ],
  ['FastConformerEncoder', FastConformerEncoder as never, fastConformer],
  [
    'ParakeetForCTC',
    ParakeetForCTC as never,
    { vocabSize: 12, padTokenId: 11, encoderConfig: fastConformer, ctcLossReduction: 'mean', ctcZeroInfinity: true },
  ],
  [
    'ParakeetForTDT',
    ParakeetForTDT as never,
    {
      ...{ vocabSize: 12, padTokenId: 2, blankTokenId: 11, encoderConfig: fastConformer, durations: [0, 1, 2] },
      ...{ decoderHiddenSize: 8, numDecoderLayers: 1, hiddenAct: 'relu', maxSymbolsPerStep: 2 },
    },
  ],
  ['Roberta', Roberta as never, roberta],
  ['RobertaForMaskedLM', RobertaForMaskedLM as never, roberta],
  [
    'DecoderLM',
    DecoderLM as never,
    {
      ...trunk,
      vocabSize: 12,
      numKeyValueHeads: 1,
      headDim: 4,
      maxPositionEmbeddings: 8,
      ropeTheta: 10000,
      rmsNormEps: 1e-6,
      ropeScaling: { type: 'linear', factor: 2 },
    },
  ],
  [
    'DecoderLM of Phi-3',
    DecoderLM as never,
    {
      ...trunk,
      modelType: 'phi3',
      vocabSize: 12,
      numKeyValueHeads: 1,
      headDim: 4,
      maxPositionEmbeddings: 8,
      originalMaxPositionEmbeddings: 4,
      slidingWindow: 3,
      ropeScaling: { type: 'longrope', shortFactor: [1, 1], longFactor: [1, 2], attentionFactor: 1 },
    },
  ],
  [
    'DecoderLM of InternLM2',
    DecoderLM as never,
    { ...trunk, modelType: 'internlm2', vocabSize: 12, numKeyValueHeads: 1, bias: false },
  ],
  [
    'InternViT',
    InternViT as never,
    {
      ...trunk,
      numChannels: 1,
      patchSize: 2,
      imageSize: 4,
      qkvBias: true,
      qkNormalization: true,
      normType: 'layer_norm',
      initializerFactor: 0.1,
      dropPathRate: 0.1,
    },
  ],
  ['Whisper', Whisper as never, whisper],
  ['WhisperEncoder', WhisperEncoder as never, whisper],
  [
    'Moonshine',
    Moonshine as never,
    {
      ...{ vocabSize: 20, hiddenSize: 8, intermediateSize: 8, encoderNumHiddenLayers: 1, decoderNumHiddenLayers: 1 },
      ...{ encoderNumAttentionHeads: 2, decoderNumAttentionHeads: 2, encoderNumKeyValueHeads: 2 },
      ...{ partialRotaryFactor: 0.5, ropeTheta: 100, ropeParameters: { ropeTheta: 100 }, maxPositionEmbeddings: 8 },
      ...{ attentionDropout: 0, initializerRange: 0.02, decoderStartTokenId: 1, padTokenId: 2, attentionBias: true },
      ...{ encoderHiddenAct: 'gelu', decoderHiddenAct: 'silu', tieWordEmbeddings: false, eosTokenId: 2 },
    },
  ],
  [
    'Mimi',
    Mimi as never,
    {
      ...{
        hiddenSize: 8,
        numFilters: 2,
        numResidualLayers: 1,
        upsamplingRatios: [2],
        kernelSize: 3,
        lastKernelSize: 3,
      },
      ...{
        residualKernelSize: 3,
        dilationGrowthRate: 2,
        compress: 2,
        codebookSize: 4,
        codebookDim: 4,
        numQuantizers: 2,
      },
      ...{ vectorQuantizationHiddenDimension: 4, numSemanticQuantizers: 1, upsampleGroups: 8, numHiddenLayers: 1 },
      ...{ intermediateSize: 8, numAttentionHeads: 2, numKeyValueHeads: 2, headDim: 4, slidingWindow: 4 },
      ...{
        samplingRate: 400,
        frameRate: 100,
        audioChannels: 1,
        maxPositionEmbeddings: 8,
        ropeTheta: 100,
        normEps: 1e-5,
      },
      ...{
        layerScaleInitialScale: 0.1,
        attentionDropout: 0,
        initializerRange: 0.02,
        hiddenAct: 'gelu',
        padMode: 'constant',
      },
    },
  ],
  ...audioLMs,
  [
    'Emotion2Vec',
    Emotion2Vec as never,
    {
      ...{ ...trunk, ...convolutions, numConvPosEmbeddings: 1, convPosKernelSize: 3, numConvPosEmbeddingGroups: 2 },
      ...{ numExtraTokens: 2, alibiScale: 1, learnedAlibiScalePerLayer: true, learnedAlibiScalePerHead: true },
      ...{ hiddenDropout: 0.1, attentionDropout: 0.1, activationDropout: 0.1, postMlpDrop: 0.1, prenetDropout: 0.1 },
      ...{ layerdrop: 0.1, normalize: true, numAlibiHeads: 2, numLabels: 2, initializerRange: 0.02 },
    },
  ],
  ['ClipTextModel', ClipTextModel as never, clipText],
  ['ClipVisionModel', ClipVisionModel as never, clipVision],
  [
    'SiglipVisionModel',
    SiglipVisionModel as never,
    {
      ...trunk,
      ...{ imageSize: 8, patchSize: 4, numChannels: 3, layerNormEps: 1e-6, attentionDropout: 0.1 },
      ...{ hiddenAct: 'gelu', visionUseHead: true },
    },
  ],
  ['Clip', Clip as never, { textConfig: clipText, visionConfig: clipVision, projectionDim: 4, logitScaleInitValue: 2 }],
  ['QFormer', QFormer as never, { ...trunk, encoderWidth: 6, queryLength: 2, crossAttentionFreq: 1 }],
  [
    'Beats',
    Beats as never,
    {
      inputPatchSize: 16,
      embedDim: 8,
      encoderLayers: 1,
      encoderEmbedDim: 8,
      encoderFfnEmbedDim: 8,
      encoderAttentionHeads: 2,
      convPos: 4,
      convPosGroups: 2,
      numBuckets: 8,
      maxDistance: 16,
    },
  ],
  [
    'BigVGAN',
    BigVGAN as never,
    {
      numMels: 4,
      upsampleRates: [2],
      upsampleKernelSizes: [4],
      upsampleInitialChannel: 4,
      resblock: '1',
      resblockKernelSizes: [3],
      resblockDilationSizes: [[1]],
      activation: 'snake',
      snakeLogscale: true,
      useTanhAtFinal: true,
      useBiasAtFinal: true,
      weightNorm: true,
    },
  ],
  [
    'UnitVoicebox',
    UnitVoicebox as never,
    {
      nFeats: 4,
      nTokens: 4,
      embeddingDim: 4,
      hiddenSize: 8,
      intermediateSize: 8,
      numAttentionHeads: 2,
      numHiddenLayers: 2,
      convposWidth: 3,
      convposGroups: 2,
      convposDepth: 1,
      sigmaMin: 1e-4,
    },
  ],
  [
    'SpectraForPreTraining',
    SpectraForPreTraining as never,
    { textConfig: roberta, audioConfig: speech, numFusedLayers: 1, maxTextLength: 8, maxAudioLength: 100 },
  ],
]

const deep = (levels: number): unknown => {
  let value: unknown = 1
  for (let i = 0; i < levels; i++) value = { value }
  return value
}
const itself: Record<string, unknown> = {}
itself.itself = itself

const values: [string, unknown][] = [
  ['2^64, as a bigint', 2n ** 64n],
  ['a bigint of 1,000 digits', 10n ** 1000n],
  ['1e308', 1e308],
  ['2^53', 2 ** 53],
  ['1e12', 1e12],
  ['2^31', 2 ** 31],
  ['-2^31', -(2 ** 31)],
  ['-1', -1],
  ['0', 0],
  ['1.5', 1.5],
  ['NaN', Number.NaN],
  ['infinity', Number.POSITIVE_INFINITY],
  ['a text', 'x'],
  ['true', true],
  ['a list', [1, 'x']],
  ['a list of 100,000', new Array(100_000).fill(2)],
  ['an object', {}],
  ['an object nested 100,000 deep', deep(100_000)],
  ['an object in itself', itself],
  ['a symbol', Symbol('x')],
  ['a function', () => 1],
]

describe('values of a configuration that no network can have', () => {
  test.each(networks)('%s', (_name, Network, config) => {
    new Network(config as never, {}).dispose()
    for (const [what, value] of values) {
      for (const key of Object.keys(config)) {
        try {
          new Network({ ...config, [key]: value } as never, {}).dispose()
        } catch (error) {
          expect(error, `${key}: ${what}: ${error}`).toBeInstanceOf(VoxtorchError)
        }
      }
    }
    for (const nothing of [Symbol('x'), 7, null, undefined, [], () => 1, new Map(), new Date(0)]) {
      expect(() => new Network(nothing as never, {}), String(nothing)).toThrow(ConfigError)
    }
  })

  test('the key is named', () => {
    const encoder = (change: object) => () => new WavLM({ ...speech, ...change } as never, {})
    expect(encoder({ hiddenSize: 2n ** 64n })).toThrow(/'hidden_size' .* must be an integer, got 1\.84467e\+19/)
    expect(encoder({ hiddenSize: Number.POSITIVE_INFINITY })).toThrow(/'hidden_size' .* must be a number/)
    expect(encoder({ numHiddenLayers: 1e12 })).toThrow(/^wavlm: 'num_hidden_layers' .* must be at most 10000/)
    expect(encoder({ numConvPosEmbeddings: 1e9 })).toThrow(/'num_conv_pos_embeddings' .* must be at most 65536/)
    expect(encoder({ convDim: new Array(1e6).fill(4) })).toThrow(/'conv_dim' .* at most 1000 sizes/)
    const rotated = { ...trunk, vocabSize: 12, headDim: 2 ** 31 }
    expect(() => new DecoderLM(rotated as never, {})).toThrow(/head must be at most 65536 for RoPE, got 2147483648/)
    expect(encoder({ hiddenAct: Symbol('gelu') })).toThrow(/expected a value that JSON can store as 'hidden_act'/)
  })

  test('a network on the CPU larger than memory is refused before it is begun', () => {
    const before = memoryStats().liveTensors
    const large = { ...roberta, vocabSize: 2 ** 31, hiddenSize: 4096 }
    expect(() => new Roberta(large as never, {})).toThrow(InsufficientMemoryError)
    expect(() => new Roberta(large as never, {})).toThrow(
      /fits in \d+ bytes of available memory, got one that needs \d+/,
    )
    expect(() => new Roberta({ ...large, vocabSize: 2 ** 45 } as never, {})).toThrow(VoxtorchError)
    expect(memoryStats().liveTensors).toBe(before)
    // It can be described all the same.
    const described = new Roberta(large as never, { device: 'meta' })
    expect(Math.max(...[...described.parameters()].map((one) => one.numel()))).toBe(2 ** 43)
    described.dispose()
  })
})
