import { shown } from '../../../base/check.js'
import { toCamel } from '../../../base/words.js'
import { isConfiguration } from '../../../nn/native-module.js'
import { ACTIVATIONS } from '../../config-keys.js'
import { type DecoderLMConfig, sizes as decoderSizes } from '../../decoder/config.js'
import type { NetworkConfig } from '../../network.js'
import { whisperKeys } from '../../whisper/config.js'
import { AudioProjection } from '../connector.js'
import type { AudioFamily } from '../family.js'
import { textPart } from '../text-part.js'
import { towerWidth, WhisperTower, whisperFeatures, whisperTowerKeys } from '../whisper-tower.js'

const audioOf = (config: NetworkConfig) => config.audioConfig as NetworkConfig
const textOf = (config: NetworkConfig) => config.textConfig as NetworkConfig

/** Keys of a whole Whisper's configuration, with transformers' defaults, of which the encoder's are read. */
const tower = whisperTowerKeys('dModel')
const towerDefaults = tower.defaults as NetworkConfig
const whisperDefaults = whisperKeys.defaults as NetworkConfig
const whisperTower = {
  ...tower,
  defaults: Object.fromEntries(
    Object.entries(towerDefaults).map(([key, value]) => [key, whisperDefaults[key] ?? value]),
  ),
  unused: [
    ...(tower.unused ?? []),
    ...Object.keys(whisperDefaults).filter((key) => !Object.hasOwn(towerDefaults, key)),
    ...['numHiddenLayers', 'beginSuppressTokens', 'alignmentHeads', 'useWeightedLayerSum', 'classifierProjSize'],
  ],
}

/** Whisper large-v3-turbo's encoder. */
const TURBO = {
  ...{ dModel: 1280, encoderLayers: 32, encoderAttentionHeads: 20, encoderFfnDim: 5120, numMelBins: 128 },
}
const LLAMA_3_1 = decoderSizes['llama3.1-8b'] as DecoderLMConfig
const LLAMA_3_2 = {
  ...{ ...LLAMA_3_1, hiddenSize: 2048, intermediateSize: 8192, numHiddenLayers: 16, headDim: 64 },
  ...{ ropeScaling: { ...LLAMA_3_1.ropeScaling, factor: 32 }, tieWordEmbeddings: true },
} as DecoderLMConfig

/** Return why a configuration has another encoder than Whisper's. */
function unreadable({ audioConfig }: NetworkConfig): string | undefined {
  if (!isConfiguration(audioConfig)) return undefined
  const { modelType = 'whisper' } = toCamel(audioConfig)
  return modelType === 'whisper' ? undefined : `audio_config.model_type: expected 'whisper', got ${shown(modelType)}.`
}

/**
 * Ultravox (https://github.com/fixie-ai/ultravox), in its repository's layout: the encoder and the language model may be in folders of their
 * own, `audio_model_id` and `text_model_id`. A window is as long as its audio. As in the original, the last token of a clip reads the padding
 * of its batch, and a clip of a batch may differ there from the clip alone.
 */
export const ultravox: AudioFamily = {
  architecture: 'UltravoxModel',
  processor: 'UltravoxProcessor',
  keys: {
    // The tokenizer gives the audio token an id after its own.
    defaults: ({ textConfig }) => ({
      ...{ audioConfig: {}, textConfig: {}, hiddenSize: 4096, stackFactor: 8, normInit: 0.4, projectorAct: 'swiglu' },
      ...{
        projectorLnMid: false,
        audioTokenIndex: isConfiguration(textConfig) ? (toCamel(textConfig).vocabSize ?? 32000) : 32000,
      },
    }),
    only: {
      ignoreIndex: [-100],
      projectorAct: ['swiglu', ...ACTIVATIONS],
      audioLatencyBlockSize: [null],
      llmOnlyTraining: [false],
      audioModelId: [null],
      textModelId: [null],
    },
    // They repeat keys of the language model, or name the repository's classes.
    unused: ['vocabSize', 'initializerRange', 'customPipelines'],
    parts: { audioConfig: whisperTower, textConfig: textPart('llama') },
  },
  partTypes: { audioConfig: 'whisper' },
  token: { text: '<|audio|>', key: 'audioTokenIndex', isAdded: true },
  sources: {
    audioModelId: {
      part: 'audioConfig',
      name: 'the Whisper encoder',
      nameOf: (name) => /^(?:model\.)?encoder\.(.+)$/.exec(name)?.[1]?.replace(/^/, 'audio_tower.'),
    },
    textModelId: { part: 'textConfig', name: 'the language model', nameOf: (name) => `language_model.${name}` },
  },
  unreadable,
  isTied: (config) => textOf(config).tieWordEmbeddings === true,
  encoder: (config, options) => new WhisperTower(audioOf(config), 1, options),
  connector: (config, hiddenSize, options) =>
    new AudioProjection(
      {
        ...{ inputSize: towerWidth(audioOf(config)), hiddenSize, intermediateSize: Number(config.hiddenSize) },
        ...{ stackedFrames: Number(config.stackFactor), hasActivation: true, bias: false },
        ...{ activation: config.projectorAct as string, normInit: Number(config.normInit) },
        norms: config.projectorLnMid === true ? 'middle' : 'end',
        initializerRange: Number(textOf(config).initializerRange ?? 0.02),
      },
      options,
    ),
  readsPadding: true,
  tokens: (steps, config) => Math.ceil(steps / (2 * Number(config.stackFactor))),
  features: (config) => whisperFeatures(audioOf(config), { asLongAsClip: true }),
  transcription: {
    seconds: 30,
    prompt: 'Repeat the following text, without any explanation:',
    languages: null,
    request: ({ prompt, audioToken }) => ({ messages: [{ role: 'user', content: `${prompt} ${audioToken}` }] }),
  },
  hasTextMessages: true,
  hasOwnModuleNames: true,
  sizes: {
    'ultravox-v0.5-llama-3.2-1b': {
      ...{ modelType: 'ultravox', projectorLnMid: true, audioConfig: TURBO },
      textConfig: LLAMA_3_2,
    },
    'ultravox-v0.5-llama-3.1-8b': {
      ...{ modelType: 'ultravox', projectorLnMid: true, audioConfig: TURBO },
      textConfig: LLAMA_3_1,
    },
  },
}
