import type { OptionsOf, OriginalOptions } from '../../../kit/options.js'
import { CLASSIFIER_SETTINGS, CONTEXT_SETTINGS } from '../network/config.js'
import { EMOTION_SETTINGS } from '../training/recipe.js'
import { OPEN_SETTINGS, TEXT_SETTINGS } from './settings.js'

/** Options of the training of an emotion classifier, with the names of transformers' TrainingArguments as aliases. */
export const EMOTION_OPTIONS = {
  config: {
    type: 'string',
    help: 'YAML or JSON file with any of these options; the command line takes precedence',
    placeholder: 'file',
  },
  data: {
    type: 'string',
    help: 'folder of MELD or ECF, a file of either, or a JSONL file',
    placeholder: 'path',
    aliases: ['data_path'],
  },
  ...OPEN_SETTINGS.options,
  clips: {
    type: 'string',
    help: 'folder of videos, frames or audio files',
    placeholder: 'dir',
    aliases: ['video_dir'],
  },
  labels: { type: 'list', help: 'class names, in order' },
  trainShare: { type: 'fraction', help: 'fraction of the training data to train on', placeholder: 'fraction' },
  text: {
    type: 'string',
    help: 'text encoder: a BERT, MiniLM or RoBERTa, a LanguageBind folder, or none',
    placeholder: 'model',
    default: 'minilm',
  },
  ...TEXT_SETTINGS.options,
  audio: {
    type: 'string',
    help: 'audio encoder: a WavLM or Whisper, a LanguageBind folder, or fbank',
    placeholder: 'model',
  },
  video: { type: 'string', help: 'video encoder: a LanguageBind folder', placeholder: 'dir', aliases: ['video_model'] },
  ...CLASSIFIER_SETTINGS.options,
  contextLayers: { type: 'integer', help: 'layers of the transformer over a dialog; 0: none', default: 2 },
  ...CONTEXT_SETTINGS.options,
  tune: {
    type: ['head', 'full', 'lora'],
    help: 'what to train of the encoders: nothing (head), all weights (full), or LoRA adapters (lora)',
    default: 'head',
  },
  loraRank: { type: 'integer', help: 'rank of the adapters', default: 16, aliases: ['lora_r'] },
  loraAlpha: { type: 'number', help: 'LoRA alpha: adapters are scaled by alpha / rank', default: 16 },
  loraDropout: { type: 'fraction', help: 'dropout of the adapters', default: 0 },
  loraTargets: { type: 'list', help: 'adapted layers of the encoders', aliases: ['target_modules'] },
  loraBias: { type: ['none', 'all', 'lora_only'], help: 'biases that train with the adapters', default: 'none' },
  ...EMOTION_SETTINGS.options,
  keyMetric: {
    ...EMOTION_SETTINGS.table.keyMetric,
    ignoredValues: { f1_score: 'it is macroF1 here', 'cause.f1_score': 'the cause scorer trains separately' },
  },
  maxSteps: { type: 'integer', help: 'maximum number of optimizer steps', aliases: ['max_steps'] },
  compat: { type: ['published'], help: 'reproduce the published code where the defaults differ' },
  cache: {
    type: 'string',
    help: 'folder for the embeddings of frozen encoders',
    placeholder: 'dir',
    default: 'OUTPUT/features',
  },
  output: {
    type: 'string',
    help: 'folder for checkpoints, the best classifier and results',
    placeholder: 'dir',
    default: 'emotion',
    aliases: ['output_dir'],
  },
  device: { type: 'string', help: 'device: cpu, cuda or cuda:0', default: 'cpu' },
  progress: { type: 'boolean', help: 'show a progress bar, or lines without a terminal' },
  causes: { type: 'boolean', help: 'also train a cause scorer and write the submission; needs data with causes' },
  pairs: {
    type: 'boolean',
    help: "train on pairs of utterances, emotion and cause together, as in the original's experiments 9 and 10",
  },
  pointer: {
    type: 'boolean',
    help: "train a pointer to causes on frozen video and text embeddings, as in the original's experiment 11",
  },
} as const

const EPOCH = 'each epoch is evaluated and saved, and the best one is kept'

/** Options of the original, for transformers' TrainingArguments, that have no effect here. */
export const EMOTION_ORIGINAL_OPTIONS: OriginalOptions = {
  evaluation_strategy: { takesValue: true, reason: EPOCH },
  eval_strategy: { takesValue: true, reason: EPOCH },
  save_strategy: { takesValue: true, reason: EPOCH },
  save_total_limit: { takesValue: true, reason: EPOCH },
  per_device_eval_batch_size: { takesValue: true, reason: 'it equals the training batch size' },
  remove_unused_columns: { takesValue: true, reason: 'columns are never removed' },
  logging_steps: { takesValue: true, reason: 'every tenth step is written to metrics.jsonl' },
  report_to: { takesValue: true, reason: 'reports are in the output folder' },
  greater_is_better: { takesValue: true, reason: 'it follows from the metric' },
  load_best_model_at_end: { takesValue: true, reason: EPOCH },
}

export type EmotionArguments = OptionsOf<typeof EMOTION_OPTIONS>
