import { SPEECH_RATE } from '../../../audio/speech.js'
import { ConfigError } from '../../../base/errors.js'
import type { NetworkConfig } from '../../network.js'
import { AudioProjection } from '../connector.js'
import type { AudioFamily } from '../family.js'
import { Qwen3AsrEncoder, qwen3AsrEncoderKeys, qwen3AsrFeatures, qwen3AsrFrames } from '../qwen3-asr-encoder.js'
import { textPart } from '../text-part.js'

const audioOf = (config: NetworkConfig) => config.audioConfig as NetworkConfig

/** Settings of the language model of Qwen3-ASR 1.7B, which its files may leave out. */
const TEXT = {
  ...{ hiddenSize: 2048, intermediateSize: 6144, numHiddenLayers: 28, numAttentionHeads: 16, numKeyValueHeads: 8 },
  ...{ headDim: 128, maxPositionEmbeddings: 65536 },
}

/** Languages by code, with the names that the model was trained with. */
const LANGUAGES = {
  ...{ ar: 'Arabic', yue: 'Cantonese', zh: 'Chinese', cs: 'Czech', da: 'Danish', nl: 'Dutch', en: 'English' },
  ...{ fil: 'Filipino', fi: 'Finnish', fr: 'French', de: 'German', el: 'Greek', hi: 'Hindi', hu: 'Hungarian' },
  ...{ id: 'Indonesian', it: 'Italian', ja: 'Japanese', ko: 'Korean', mk: 'Macedonian', ms: 'Malay', fa: 'Persian' },
  ...{ pl: 'Polish', pt: 'Portuguese', ro: 'Romanian', ru: 'Russian', es: 'Spanish', sv: 'Swedish', th: 'Thai' },
  ...{ tr: 'Turkish', vi: 'Vietnamese' },
}

/** Text before the transcript, after `language NAME`. */
const TRANSCRIPT = '<asr_text>'

/** Split an answer `language NAME<asr_text>TRANSCRIPT`; a clip without speech has the language None. */
function transcriptOf(answer: string): { text: string; language: string | null } {
  const end = answer.indexOf(TRANSCRIPT)
  if (end < 0) return { text: answer, language: null }
  const text = answer.slice(end + TRANSCRIPT.length).trim()
  const [first = ''] = answer.slice(0, end).trim().split('\n')
  const name = first.toLowerCase().startsWith('language ') ? first.slice('language '.length).trim() : first.trim()
  return { text, language: name === '' || name.toLowerCase() === 'none' ? null : name }
}

/** Refuse the original layout, which transformers does not read either, and the forced aligner, which is another network. */
function unreadable({ thinkerConfig, architectures }: NetworkConfig): string | undefined {
  if (thinkerConfig !== undefined) {
    return 'thinker_config: expected the layout of transformers, got the original one of Qwen. Load Qwen/Qwen3-ASR-1.7B-hf.'
  }
  const [name] = Array.isArray(architectures) ? architectures : []
  if (name !== 'Qwen3ASRForTokenClassification') return undefined
  return `architectures: expected Qwen3ASRForConditionalGeneration, got ${name}, the forced aligner, which AudioLM does not have. Load another checkpoint.`
}

/** Qwen3-ASR (Shi et al. 2026, https://arxiv.org/abs/2601.21337), in the layout of transformers (`Qwen/Qwen3-ASR-1.7B-hf`). */
export const qwen3Asr: AudioFamily = {
  architecture: 'Qwen3ASRForConditionalGeneration',
  processor: 'Qwen3ASRProcessor',
  keys: {
    defaults: { audioConfig: {}, textConfig: {}, audioTokenId: 151676 },
    // Of the forced aligner, which is another class; the parts have initializer ranges of their own.
    unused: ['timestampTokenId', 'tokenClassificationBias', 'initializerRange'],
    parts: { audioConfig: qwen3AsrEncoderKeys, textConfig: textPart('qwen3', TEXT) },
  },
  aliases: {
    audioConfig: {
      ...{ numHiddenLayers: 'encoderLayers', hiddenSize: 'dModel', numAttentionHeads: 'encoderAttentionHeads' },
      intermediateSize: 'encoderFfnDim',
    },
  },
  partTypes: { audioConfig: 'qwen3_asr_encoder' },
  token: { text: '<|audio_pad|>', key: 'audioTokenId' },
  isTied: ({ tieWordEmbeddings }) => tieWordEmbeddings !== false,
  hasModelPrefix: true,
  unreadable,
  encoder: (config, options) => new Qwen3AsrEncoder(audioOf(config), options),
  connector: (config, hiddenSize, options) => {
    const { dModel, outputDim, activationFunction, initializerRange } = audioOf(config)
    if (outputDim !== hiddenSize) {
      throw new ConfigError(
        `AudioLM: audioConfig.outputDim: expected the language model's hiddenSize ${hiddenSize}, got ${String(outputDim)}. Correct the configuration.`,
        { key: 'outputDim', value: outputDim },
      )
    }
    const width = Number(dModel)
    const sizes = { inputSize: width, intermediateSize: width, hiddenSize }
    const activation = String(activationFunction)
    const range = { initializerRange: Number(initializerRange) }
    return new AudioProjection({ ...sizes, hasActivation: true, activation, bias: true, ...range }, options)
  },
  tokens: (steps, config) => qwen3AsrFrames(steps, audioOf(config)),
  features: (config) => ({
    keys: {
      defaults: {},
      only: {
        ...{ featureSize: [audioOf(config).numMelBins], samplingRate: [SPEECH_RATE], nFft: [400], hopLength: [160] },
        ...{ nWindow: [audioOf(config).nWindow], minLength: [8000], paddingValue: [0], dither: [0] },
      },
      // Clips are not cut, and padding is masked.
      unused: [
        'chunkLength',
        'nSamples',
        'nbMaxFrames',
        'featureExtractorType',
        'processorClass',
        'paddingSide',
        'returnAttentionMask',
      ],
    },
    saved: {
      ...{ feature_extractor_type: 'Qwen3ASRFeatureExtractor', feature_size: audioOf(config).numMelBins },
      ...{
        sampling_rate: SPEECH_RATE,
        n_fft: 400,
        hop_length: 160,
        chunk_length: 30,
        n_window: audioOf(config).nWindow,
      },
      ...{ min_length: 8000, padding_side: 'right', padding_value: 0, dither: 0, return_attention_mask: true },
    },
    compute: (samples) => qwen3AsrFeatures(samples, audioOf(config)),
  }),
  transcription: {
    seconds: 1200,
    prompt: '',
    languages: LANGUAGES,
    request: ({ prompt, language }) => {
      const context = prompt === '' ? [] : [{ role: 'system', content: [prompt] }]
      const answerStart = language === null ? '' : `language ${language}${TRANSCRIPT}`
      return { messages: [...context, { role: 'user', content: [{ type: 'audio' as const }] }], answerStart }
    },
    parse: transcriptOf,
  },
  sizes: {
    'qwen3-asr-1.7b': {
      modelType: 'qwen3_asr',
      audioConfig: { outputDim: 2048 },
      textConfig: { modelType: 'qwen3', ...TEXT },
    },
  },
}
