import type { DecoderLMConfig } from '../../decoder/config.js'
import type { NetworkConfig } from '../../network.js'
import { AudioProjection } from '../connector.js'
import type { AudioFamily } from '../family.js'
import { textPart } from '../text-part.js'
import { towerWidth, WhisperTower, whisperFeatures, whisperTowerAliases, whisperTowerKeys } from '../whisper-tower.js'

const audioOf = (config: NetworkConfig) => config.audioConfig as NetworkConfig

/** Number of tokens of a window: convolutions and pooling each halve the steps. */
export const pooledTokens = (steps: number): number => Math.floor(Math.ceil(steps / 2) / 2)

/** Qwen2-Audio (Chu et al. 2024, https://arxiv.org/abs/2407.10759). */
export const qwen2Audio: AudioFamily = {
  architecture: 'Qwen2AudioForConditionalGeneration',
  keys: {
    defaults: { audioConfig: {}, textConfig: {}, audioTokenIndex: 151646 },
    only: { ignoreIndex: [-100] },
    unused: ['vocabSize'],
    parts: { audioConfig: whisperTowerKeys('dModel'), textConfig: textPart('qwen2') },
  },
  aliases: { audioTokenId: 'audioTokenIndex', audioConfig: whisperTowerAliases('dModel') },
  partTypes: { audioConfig: 'qwen2_audio_encoder' },
  token: { text: '<|AUDIO|>', key: 'audioTokenIndex' },
  encoder: (config, options) => new WhisperTower(audioOf(config), 2, options),
  connector: (config, hiddenSize, options) => {
    const inputSize = towerWidth(audioOf(config))
    return new AudioProjection({ inputSize, hiddenSize, hasActivation: false, bias: true }, options)
  },
  tokens: pooledTokens,
  features: (config) => whisperFeatures(audioOf(config), { oneWindow: true }),
  sizes: {
    'qwen2-audio-7b': {
      modelType: 'qwen2_audio',
      textConfig: {
        ...{ modelType: 'qwen2', vocabSize: 156032, intermediateSize: 11008, maxPositionEmbeddings: 8192 },
        ...{ rmsNormEps: 1e-5, ropeTheta: 10000 },
      } satisfies DecoderLMConfig,
    },
  },
}
