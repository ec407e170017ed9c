import { join } from 'node:path'
import { ConfigError } from '../../../base/errors.js'
import { settings, type ValuesOf } from '../../../base/settings.js'
import {
  type OptionsOf,
  type OptionTable,
  type OriginalOptions,
  readOptions,
  refuseFiles,
} from '../../../kit/options.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import { DST_SETTINGS, DST_TRAINING, HEADS_SETTINGS } from './recipe.js'

const TRACK_SETTINGS = settings({
  data: { type: 'string', default: 'data', help: 'folder of dialogs', placeholder: 'dir', aliases: ['data_dir'] },
  config: {
    type: 'string',
    help: "configuration file of the slots; default: SpokenWOZ's slots, without label maps",
    placeholder: 'file',
    aliases: ['dataset_config'],
  },
  audioRoot: { type: 'string', help: 'folder of recordings', placeholder: 'dir', aliases: ['audio', 'audio_path'] },
  model: { type: 'string', default: 'model', help: 'pre-trained SPECTRA', placeholder: 'dir' },
  output: {
    type: 'string',
    default: 'spectra-dst',
    help: 'folder of the tracker',
    placeholder: 'dir',
    aliases: ['output_dir'],
  },
  checkpoint: { type: 'string', help: 'checkpoint in the output, instead of the trained tracker', aliases: ['ckpt'] },
  evaluate: { type: 'boolean', help: 'score a split without training' },
  track: {
    type: 'string',
    help: 'print the state after each turn of a file, or of - for standard input, without training',
    placeholder: 'file',
  },
  split: { type: 'string', default: 'test', help: 'split to score' },
  textOnly: { type: 'boolean', default: false, help: 'ignore all audio', aliases: ['no-audio'] },
  maxLength: { type: 'integer', default: 512, help: 'maximum tokens of a text', aliases: ['max_token_length'] },
  ...HEADS_SETTINGS.table,
  compat: { type: ['published'], help: 'reproduce the published code where the defaults differ' },
  device: { type: 'string', help: 'device: cpu, cuda or cuda:0', defaultText: 'cpu' },
})

/** Settings of `voxtorch spectra track`. @interface */
export type DstArguments = ValuesOf<typeof TRACK_SETTINGS.table> & {
  mode: 'train' | 'evaluate' | 'track'
  /** Folder of recordings. */
  audio: string | undefined
  /** Folder of a pre-trained SPECTRA. */
  modelDir: string
  noAudio: boolean
  training: TrainingArguments
}

/** Options of `voxtorch spectra track`, with the spellings of the original's run_dst.py as aliases. */
export const DST_OPTIONS = {
  ...TRACK_SETTINGS.options,
  cpu: { type: 'boolean', help: 'same as --device cpu', hidden: true, aliases: ['no_cuda'] },
  ...DST_SETTINGS.options,
  modelDir: { type: 'string', help: 'same as --model; in the original, --model is then a name', hidden: true },
} as const satisfies OptionTable

/** Options of the original that are not aliases. */
export const DST_ORIGINAL_OPTIONS: OriginalOptions = {
  model_type: {
    read(type) {
      if (type.toLowerCase() === 'roberta') return undefined
      throw new ConfigError(`--model_type: expected 'roberta', the text encoder of SPECTRA, got '${type}'.`, { type })
    },
  },
  resume: { takesValue: false, reason: 'training always resumes from its last checkpoint' },
  no_amp: { takesValue: false, reason: 'mixed precision is off without --bf16 or --fp16' },
}

/**
 * Parse the command line of `voxtorch spectra track`: our names, or those of the original's `run_dst.py` as aliases. Together with
 * `--model_dir`, `--model NAME` is a folder of that name in the output, as in the original.
 * @throws ConfigError for an unknown or invalid option, naming the nearest
 */
export function parseDstArguments(argv: readonly string[]): DstArguments {
  const { options, files } = readOptions('voxtorch spectra track', DST_OPTIONS, argv, DST_ORIGINAL_OPTIONS)
  refuseFiles('voxtorch spectra track', files)
  return dstArguments(options)
}

/** Return the settings of a command line, with defaults filled in. */
export function dstArguments(options: OptionsOf<typeof DST_OPTIONS>): DstArguments {
  const { modelDir, cpu } = options
  const read = TRACK_SETTINGS.read('voxtorch spectra track', TRACK_SETTINGS.changesIn(options))
  const output = modelDir === undefined ? read.output : join(read.output, options.model ?? '')
  const training = DST_SETTINGS.trainingArguments(DST_SETTINGS.changesIn(options))
  return {
    ...read,
    mode: read.track !== undefined ? 'track' : read.evaluate ? 'evaluate' : 'train',
    audio: read.audioRoot,
    modelDir: modelDir ?? read.model,
    noAudio: read.textOnly,
    output,
    ...(cpu && { device: 'cpu' }),
    training: { ...DST_TRAINING, ...training, outputDir: output },
  }
}
