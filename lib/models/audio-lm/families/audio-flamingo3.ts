import type { NetworkConfig } from '../../network.js'
import { AudioProjection } from '../connector.js'
import type { AudioFamily } from '../family.js'
import { textPart } from '../text-part.js'
import { towerWidth, WhisperTower, whisperFeatures, whisperTowerAliases, whisperTowerKeys } from '../whisper-tower.js'
import { pooledTokens } from './qwen2-audio.js'

const audioOf = (config: NetworkConfig) => config.audioConfig as NetworkConfig

/** Most windows of a clip: 10 minutes. */
const MOST_WINDOWS = 20

/** Audio Flamingo 3 (Goel et al. 2025, https://arxiv.org/abs/2507.08128). */
export const audioFlamingo3: AudioFamily = {
  architecture: 'AudioFlamingo3ForConditionalGeneration',
  keys: {
    defaults: {
      ...{ audioConfig: {}, textConfig: {}, audioTokenId: 151669, projectorHiddenAct: 'gelu', projectorBias: true },
    },
    parts: { audioConfig: whisperTowerKeys('hiddenSize'), textConfig: textPart('qwen2') },
  },
  aliases: { audioConfig: whisperTowerAliases('hiddenSize') },
  partTypes: { audioConfig: 'audioflamingo3_encoder' },
  token: { text: '<sound>', key: 'audioTokenId' },
  encoder: (config, options) => new WhisperTower(audioOf(config), 2, options),
  connector: (config, hiddenSize, options) => {
    const activation = config.projectorHiddenAct as string
    const bias = config.projectorBias as boolean
    const inputSize = towerWidth(audioOf(config))
    return new AudioProjection({ inputSize, hiddenSize, hasActivation: true, activation, bias }, options)
  },
  tokens: pooledTokens,
  features: (config) => whisperFeatures(audioOf(config), { mostWindows: MOST_WINDOWS }),
  sizes: {
    // The language model is Qwen2.5-7B.
    'audio-flamingo-3': {
      modelType: 'audioflamingo3',
      textConfig: {
        ...{ modelType: 'qwen2', vocabSize: 151672, hiddenSize: 3584, intermediateSize: 18944, numHiddenLayers: 28 },
        ...{ numAttentionHeads: 28, numKeyValueHeads: 4, maxPositionEmbeddings: 32768, ropeTheta: 1e6 },
      },
    },
  },
}
