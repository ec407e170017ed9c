import { audioFlamingo3 } from './families/audio-flamingo3.js'
import { glmAsr } from './families/glmasr.js'
import { graniteSpeech } from './families/granite-speech.js'
import { qwen2Audio } from './families/qwen2-audio.js'
import { qwen3Asr } from './families/qwen3-asr.js'
import { ultravox } from './families/ultravox.js'
import { voxtral } from './families/voxtral.js'
import type { AudioFamily } from './family.js'

/** Families of {@link AudioLM} by `model_type` of config.json. */
export const AUDIO_FAMILIES = {
  qwen2_audio: qwen2Audio,
  voxtral,
  audioflamingo3: audioFlamingo3,
  qwen3_asr: qwen3Asr,
  glmasr: glmAsr,
  granite_speech: graniteSpeech,
  ultravox,
} satisfies Record<string, AudioFamily>

export type AudioModelType = keyof typeof AUDIO_FAMILIES
export const AUDIO_MODEL_TYPES = Object.keys(AUDIO_FAMILIES) as AudioModelType[]
