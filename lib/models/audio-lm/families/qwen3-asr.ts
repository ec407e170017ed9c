import { SPEECH_RATE } from '../../../audio/speech.js'
import { defined, shown } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { snakeCase, toCamel } from '../../../base/words.js'
import { isConfiguration } from '../../../nn/native-module.js'
import { labelCount } from '../../labels.js'
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

const ALIGNER = 'Qwen3ASRForTokenClassification'

/** Keys of the original layout that have no effect on numbers: positions of text are the same in all sections. */
const withoutSections = (scaling: unknown): unknown => {
  if (!isConfiguration(scaling)) return scaling
  const { mropeSection: _, mropeInterleaved: __, interleaved: ___, type, ...rest } = toCamel(scaling)
  const { ropeType = type } = rest
  return ropeType === 'default' || ropeType === undefined ? null : { ...rest, ropeType }
}

/** `model_type` of the parts of Qwen's own layout. */
const PART_TYPES = {
  audioConfig: ['qwen3_asr_audio_encoder', 'qwen3_asr_encoder'],
  textConfig: ['qwen3_asr_text', 'qwen3'],
}

/** Return why config.json in Qwen's own layout cannot be read. */
function unreadable({ thinkerConfig }: NetworkConfig): string | undefined {
  if (!isConfiguration(thinkerConfig)) return undefined
  const thinker = toCamel(thinkerConfig)
  for (const [key, types] of Object.entries(PART_TYPES)) {
    const { modelType } = partOf(thinker, key)
    if (modelType === undefined || types.includes(modelType as string)) continue
    return `thinker_config.${snakeCase(key)}.model_type: expected ${types.map((type) => `'${type}'`).join(' or ')}, got ${shown(modelType)}.`
  }
  const { ropeScaling } = partOf(thinker, 'textConfig')
  if (ropeScaling === undefined || ropeScaling === null) return undefined
  const where = 'thinker_config.text_config.rope_scaling'
  if (!isConfiguration(ropeScaling)) return `${where}: expected an object, got ${shown(ropeScaling)}.`
  const {
    mropeSection: _,
    mropeInterleaved: __,
    interleaved: ___,
    type,
    ropeType = type,
    ...factors
  } = toCamel(ropeScaling)
  const [factor] = Object.keys(factors)
  if (ropeType !== undefined || factor === undefined) return undefined
  return `${where}.rope_type: expected the type of a scaling with ${snakeCase(factor)}, got none.`
}

const partOf = (config: NetworkConfig, key: string): NetworkConfig =>
  isConfiguration(config[key]) ? toCamel(config[key] as object) : {}

/** Return config.json in transformers' layout: of Qwen's own, whose parts are in `thinker_config`, and of the forced aligner. */
function layout(described: NetworkConfig): NetworkConfig {
  const { thinkerConfig, supportLanguages: _, ...config } = described
  if (!isConfiguration(thinkerConfig)) {
    const [name] = Array.isArray(config.architectures) ? config.architectures : []
    const isAligner = name === ALIGNER && config.numLabels === undefined
    return isAligner ? { ...config, numLabels: labelCount('AudioLM', config) } : described
  }
  const thinker = toCamel(thinkerConfig)
  const { audioTokenId, initializerRange, classifyNum, ...rest } = thinker
  const {
    audioConfig: _a,
    textConfig: _t,
    audioStartTokenId: _s,
    audioEndTokenId: _e,
    userTokenId: _u,
    ...unread
  } = rest
  const { maxSourcePositions: __, convChunksize: ___, modelType: ____, ...audio } = partOf(thinker, 'audioConfig')
  const { modelType: _____, ...text } = partOf(thinker, 'textConfig')
  return {
    ...unread,
    ...config,
    audioConfig: { nWindow: 100, nWindowInfer: 400, ...audio },
    textConfig: { ...text, modelType: 'qwen3', ropeScaling: withoutSections(text.ropeScaling) },
    ...defined({ audioTokenId, initializerRange, numLabels: classifyNum }),
    tieWordEmbeddings: text.tieWordEmbeddings === true,
  }
}

/** Return the network's name of a tensor in Qwen's own layout. */
function layoutName(name: string, { numLabels }: NetworkConfig): string | undefined {
  if (!name.startsWith('thinker.')) return undefined
  const own = name.slice('thinker.'.length)
  if (own.startsWith('lm_head.')) return own.replace('lm_head', numLabels == null ? 'language_model.lm_head' : 'score')
  if (own.startsWith('model.')) return `language_model.${own}`
  return own.replace(/^audio_tower\.proj([12])\./, 'multi_modal_projector.linear_$1.')
}

/**
 * Qwen3-ASR and its forced aligner (Shi et al. 2026, https://arxiv.org/abs/2601.21337), in the layouts of transformers
 * (`Qwen/Qwen3-ASR-1.7B-hf`) and of Qwen (`Qwen/Qwen3-ASR-1.7B`).
 */
export const qwen3Asr: AudioFamily = {
  architecture: 'Qwen3ASRForConditionalGeneration',
  processor: 'Qwen3ASRProcessor',
  keys: {
    defaults: {
      ...{ audioConfig: {}, textConfig: {}, audioTokenId: 151676, numLabels: null, timestampTokenId: 151705 },
      ...{ timestampSegmentTime: 80, tokenClassificationBias: false },
    },
    // The parts have initializer ranges of their own.
    unused: ['initializerRange', 'classifierDropout'],
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
  // The aligner does not use the output layer.
  isTied: ({ tieWordEmbeddings, numLabels }) => tieWordEmbeddings !== false || numLabels != null,
  hasModelPrefix: true,
  layout,
  layoutName,
  unreadable,
  aligner: {
    ...{ countKey: 'numLabels', tokenKey: 'timestampTokenId', stepKey: 'timestampSegmentTime' },
    ...{ biasKey: 'tokenClassificationBias', architecture: ALIGNER },
    text: (audioToken, mark, words) =>
      `<|audio_start|>${audioToken}<|audio_end|>${words.map((word) => `${word}${mark}${mark}`).join('')}`,
  },
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
