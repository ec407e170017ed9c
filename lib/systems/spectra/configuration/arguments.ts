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
 * What SPECTRA's fine-tuning may be told, with the spellings of the original's `main.py` and `run_dst.py`. Each task has
 * defaults of its own, so all may be missing.
 */
export const SPECTRA_OPTIONS = {
  task: { kind: 'text', help: 'mosi, mosei, iemocap, mintrec, or a name for a task of your own', value: 'name' },
  kind: { kind: ['regression', 'classification'], help: 'of a task of your own' },
  labels: { kind: 'list', help: 'class names in their order, of a task of your own' },
  keyMetric: { kind: 'text', help: 'chooses the best epoch of a task of your own', value: 'metric' },
  data: {
    kind: 'text',
    help: 'a folder or archive of the published data, a folder with {train,valid,test}.jsonl, or one JSONL file',
    value: 'path',
    aliases: ['data_path', 'data_dir'],
  },
  model: {
    kind: 'text',
    help: 'a pre-trained or fine-tuned network',
    value: 'dir',
    aliases: ['model_path', 'model_dir'],
    without: { spectra: 'there is no other network' },
  },
  config: {
    kind: 'text',
    help: 'makes a network from scratch: base, tiny, or a JSON file with its configuration',
    value: 'size',
    preset: 'base',
  },
  tokenizer: { kind: 'text', help: 'where it is not beside the model', value: 'dir' },
  textModel: {
    kind: 'text',
    help: 'a RoBERTa to begin with',
    value: 'dir',
    aliases: ['text_path', 'text_model_class'],
  },
  audioModel: {
    kind: 'text',
    help: 'a WavLM to begin with',
    value: 'dir',
    aliases: ['audio_path', 'audio_model_class'],
  },
  output: {
    kind: 'text',
    help: 'checkpoints, the best network and results go here',
    value: 'dir',
    preset: 'spectra-TASK',
    aliases: ['model_save_path', 'output_dir'],
  },
  layout: { kind: 'text', help: 'which of the published layouts the files have, where it cannot be told' },
  onBadRecord: { kind: ['stop', 'skip'], help: 'what a record that cannot be used does', preset: 'stop' },
  testSpeakers: { kind: 'list', help: 'whose turns are kept to test on' },
  validSpeakers: { kind: 'list', help: 'whose turns are kept to choose the best epoch by' },
  device: { kind: 'text', help: 'such as cpu or cuda:0', preset: 'cpu' },
  compat: { kind: ['published'], help: 'what the published code does where ours does better' },
  epochs: { kind: 'number', help: 'passes over the data', preset: 5 },
  batchSize: {
    kind: 'whole',
    help: 'samples of a batch',
    preset: 24,
    aliases: ['batch_size', 'per_gpu_train_batch_size'],
  },
  accumulation: { kind: 'whole', help: 'batches of a step', preset: 1, aliases: ['grad_acc', 'accum'] },
  learningRate: {
    kind: 'number',
    help: 'the highest',
    value: 'rate',
    preset: '2e-5',
    aliases: ['lr', 'learning_rate'],
  },
  warmup: { kind: 'number', help: 'share of all steps over which the rate climbs', preset: 0.01 },
  weightDecay: { kind: 'number', help: 'of AdamW', preset: 0.01, aliases: ['weight_decay'] },
  maxGradNorm: { kind: 'number', help: 'gradients are clipped to', preset: 1, aliases: ['grad_norm'] },
  patience: { kind: 'whole', help: 'epochs without progress after which it stops', preset: 5 },
  seed: { kind: 'whole', help: 'of weights, order and dropout', preset: 42 },
  maxAudioLength: { kind: 'whole', help: 'samples of 16 kHz that a clip is cut to', preset: 160000 },
  maxTextLength: { kind: 'whole', help: 'tokens that a text is cut to', preset: 512, aliases: ['text_length'] },
  historyAudio: { kind: 'flag', help: 'the clip of the turn before is heard too', aliases: ['multi_audio'] },
  turnIds: { kind: 'flag', help: 'the text tells earlier turns from the current one', aliases: ['use_turn_ids'] },
  fp16: { kind: 'flag', help: 'mixed precision on CUDA' },
  bf16: { kind: 'flag', help: 'computes in bfloat16' },
  gradientCheckpointing: { kind: 'flag', help: 'less memory, a third more time', aliases: ['grad_ckpt'] },
  progress: { kind: 'flag', help: 'a bar, or lines without a terminal', aliases: ['show_inner_progress'] },
  numFusedLayers: { kind: 'whole', help: 'layers over text and speech', preset: 1, aliases: ['num_fused_layers'] },
  // Those of the other commands, which the original has in one.
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
  lossScale: { kind: 'number', help: 'found while training', hidden: true, aliases: ['loss_scale'] },
} as const

const DEEPSPEED = 'the optimiser is divided over processes by the option zero of the Trainer'

/** The original's options that are no other names. */
export const SPECTRA_FOREIGN: ForeignOptions = {
  audio_length: { read: (text, flag) => ['maxAudioLength', String(Math.round(positive(text, flag) * SPEECH_RATE))] },
  apex_level: { read: (text, flag) => (positive(text, flag) > 0 ? ['fp16', 'true'] : undefined) },
  local_rank: { takesValue: true, reason: 'voxtorch launch tells each process its rank' },
  ds_config: { takesValue: true, reason: DEEPSPEED },
  ds_stage: { takesValue: true, reason: DEEPSPEED },
  dont_use_ckpts: { takesValue: false, reason: 'gradient checkpointing is off unless it is asked for' },
  model_name: { takesValue: true, reason: 'the output folder names the model' },
  model_type: { takesValue: true, reason: 'there is one kind of tokenizer, which is read from the model' },
}

/** The options of `voxtorch spectra finetune`, as they are read. */
export type SpectraArguments = OptionsOf<typeof SPECTRA_OPTIONS>

export interface ParsedSpectraArguments {
  options: SpectraArguments
  /** What was given and has no effect, with the reason: tell the user. */
  ignored: IgnoredOption[]
}

/**
 * Reads a command line: our options (`--batch-size 24`), and those of the original's `main.py` (`--batch_size=24 --lr=2e-5
 * --apex_level=1 --multi_audio`) and `run_dst.py` (`--per_gpu_train_batch_size 2 --accum 4`) as other names for them. A
 * hyphen and an underscore are alike; a value follows after `=` or a blank; `--no-turn-ids` says no to a flag.
 *
 * Three of the original's mean something slightly else: `--audio_length` is in seconds, `--apex_level` above 0 is fp16,
 * and `--model spectra` names the network, not a folder.
 *
 * @throws ConfigError for an unknown option, naming the nearest; for a value that is missing or wrong; for an option given
 * twice
 */
export function parseSpectraArguments(argv: readonly string[]): ParsedSpectraArguments {
  const { options, files, ignored } = readOptions('SPECTRA', SPECTRA_OPTIONS, argv, SPECTRA_FOREIGN)
  refuseFiles('SPECTRA', files)
  return { options, ignored }
}

function positive(text: string, flag: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (Number.isFinite(value) && value >= 0) return value
  throw new ConfigError(`${flag} is a number of at least 0, not ${JSON.stringify(text)}`, { argument: flag })
}
