import { type ChangesOf, settings, unchecked } from '../../../base/settings.js'
import type { GenerationConfig } from '../../../generation/config.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import { COMMON_SETTINGS } from '../data/dataset.js'
import { BAD_ITEM_SETTINGS } from '../data/entry.js'
import type { SalmonnPart } from '../network/adapter.js'
import type { SalmonnStage } from '../training/parts.js'
import { SALMONN_SETTINGS, type SalmonnRecipe } from '../training/recipe.js'

const MODEL_SETTINGS = settings({
  /** Folder or file of the language model. */
  llm: { type: 'string' },
  /** Folder or file of Whisper. */
  whisper: { type: 'string' },
  /** Folder or file of BEATs. null, in a file 'none': no BEATs, only Whisper. */
  beats: { type: 'string', nullable: true },
  /** Trained parts: `salmonn_v1.pth`, or a voxtorch checkpoint. */
  adapter: { type: 'string' },
  /** Initial projection. */
  projection: { type: 'string' },
  lora: { type: 'boolean' },
  loraRank: { type: 'integer' },
  loraAlpha: { type: 'number' },
  loraDropout: { type: 'number' },
  queries: { type: 'integer' },
  secondsPerWindow: { type: 'number' },
  secondsPerStride: { type: 'number' },
  /** Maximum answer length in tokens. */
  maxTextLength: { type: 'integer' },
  endSymbol: { type: 'string' },
  /** Whether to quantize the language model to int8. */
  loadIn8bit: { type: 'boolean' },
})

const DATA_SETTINGS = settings({
  /** Annotation files. */
  train: { type: 'strings' },
  /** Validation files. If unset or equal to the training files, dialogs are split off from training. */
  valid: { type: 'strings' },
  test: { type: 'strings' },
  /** Fraction of the dialogs for validation. */
  validShare: { type: 'number' },
  /** Fraction of the dialogs for testing. */
  testShare: { type: 'number' },
  validSpeakers: { type: 'strings' },
  testSpeakers: { type: 'strings' },
  audioRoot: { type: 'string' },
  /** Prompt file. Default: built-in prompts. */
  prompts: { type: 'string' },
  testPrompts: { type: 'string' },
  ...COMMON_SETTINGS.table,
  ...BAD_ITEM_SETTINGS.table,
})

const GENERATION_SETTINGS = settings({
  maxNewTokens: { type: 'integer' },
  numBeams: { type: 'integer' },
  doSample: { type: 'boolean' },
  minLength: { type: 'integer' },
  temperature: { type: 'number' },
  topP: { type: 'number' },
  topK: { type: 'integer' },
  repetitionPenalty: { type: 'number' },
  lengthPenalty: { type: 'number', min: -Infinity },
  noRepeatNgramSize: { type: 'integer' },
})

const RUN_SETTINGS = settings({
  outputDir: { type: 'string' },
  device: { type: 'string' },
  compat: { type: ['published'] },
  /** Whether to evaluate without training. */
  evaluateOnly: { type: 'boolean' },
  /** Trained parts. Default: that of the model. */
  stage: { type: unchecked<SalmonnStage | readonly SalmonnPart[]>() },
})

/** Settings of each part of a configuration. Those of `run` are fields of the configuration itself. */
export const CONFIGURATION_SETTINGS = {
  model: MODEL_SETTINGS,
  data: DATA_SETTINGS,
  recipe: SALMONN_SETTINGS,
  generation: GENERATION_SETTINGS,
  run: RUN_SETTINGS,
}

/** Settings of the network. Defaults are those of the model. @interface */
export type SalmonnModelSettings = ChangesOf<typeof MODEL_SETTINGS.table>

/** Settings of the data, for `openSalmonnData`. @interface */
export type SalmonnDataSettings = ChangesOf<typeof DATA_SETTINGS.table>

/** @interface */
export type SalmonnConfiguration = ChangesOf<typeof RUN_SETTINGS.table> & {
  model: SalmonnModelSettings
  data: SalmonnDataSettings
  recipe: Partial<SalmonnRecipe>
  /** Trainer arguments. */
  args: Partial<TrainingArguments>
  generation: GenerationConfig
  /** Settings without effect, with the reason, to show to the user. */
  ignored: { key: string; reason: string }[]
}
