import type { NetworkConfig } from '../../network.js'
import { AudioProjection } from '../connector.js'
import type { AudioFamily } from '../family.js'
import { textPart } from '../text-part.js'
import { towerWidth, WhisperTower, whisperFeatures, whisperTowerAliases, whisperTowerKeys } from '../whisper-tower.js'
import { pooledTokens } from './qwen2-audio.js'

const audioOf = (config: NetworkConfig) => config.audioConfig as NetworkConfig

/** Most windows of a clip: 10 minutes. */
const MOST_WINDOWS = 20

/** Beginnings of answers to a request for a transcript. */
const FRAMES = [
  'The spoken content of the audio is',
  'The transcription of the audio is',
  'The content of the input audio is',
]

/** Return the transcript without the sentence and the quotes around it, as AudioFlamingo3Processor does. Others stay as they are. */
function unframed(answer: string): string {
  const frame = FRAMES.find((start) => answer.startsWith(start))
  if (frame === undefined) return answer
  const said = answer.slice(frame.length).trim()
  const bare = said.endsWith('.') ? said.slice(0, -1).trim() : said
  const [quote] = bare
  const isQuoted = bare.length >= 2 && (quote === '"' || quote === "'") && bare.endsWith(quote)
  return isQuoted ? bare.slice(1, -1).trim() : bare
}

/** Audio Flamingo 3 (Goel et al. 2025, https://arxiv.org/abs/2507.08128). */
export const audioFlamingo3: AudioFamily = {
  architecture: 'AudioFlamingo3ForConditionalGeneration',
  processor: 'AudioFlamingo3Processor',
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
  transcription: {
    seconds: 600,
    prompt: 'Transcribe the input speech.',
    languages: null,
    request: ({ prompt }) => ({ messages: [{ role: 'user', content: [prompt, { type: 'audio' }] }] }),
    parse: (answer) => ({ text: unframed(answer), language: null }),
  },
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
