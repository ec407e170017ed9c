import type { DecoderLMConfig } from '../../decoder/config.js'
import type { NetworkConfig } from '../../network.js'
import { AudioProjection } from '../connector.js'
import type { AudioFamily } from '../family.js'
import { textPart } from '../text-part.js'
import { towerWidth, WhisperTower, whisperFeatures, whisperTowerAliases, whisperTowerKeys } from '../whisper-tower.js'

const audioOf = (config: NetworkConfig) => config.audioConfig as NetworkConfig

/** Number of tokens of a window: convolutions and pooling each halve the steps. */
export const pooledTokens = (steps: number): number => Math.floor(Math.ceil(steps / 2) / 2)

/** ChatML, in which clips are numbered over the whole conversation, for folders without a template. */
const TEMPLATE = `{%- set clips = namespace(count=0) -%}
{%- for message in messages -%}
  {%- if loop.first and message['role'] != 'system' -%}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
  {%- endif -%}
  {{- '<|im_start|>' + message['role'] + '\\n' -}}
  {%- if message['content'] is string -%}
    {{- message['content'] -}}
  {%- else -%}
    {%- for part in message['content'] -%}
      {%- if part['type'] == 'audio' -%}
        {%- set clips.count = clips.count + 1 -%}
        {{- 'Audio ' ~ clips.count ~ ': <|audio_bos|><|AUDIO|><|audio_eos|>\\n' -}}
      {%- else -%}
        {{- part['text'] -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}`

/** Qwen2-Audio (Chu et al. 2024, https://arxiv.org/abs/2407.10759). */
export const qwen2Audio: AudioFamily = {
  architecture: 'Qwen2AudioForConditionalGeneration',
  processor: 'Qwen2AudioProcessor',
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
  transcription: {
    seconds: 30,
    prompt: 'Detect the language and recognize the speech:',
    languages: 'codes',
    request: ({ prompt, language }) => {
      const text = language === null ? prompt : `${prompt} <|${language}|>`
      return { messages: [{ role: 'user', content: [{ type: 'audio' }, text] }] }
    },
  },
  chatTemplate: TEMPLATE,
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
