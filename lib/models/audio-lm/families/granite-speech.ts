import { SPEECH_RATE } from '../../../audio/speech.js'
import type { NetworkConfig } from '../../network.js'
import type { AudioFamily } from '../family.js'
import {
  GraniteProjector,
  GraniteSpeechEncoder,
  graniteProjectorKeys,
  graniteSpeechEncoderKeys,
  graniteSpeechFeatures,
  graniteTokens,
} from '../granite-speech-encoder.js'
import { textPart } from '../text-part.js'

const encoderOf = (config: NetworkConfig) => config.encoderConfig as NetworkConfig

/**
 * Granite Speech (Saon et al. 2025, https://arxiv.org/abs/2505.08699). Logits are divided by `logitsScaling`, as in Granite and in
 * transformers 4; transformers 5 leaves the division out in this model, which changes its loss but not the most likely token.
 */
export const graniteSpeech: AudioFamily = {
  architecture: 'GraniteSpeechForConditionalGeneration',
  processor: 'GraniteSpeechProcessor',
  keys: {
    defaults: {
      ...{ encoderConfig: {}, projectorConfig: {}, textConfig: {}, audioTokenIndex: 49155 },
      ...{ downsampleRate: 5, windowSize: 15, hasLoraAdapter: true },
    },
    unused: ['initializerRange'],
    parts: {
      encoderConfig: graniteSpeechEncoderKeys,
      projectorConfig: graniteProjectorKeys,
      textConfig: textPart('granite'),
    },
  },
  aliases: {
    audioTokenId: 'audioTokenIndex',
    encoderConfig: {
      ...{ hiddenSize: 'hiddenDim', numHiddenLayers: 'numLayers', numAttentionHeads: 'numHeads' },
      numMelBins: 'inputDim',
    },
  },
  partTypes: { encoderConfig: 'granite_speech_encoder', projectorConfig: 'blip_2_qformer' },
  token: { text: '<|audio|>', key: 'audioTokenIndex' },
  isTied: ({ tieWordEmbeddings }) => tieWordEmbeddings !== false,
  encoder: (config, options) => new GraniteSpeechEncoder(encoderOf(config), options),
  connector: (config, hiddenSize, options) => {
    const { windowSize, downsampleRate } = config as { windowSize: number; downsampleRate: number }
    const sizes = { windowSize, downsampleRate, hiddenSize }
    return new GraniteProjector(config.projectorConfig as NetworkConfig, sizes, options)
  },
  tokens: graniteTokens,
  prefixes: { encoder: 'encoder', connector: 'projector' },
  features: (config) => {
    const bands = Number(encoderOf(config).inputDim) / 2
    return {
      keys: {
        defaults: {},
        parts: {
          melspecKwargs: {
            defaults: {},
            only: { sampleRate: [SPEECH_RATE], nFft: [512], winLength: [400], hopLength: [160], nMels: [bands] },
          },
        },
        only: {
          ...{ featureSize: [bands], nMels: [bands], samplingRate: [SPEECH_RATE], nFft: [512], winLength: [400] },
          ...{ hopLength: [160], paddingValue: [0] },
          ...{ projectorWindowSize: [config.windowSize], projectorDownsampleRate: [config.downsampleRate] },
        },
        unused: ['featureExtractorType', 'processorClass', 'paddingSide', 'returnAttentionMask'],
      },
      saved: {
        ...{ feature_extractor_type: 'GraniteSpeechFeatureExtractor', sampling_rate: SPEECH_RATE, n_mels: bands },
        ...{ n_fft: 512, win_length: 400, hop_length: 160, padding_side: 'right', padding_value: 0 },
        ...{ projector_window_size: config.windowSize, projector_downsample_rate: config.downsampleRate },
      },
      stepDim: 1,
      compute: (samples) => graniteSpeechFeatures(samples, encoderOf(config)),
    }
  },
  transcription: {
    seconds: 600,
    prompt: 'can you transcribe the speech into a written format?',
    languages: null,
    request: ({ prompt, audioToken }) => ({ messages: [{ role: 'user', content: `${audioToken}${prompt}` }] }),
  },
  hasTextMessages: true,
  sizes: {},
}
