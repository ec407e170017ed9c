import { ConfigError } from '../../../base/errors.js'
import type { NetworkConfig } from '../../network.js'
import { AudioProjection } from '../connector.js'
import type { AudioFamily } from '../family.js'
import { GlmAsrEncoder, glmAsrEncoderKeys } from '../glmasr-encoder.js'
import { textPart } from '../text-part.js'
import { whisperFeatures } from '../whisper-tower.js'

const audioOf = (config: NetworkConfig) => config.audioConfig as NetworkConfig

/** Number of frames that become one token. */
const STACKED = 4
/** Most windows of a clip: 655 seconds in complete windows of 30. */
const MOST_WINDOWS = 21

/** Settings of the language model of GLM-ASR-Nano, which its files may leave out. */
const NANO = {
  ...{ vocabSize: 59264, hiddenSize: 2048, intermediateSize: 6144, numHiddenLayers: 28, numAttentionHeads: 16 },
  ...{ numKeyValueHeads: 4, maxPositionEmbeddings: 8192, rmsNormEps: 1e-5, ropeTheta: 10000 },
  eosTokenId: [59246, 59253, 59255],
}

/** GLM-ASR (https://huggingface.co/zai-org/GLM-ASR-Nano-2512). */
export const glmAsr: AudioFamily = {
  architecture: 'GlmAsrForConditionalGeneration',
  processor: 'GlmAsrProcessor',
  keys: {
    defaults: { audioConfig: {}, textConfig: {}, audioTokenId: 59260, projectorHiddenAct: 'gelu' },
    // It repeats keys of the language model.
    unused: ['hiddenSize', 'vocabSize'],
    parts: { audioConfig: glmAsrEncoderKeys, textConfig: textPart('llama', NANO) },
  },
  partTypes: { audioConfig: 'glmasr_encoder' },
  token: { text: '<|pad|>', key: 'audioTokenId' },
  isTied: ({ tieWordEmbeddings }) => tieWordEmbeddings !== false,
  encoder: (config, options) => new GlmAsrEncoder(audioOf(config), options, STACKED),
  connector: (config, hiddenSize, options) => {
    const { hiddenSize: width, intermediateSize, initializerRange } = audioOf(config)
    // transformers reshapes frames to the width of the feed-forward layers.
    if (intermediateSize !== STACKED * Number(width)) {
      throw new ConfigError(
        `AudioLM: audioConfig.intermediateSize: expected ${STACKED} times hiddenSize ${String(width)}, got ${String(intermediateSize)}. Correct the configuration.`,
        { key: 'intermediateSize', value: intermediateSize },
      )
    }
    const sizes = { inputSize: Number(width), stackedFrames: STACKED, intermediateSize: 2 * hiddenSize, hiddenSize }
    const activation = String(config.projectorHiddenAct)
    const range = { initializerRange: Number(initializerRange) }
    return new AudioProjection({ ...sizes, hasActivation: true, activation, bias: true, ...range }, options)
  },
  tokens: (steps) => Math.floor(Math.ceil(steps / 2) / STACKED),
  features: (config) => {
    const { numMelBins } = audioOf(config)
    return whisperFeatures({ numMelBins, maxSourcePositions: 1500 }, { mostWindows: MOST_WINDOWS })
  },
  transcription: {
    // 300 s have 3,750 of 8,192 positions, and a transcript of them up to 3,032.
    seconds: 300,
    prompt: 'Please transcribe this audio into text',
    languages: null,
    request: ({ prompt }) => ({ messages: [{ role: 'user', content: [{ type: 'audio' }, prompt] }] }),
  },
  sizes: { 'glm-asr-nano-2512': { modelType: 'glmasr', textConfig: { modelType: 'llama', ...NANO } } },
}
