import type { LongAudio } from '../../../audio/clip.js'
import type { GenerationConfig } from '../../../generation/config.js'
import type { OnBadRecord } from '../../../kit/records.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import type { EmotionLanguage } from '../data/emotion-suffix.js'
import type { SalmonnPart } from '../network/adapter.js'
import type { SalmonnStage } from '../training/parts.js'
import type { SalmonnRecipe } from '../training/recipe.js'

/** Settings of the network. Defaults are those of the model. */
export interface SalmonnModelSettings {
  /** Folder or file of the language model. `whisper` and `beats` likewise. */
  llm?: string
  whisper?: string
  /** null, in a file 'none': no BEATs, only Whisper. */
  beats?: string | null
  /** Trained parts: `salmonn_v1.pth`, or a voxtorch checkpoint. */
  adapter?: string
  /** Initial projection. */
  projection?: string
  lora?: boolean
  loraRank?: number
  loraAlpha?: number
  loraDropout?: number
  queries?: number
  secondsPerWindow?: number
  secondsPerStride?: number
  /** Maximum answer length in tokens. */
  maxTextLength?: number
  endSymbol?: string
  /** Whether to quantize the language model to int8. */
  loadIn8bit?: boolean
}

/** Settings of the data, for `openSalmonnData`. */
export interface SalmonnDataSettings {
  /** Annotation files. */
  train?: string[]
  /** Validation files. If unset or equal to the training files, dialogs are split off from training. */
  valid?: string[]
  test?: string[]
  /** Fraction of the dialogs for validation; `testShare` for testing. */
  validShare?: number
  testShare?: number
  validSpeakers?: string[]
  testSpeakers?: string[]
  audioRoot?: string
  /** Prompt file. Default: built-in prompts. */
  prompts?: string
  testPrompts?: string
  template?: string
  clips?: 'joined' | 'separate'
  gapSeconds?: number
  channels?: 'mean' | number
  longAudio?: LongAudio
  emotionSuffix?: EmotionLanguage | false
  onBadItem?: OnBadRecord
}

export interface SalmonnConfiguration {
  model: SalmonnModelSettings
  data: SalmonnDataSettings
  recipe: Partial<SalmonnRecipe>
  /** Trained parts. Default: that of the model. */
  stage?: SalmonnStage | readonly SalmonnPart[]
  /** Trainer arguments. */
  args: Partial<TrainingArguments>
  generation: GenerationConfig
  outputDir?: string
  device?: string
  compat?: 'published'
  /** Whether to evaluate without training. */
  evaluateOnly?: boolean
  /** Settings without effect, with the reason, to show to the user. */
  ignored: { key: string; reason: string }[]
}
