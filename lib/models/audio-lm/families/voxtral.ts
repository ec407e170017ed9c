import { ConfigError } from '../../../base/errors.js'
import type { NetworkConfig } from '../../network.js'
import { AudioProjection } from '../connector.js'
import type { AudioFamily } from '../family.js'
import { textPart } from '../text-part.js'
import {
  towerIntermediate,
  towerWidth,
  WhisperTower,
  whisperFeatures,
  whisperTowerAliases,
  whisperTowerKeys,
} from '../whisper-tower.js'

const audioOf = (config: NetworkConfig) => config.audioConfig as NetworkConfig

/** Number of frames that become one token. */
function stackedFrames(config: NetworkConfig): number {
  const [width, intermediate] = [towerWidth(audioOf(config)), towerIntermediate(audioOf(config))]
  const frames = Number(audioOf(config).maxSourcePositions)
  if (intermediate % width === 0 && frames % (intermediate / width) === 0) return intermediate / width
  throw new ConfigError(
    `AudioLM: audioConfig: expected an intermediateSize that is a multiple of hiddenSize ${width}, by a divisor of the ${frames} frames of a window, got ${intermediate}.`,
    { intermediate, width },
  )
}

/** Settings of the language model of Voxtral Mini, which its files may leave out. */
const MINI = {
  ...{ vocabSize: 131072, hiddenSize: 3072, intermediateSize: 8192, numHiddenLayers: 30, numKeyValueHeads: 8 },
  ...{ numAttentionHeads: 32, headDim: 128, maxPositionEmbeddings: 131072, rmsNormEps: 1e-5, ropeTheta: 1e8 },
}

/** The text of mistral-common's InstructTokenizerV7. Its folders have no template. */
const TEMPLATE = `{{- bos_token -}}
{%- for message in messages -%}
  {%- set parts = [{'type': 'text', 'text': message['content']}] if message['content'] is string else message['content'] -%}
  {%- if message['role'] == 'system' -%}{{- '[SYSTEM_PROMPT]' -}}
  {%- elif message['role'] == 'user' -%}{{- '[INST]' -}}
  {%- elif message['role'] != 'assistant' -%}{{- raise_exception('expected a role of system, user or assistant') -}}
  {%- endif -%}
  {%- for part in parts -%}
    {%- if part['type'] == 'text' -%}{{- part['text'] -}}
    {%- elif message['role'] == 'user' -%}{{- '[BEGIN_AUDIO][AUDIO]' -}}
    {%- else -%}{{- raise_exception('expected audio in messages of the user only') -}}
    {%- endif -%}
  {%- endfor -%}
  {%- if message['role'] == 'system' -%}{{- '[/SYSTEM_PROMPT]' -}}
  {%- elif message['role'] == 'user' -%}{{- '[/INST]' -}}
  {%- else -%}{{- eos_token -}}
  {%- endif -%}
{%- endfor -%}`

/** Voxtral (Liu et al. 2025, https://arxiv.org/abs/2507.13264). */
export const voxtral: AudioFamily = {
  architecture: 'VoxtralForConditionalGeneration',
  processor: 'VoxtralProcessor',
  keys: {
    defaults: { audioConfig: {}, textConfig: {}, audioTokenId: 24, projectorHiddenAct: 'gelu' },
    // It repeats keys of the language model.
    unused: ['hiddenSize', 'vocabSize'],
    parts: { audioConfig: whisperTowerKeys('hiddenSize'), textConfig: textPart('llama', MINI) },
  },
  aliases: { audioConfig: whisperTowerAliases('hiddenSize') },
  partTypes: { audioConfig: 'voxtral_encoder' },
  token: { text: '[AUDIO]', key: 'audioTokenId' },
  wholeWindows: true,
  encoder: (config, options) => new WhisperTower(audioOf(config), 1, options),
  connector: (config, hiddenSize, options) => {
    const activation = config.projectorHiddenAct as string
    const parts = { inputSize: towerWidth(audioOf(config)), hiddenSize, stackedFrames: stackedFrames(config) }
    return new AudioProjection({ ...parts, hasActivation: true, activation, bias: false }, options)
  },
  tokens: (_, config) => Number(audioOf(config).maxSourcePositions) / stackedFrames(config),
  features: (config) => whisperFeatures(audioOf(config), { wholeClip: true }),
  transcription: {
    seconds: 1800,
    prompt: null,
    languages: 'codes',
    request: ({ language }) => ({
      messages: [{ role: 'user', content: [{ type: 'audio' }] }],
      answerStart: `${language === null ? '' : `lang:${language}`}[TRANSCRIBE]`,
    }),
  },
  chatTemplate: TEMPLATE,
  sizes: {
    'voxtral-mini-3b': { modelType: 'voxtral', textConfig: { modelType: 'llama', ...MINI } },
    'voxtral-small-24b': {
      modelType: 'voxtral',
      textConfig: { modelType: 'llama', ...MINI, hiddenSize: 5120, intermediateSize: 32768, numHiddenLayers: 40 },
    },
  },
}
