import { SPEECH_RATE } from '../../../audio/speech.js'
import { ConfigError } from '../../../base/errors.js'
import {
  type ForeignOptions,
  type IgnoredOption,
  type OptionsOf,
  readOptions,
  refuseFiles,
} from '../../../kit/options.js'

/**
 * Options of SPECTRA's fine-tuning, with the spellings of the original's `main.py` and `run_dst.py` as aliases. All are optional, since
 * each task has its own defaults.
 */
export const SPECTRA_OPTIONS = {
  task: { kind: 'text', help: 'mosi, mosei, iemocap, mintrec, or a name for your own task', value: 'name' },
  kind: { kind: ['regression', 'classification'], help: 'kind of your own task' },
  labels: { kind: 'list', help: 'class names of your own task, in order' },
  keyMetric: { kind: 'text', help: 'metric that chooses the best epoch of your own task', value: 'metric' },
  data: {
    kind: 'text',
    help: 'a folder or archive of the published data, a folder with {train,valid,test}.jsonl, or one JSONL file',
    value: 'path',
    aliases: ['data_path', 'data_dir'],
  },
  model: {
    kind: 'text',
    help: 'pre-trained or fine-tuned network',
    value: 'dir',
    aliases: ['model_path', 'model_dir'],
    without: { spectra: 'there is no other network' },
  },
  config: {
    kind: 'text',
    help: 'creates a network with random weights: base, tiny, or a JSON file with its configuration',
    value: 'size',
    preset: 'base',
  },
  tokenizer: { kind: 'text', help: 'folder of the tokenizer', value: 'dir', preset: 'that of the model' },
  textModel: {
    kind: 'text',
    help: 'RoBERTa for the text encoder',
    value: 'dir',
    aliases: ['text_path', 'text_model_class'],
  },
  audioModel: {
    kind: 'text',
    help: 'WavLM for the audio encoder',
    value: 'dir',
    aliases: ['audio_path', 'audio_model_class'],
  },
  output: {
    kind: 'text',
    help: 'folder for checkpoints, the best network and results',
    value: 'dir',
    preset: 'spectra-TASK',
    aliases: ['model_save_path', 'output_dir'],
  },
  layout: { kind: 'text', help: 'layout of the published files', preset: 'detected' },
  onBadRecord: { kind: ['stop', 'skip'], help: 'action for a record that cannot be used', preset: 'stop' },
  testSpeakers: { kind: 'list', help: 'speakers whose turns are the test data' },
  validSpeakers: { kind: 'list', help: 'speakers whose turns are the validation data' },
  device: { kind: 'text', help: 'such as cpu or cuda:0', preset: 'cpu' },
  compat: { kind: ['published'], help: 'reproduces the published code where the defaults differ' },
  epochs: { kind: 'number', help: 'passes over the data', preset: 5 },
  batchSize: {
    kind: 'whole',
    help: 'samples per batch',
    preset: 24,
    aliases: ['batch_size', 'per_gpu_train_batch_size'],
  },
  accumulation: {
    kind: 'whole',
    help: 'gradient accumulation: batches per optimizer step',
    preset: 1,
    aliases: ['grad_acc', 'accum'],
  },
  learningRate: {
    kind: 'number',
    help: 'peak learning rate',
    value: 'rate',
    preset: '2e-5',
    aliases: ['lr', 'learning_rate'],
  },
  warmup: { kind: 'number', help: 'fraction of all steps for warmup', preset: 0.01 },
  weightDecay: { kind: 'number', help: 'weight decay of AdamW', preset: 0.01, aliases: ['weight_decay'] },
  maxGradNorm: { kind: 'number', help: 'gradient clipping norm', preset: 1, aliases: ['grad_norm'] },
  patience: { kind: 'whole', help: 'early stopping: epochs without improvement', preset: 5 },
  seed: { kind: 'whole', help: 'random seed', preset: 42 },
  maxAudioLength: {
    kind: 'whole',
    help: 'maximum samples of a clip at 16 kHz; longer ones are truncated',
    preset: 160000,
  },
  maxTextLength: {
    kind: 'whole',
    help: 'maximum tokens of a text; longer ones are truncated',
    preset: 512,
    aliases: ['text_length'],
  },
  historyAudio: { kind: 'flag', help: 'adds the clip of the previous turn', aliases: ['multi_audio'] },
  turnIds: {
    kind: 'flag',
    help: 'marks previous turns and the current one with token types',
    aliases: ['use_turn_ids'],
  },
  fp16: { kind: 'flag', help: 'mixed precision on CUDA' },
  bf16: { kind: 'flag', help: 'runs under bfloat16 autocast' },
  gradientCheckpointing: {
    kind: 'flag',
    help: 'recomputes activations in backward: less memory, a third more time',
    aliases: ['grad_ckpt'],
  },
  progress: {
    kind: 'flag',
    help: 'shows progress: a bar, or lines without a terminal',
    aliases: ['show_inner_progress'],
  },
  numFusedLayers: {
    kind: 'whole',
    help: 'number of fusion layers over text and speech',
    preset: 1,
    aliases: ['num_fused_layers'],
  },
  // Options of the other commands; the original has one program for all.
  mode: { kind: ['pretrain', 'finetune', 'dst'], help: 'finetune; the others are commands of their own', hidden: true },
  datasetConfig: { kind: 'text', help: 'of `spectra track`', hidden: true, aliases: ['dataset_config'] },
  transcripts: { kind: 'text', help: 'of `spectra pretrain`', hidden: true },
  numTurns: { kind: 'whole', help: 'of `spectra pretrain`', hidden: true, aliases: ['num_turns'] },
  saveEpochs: {
    kind: 'whole',
    help: 'each epoch is saved, and the best one kept',
    hidden: true,
    aliases: ['save_interval'],
  },
  lossScale: { kind: 'number', help: 'the loss scale is dynamic', hidden: true, aliases: ['loss_scale'] },
} as const

const DEEPSPEED = "the Trainer's option zero shards the optimizer's state over the processes"

/** Options of the original that are not aliases. */
export const SPECTRA_FOREIGN: ForeignOptions = {
  audio_length: { read: (text, flag) => ['maxAudioLength', String(Math.round(positive(text, flag) * SPEECH_RATE))] },
  apex_level: { read: (text, flag) => (positive(text, flag) > 0 ? ['fp16', 'true'] : undefined) },
  local_rank: { takesValue: true, reason: 'voxtorch launch sets the rank of each process' },
  ds_config: { takesValue: true, reason: DEEPSPEED },
  ds_stage: { takesValue: true, reason: DEEPSPEED },
  dont_use_ckpts: { takesValue: false, reason: 'gradient checkpointing is off by default' },
  model_name: { takesValue: true, reason: 'the output folder names the model' },
  model_type: { takesValue: true, reason: 'the tokenizer is always that of the model' },
}

/** Options of `voxtorch spectra finetune`, after parsing. */
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
  const { options, files, ignored } = readOptions('SPECTRA', SPECTRA_OPTIONS, argv, SPECTRA_FOREIGN)
  refuseFiles('SPECTRA', files)
  return { options, ignored }
}

function positive(text: string, flag: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (Number.isFinite(value) && value >= 0) return value
  throw new ConfigError(`${flag}: expected a number of at least 0, got ${JSON.stringify(text)}`, { argument: flag })
}
