import { SPEECH_RATE } from '../../../audio/speech.js'
import { ConfigError } from '../../../base/errors.js'
import { settings } from '../../../base/settings.js'
import {
  type IgnoredOption,
  type OptionsOf,
  type OptionTable,
  type OriginalOptions,
  readOptions,
  refuseFiles,
} from '../../../kit/options.js'
import { SPECTRA_LENGTHS, SPECTRA_SETTINGS } from '../training/recipe.js'

/** TrainingArguments that are options. */
export const SPECTRA_RUN_SETTINGS = settings({
  fp16: { type: 'boolean', help: 'mixed precision on CUDA' },
  bf16: { type: 'boolean', help: 'run under bfloat16 autocast' },
  gradientCheckpointing: {
    type: 'boolean',
    help: 'recompute activations in backward: less memory, a third more time',
    aliases: ['grad_ckpt'],
  },
  progress: {
    type: 'boolean',
    help: 'show progress: a bar, or lines without a terminal',
    aliases: ['show_inner_progress'],
  },
})

/**
 * Options of SPECTRA's fine-tuning, with the spellings of the original's `main.py` and `run_dst.py` as aliases. All are optional, since
 * each task has its own defaults.
 */
export const SPECTRA_OPTIONS = {
  task: { type: 'string', help: 'mosi, mosei, iemocap, mintrec, or a name for your own task', placeholder: 'name' },
  kind: { type: ['regression', 'classification'], help: 'kind of your own task' },
  labels: { type: 'list', help: 'class names of your own task, in order' },
  keyMetric: { type: 'string', help: 'metric that chooses the best epoch of your own task', placeholder: 'metric' },
  data: {
    type: 'string',
    help: 'a folder or archive of the published data, a folder with {train,valid,test}.jsonl, or one JSONL file',
    placeholder: 'path',
    aliases: ['data_path', 'data_dir'],
  },
  model: {
    type: 'string',
    help: 'pre-trained or fine-tuned network',
    placeholder: 'dir',
    aliases: ['model_path', 'model_dir'],
    ignoredValues: { spectra: 'there is no other network' },
  },
  config: {
    type: 'string',
    help: 'create a network with random weights: base, tiny, or a JSON file with its configuration',
    placeholder: 'size',
    default: 'base',
  },
  tokenizer: { type: 'string', help: 'folder of the tokenizer', placeholder: 'dir', default: 'that of the model' },
  textModel: {
    type: 'string',
    help: 'RoBERTa for the text encoder',
    placeholder: 'dir',
    aliases: ['text_path', 'text_model_class'],
  },
  audioModel: {
    type: 'string',
    help: 'WavLM for the audio encoder',
    placeholder: 'dir',
    aliases: ['audio_path', 'audio_model_class'],
  },
  output: {
    type: 'string',
    help: 'folder for checkpoints, the best network and results',
    placeholder: 'dir',
    default: 'spectra-TASK',
    aliases: ['model_save_path', 'output_dir'],
  },
  layout: { type: 'string', help: 'layout of the published files', default: 'detected' },
  onBadRecord: { type: ['stop', 'skip'], help: 'action for a record that cannot be used', default: 'stop' },
  testSpeakers: { type: 'list', help: 'speakers whose turns are the test data' },
  validSpeakers: { type: 'list', help: 'speakers whose turns are the validation data' },
  device: { type: 'string', help: 'device: cpu, cuda or cuda:0', default: 'cpu' },
  compat: { type: ['published'], help: 'reproduce the published code where the defaults differ' },
  ...SPECTRA_SETTINGS.options,
  ...SPECTRA_LENGTHS.options,
  ...SPECTRA_RUN_SETTINGS.options,
  numFusedLayers: { type: 'integer', help: 'number of fusion layers over text and speech', default: 1 },
  // Options of the other commands; the original has one program for all.
  mode: { type: ['pretrain', 'finetune', 'dst'], help: 'finetune; the others are commands of their own', hidden: true },
  datasetConfig: { type: 'string', help: 'of `spectra track`', hidden: true },
  transcripts: { type: 'string', help: 'of `spectra pretrain`', hidden: true },
  numTurns: { type: 'integer', help: 'of `spectra pretrain`', hidden: true },
  saveEpochs: {
    type: 'integer',
    help: 'each epoch is saved, and the best one kept',
    hidden: true,
    aliases: ['save_interval'],
  },
  lossScale: { type: 'number', help: 'the loss scale is dynamic', hidden: true },
} as const satisfies OptionTable

const DEEPSPEED = "the Trainer's option zero shards the optimizer's state over the processes"

/** Options of the original that are not aliases. */
export const SPECTRA_ORIGINAL_OPTIONS: OriginalOptions = {
  audio_length: { read: (text, flag) => ['maxAudioLength', String(Math.round(positive(text, flag) * SPEECH_RATE))] },
  apex_level: { read: (text, flag) => (positive(text, flag) > 0 ? ['fp16', 'true'] : undefined) },
  local_rank: { takesValue: true, reason: 'voxtorch launch sets the rank of each process' },
  ds_config: { takesValue: true, reason: DEEPSPEED },
  ds_stage: { takesValue: true, reason: DEEPSPEED },
  dont_use_ckpts: { takesValue: false, reason: 'gradient checkpointing is off by default' },
  model_name: { takesValue: true, reason: 'the output folder names the model' },
  model_type: { takesValue: true, reason: 'the tokenizer is always that of the model' },
}

/** Options of `voxtorch spectra train`, after parsing. */
export type SpectraArguments = OptionsOf<typeof SPECTRA_OPTIONS>

export interface ParsedSpectraArguments {
  options: SpectraArguments
  /** Options without effect, with the reasons, for a warning. */
  ignored: IgnoredOption[]
}

/**
 * Parse a command line: our options (`--batch-size 24`), and those of the original's `main.py` (`--batch_size=24 --lr=2e-5
 * --apex_level=1 --multi_audio`) and `run_dst.py` (`--per_gpu_train_batch_size 2 --accum 4`) as aliases. Hyphens and underscores are
 * equivalent; a value follows after `=` or a space; `--no-turn-ids` turns a flag off.
 *
 * Three of the original's options differ: `--audio_length` is in seconds, `--apex_level` above 0 is fp16, and `--model spectra` names the
 * network, not a folder.
 *
 * @throws ConfigError for an unknown option, naming the nearest; for a missing or invalid value; for a duplicate option
 */
export function parseSpectraArguments(argv: readonly string[]): ParsedSpectraArguments {
  const { options, files, ignored } = readOptions('SPECTRA', SPECTRA_OPTIONS, argv, SPECTRA_ORIGINAL_OPTIONS)
  refuseFiles('SPECTRA', files)
  return { options, ignored }
}

function positive(text: string, flag: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (Number.isFinite(value) && value >= 0) return value
  throw new ConfigError(`${flag}: expected a number of at least 0, got ${JSON.stringify(text)}`, { argument: flag })
}
