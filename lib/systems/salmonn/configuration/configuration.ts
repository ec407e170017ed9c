import type { LongAudio } from '../../../audio/clip.js'
import type { GenerationConfig } from '../../../generation/config.js'
import type { OnBadRecord } from '../../../kit/records.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import type { EmotionLanguage } from '../data/emotion-suffix.js'
import type { SalmonnPart } from '../network/adapter.js'
import type { SalmonnStage } from '../training/parts.js'
import type { SalmonnRecipe } from '../training/recipe.js'

/** What a configuration says of the network. What is left out has the model's own defaults. */
export interface SalmonnModelSettings {
  /** Folders or files of the published parts. */
  llm?: string
  whisper?: string
  /** null, in a file 'none': Whisper hears alone. */
  beats?: string | null
  /** What was trained: `salmonn_v1.pth`, or ours. */
  adapter?: string
  /** A projection to begin with. */
  projection?: string
  lora?: boolean
  loraRank?: number
  loraAlpha?: number
  loraDropout?: number
  queries?: number
  secondsPerWindow?: number
  secondsPerStride?: number
  /** Longest answer in tokens. */
  maxTextLength?: number
  endSymbol?: string
  /** The language model in int8. */
  loadIn8bit?: boolean
}

/** What a configuration says of the data: what `openSalmonnData` takes. */
export interface SalmonnDataSettings {
  /** Annotation files. */
  train?: string[]
  /** Where it is not given, or the training files again, dialogs are taken from training. */
  valid?: string[]
  test?: string[]
  /** Share of the dialogs. */
  validShare?: number
  testShare?: number
  validSpeakers?: string[]
  testSpeakers?: string[]
  audioRoot?: string
  /** Prompt files; our own where none is given. */
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
  /** What trains; left out, the model's default. */
  stage?: SalmonnStage | readonly SalmonnPart[]
  /** For the Trainer. */
  args: Partial<TrainingArguments>
  generation: GenerationConfig
  outputDir?: string
  device?: string
  compat?: 'published'
  /** Measures and does not train. */
  evaluateOnly?: boolean
  /** What is said and has no effect, with the reason: tell the user. */
  ignored: { key: string; reason: string }[]
}
