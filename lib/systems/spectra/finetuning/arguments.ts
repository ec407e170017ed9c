import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { snakeCase } from '../../../base/key-case.js'
import { nearest } from '../../../base/nearest.js'

/** What SPECTRA's commands may be told. Each has the defaults of its own task, so all may be missing. */
export interface SpectraArguments {
  mode?: 'pretrain' | 'finetune' | 'dst'
  /** One of the four, or a name for a task of one's own. */
  task?: string
  /** For a task of one's own. */
  kind?: 'regression' | 'classification'
  /** Class names in their order, for a task of one's own. */
  labels?: string[]
  /** The metric by which the best epoch of a task of one's own is chosen. */
  keyMetric?: string
  /** A folder or archive of the published data, a folder with {train,valid,test}.jsonl, or one JSONL file. */
  data?: string
  /** A folder with a pre-trained or fine-tuned model; */
  model?: string
  /** or of one made from scratch the size, `tiny` or `base`, or a JSON file with its configuration. */
  config?: string
  tokenizer?: string
  /** A JSONL file of turns to classify with the fine-tuned `model`, instead of training. */
  predict?: string
  output?: string
  datasetConfig?: string
  device?: string
  compat?: 'published'
  layout?: string
  onBadRecord?: 'stop' | 'skip'
  testSpeakers?: string[]
  validSpeakers?: string[]
  epochs?: number
  batchSize?: number
  accumulation?: number
  learningRate?: number
  warmup?: number
  weightDecay?: number
  maxGradNorm?: number
  patience?: number
  seed?: number
  /** In samples. */
  maxAudioLength?: number
  maxTextLength?: number
  historyAudio?: boolean
  turnIds?: boolean
  fp16?: boolean
  bf16?: boolean
  lossScale?: number
  gradientCheckpointing?: boolean
  progress?: boolean
  numTurns?: number
  numFusedLayers?: number
  saveEpochs?: number
  transcripts?: string
  audioModel?: string
  textModel?: string
}

type Kind = 'text' | 'number' | 'whole' | 'flag' | 'list' | 'path'
type Name = keyof SpectraArguments

/** Our options: their names on the command line are these in kebab-case. */
const OPTIONS: Record<Name, Kind | readonly string[]> = {
  mode: ['pretrain', 'finetune', 'dst'],
  task: 'text',
  kind: ['regression', 'classification'],
  labels: 'list',
  keyMetric: 'text',
  data: 'path',
  model: 'path',
  config: 'text',
  tokenizer: 'path',
  predict: 'path',
  output: 'path',
  datasetConfig: 'path',
  device: 'text',
  compat: ['published'],
  layout: 'text',
  onBadRecord: ['stop', 'skip'],
  testSpeakers: 'list',
  validSpeakers: 'list',
  epochs: 'number',
  batchSize: 'whole',
  accumulation: 'whole',
  learningRate: 'number',
  warmup: 'number',
  weightDecay: 'number',
  maxGradNorm: 'number',
  patience: 'whole',
  seed: 'whole',
  maxAudioLength: 'whole',
  maxTextLength: 'whole',
  historyAudio: 'flag',
  turnIds: 'flag',
  fp16: 'flag',
  bf16: 'flag',
  lossScale: 'number',
  gradientCheckpointing: 'flag',
  progress: 'flag',
  numTurns: 'whole',
  numFusedLayers: 'whole',
  saveEpochs: 'whole',
  transcripts: 'path',
  audioModel: 'path',
  textModel: 'path',
}

/** The original's names for the same things, of `main.py` and of `run_dst.py`. */
const ALIASES: Record<string, Name> = {
  data_path: 'data',
  data_dir: 'data',
  model_path: 'model',
  model_dir: 'model',
  model_save_path: 'output',
  output_dir: 'output',
  dataset_config: 'datasetConfig',
  batch_size: 'batchSize',
  per_gpu_train_batch_size: 'batchSize',
  grad_acc: 'accumulation',
  accum: 'accumulation',
  lr: 'learningRate',
  learning_rate: 'learningRate',
  grad_norm: 'maxGradNorm',
  weight_decay: 'weightDecay',
  text_length: 'maxTextLength',
  multi_audio: 'historyAudio',
  use_turn_ids: 'turnIds',
  grad_ckpt: 'gradientCheckpointing',
  loss_scale: 'lossScale',
  show_inner_progress: 'progress',
  num_turns: 'numTurns',
  num_fused_layers: 'numFusedLayers',
  save_interval: 'saveEpochs',
  audio_path: 'audioModel',
  text_path: 'textModel',
  audio_model_class: 'audioModel',
  text_model_class: 'textModel',
}

/** The original's options that have nothing to say here, with the reason. A `true` takes a value. */
const IGNORED: Record<string, readonly [takesValue: boolean, reason: string]> = {
  local_rank: [true, 'voxtorch launch tells each process its rank'],
  ds_config: [true, 'the optimiser is divided over processes by the option zero of the Trainer'],
  ds_stage: [true, 'the optimiser is divided over processes by the option zero of the Trainer'],
  dont_use_ckpts: [false, 'gradient checkpointing is off unless it is asked for'],
  model_name: [true, 'the output folder names the model'],
  model_type: [true, 'there is one kind of tokenizer, which is read from the model'],
}

export interface ParsedSpectraArguments {
  options: SpectraArguments
  /** What was given and has no effect, with the reason: tell the user. */
  ignored: { flag: string; reason: string }[]
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
  requireForm('parseSpectraArguments', 'argv', argv, ['string'])
  const options: Record<string, unknown> = {}
  const ignored: ParsedSpectraArguments['ignored'] = []
  const words = [...argv]
  const set = (flag: string, name: Name, value: unknown) => {
    if (Object.hasOwn(options, name)) throw wrong(flag, `${flag} says again what was said before (${kebab(name)})`)
    options[name] = value
  }
  while (words.length > 0) {
    const word = words.shift() as string
    const match = /^--([A-Za-z][\w-]*)(?:=([\s\S]*))?$/.exec(word)
    if (!match) throw wrong(word, `${JSON.stringify(word)} is no option: they begin with --`)
    const key = (match[1] as string).replaceAll('-', '_')
    const flag = `--${match[1]}`
    const given = match[2]
    const value = (): string => {
      const found = given ?? words.shift()
      if (found === undefined || (given === undefined && /^--[A-Za-z]/.test(found))) {
        throw wrong(flag, `${flag} needs a value`)
      }
      return found
    }
    if (key === 'audio_length') set(flag, 'maxAudioLength', Math.round(number(flag, value()) * 16_000))
    else if (key === 'apex_level') {
      if (number(flag, value()) > 0) set(flag, 'fp16', true)
    } else if (key === 'model') {
      const model = value()
      if (model === 'spectra') ignored.push({ flag: '--model spectra', reason: 'there is no other network' })
      else set(flag, 'model', model)
    } else if (Object.hasOwn(IGNORED, key)) {
      const [takesValue, reason] = IGNORED[key]!
      if (takesValue) value()
      ignored.push({ flag, reason })
    } else {
      const denied = key.startsWith('no_') ? nameOf(key.slice(3)) : undefined
      const name = nameOf(key) ?? denied
      if (name === undefined) throw unknown(flag, key)
      const kind = OPTIONS[name]
      if (denied !== undefined && kind !== 'flag') throw unknown(flag, key)
      if (kind === 'flag') set(flag, name, denied === undefined ? flagValue(flag, given) : false)
      else set(flag, name, checked(flag, kind, value()))
    }
  }
  return { options: options as SpectraArguments, ignored }
}

/** `--max-steps` of `maxSteps`. */
export const kebab = (name: string): string => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

const OWN = new Map(Object.keys(OPTIONS).map((name) => [snakeCase(name), name as Name]))

const nameOf = (key: string): Name | undefined =>
  OWN.get(key) ?? (Object.hasOwn(ALIASES, key) ? ALIASES[key] : undefined)

function flagValue(flag: string, given: string | undefined): boolean {
  if (given === undefined || given === 'true') return true
  if (given === 'false') return false
  throw wrong(flag, `${flag} is true or false, not ${JSON.stringify(given)}`)
}

function checked(flag: string, kind: Kind | readonly string[], value: string): unknown {
  if (typeof kind !== 'string') {
    if (kind.includes(value)) return value
    throw wrong(flag, `${flag} is ${kind.join(' or ')}, not ${JSON.stringify(value)}`)
  }
  if (kind === 'number') return number(flag, value)
  if (kind === 'whole') {
    const whole = number(flag, value)
    if (Number.isSafeInteger(whole)) return whole
    throw wrong(flag, `${flag} is a whole number, not ${value}`)
  }
  if (value === '') throw wrong(flag, `${flag} needs a value`)
  return kind === 'list' ? value.split(',').map((item) => item.trim()) : value
}

function number(flag: string, value: string): number {
  const found = Number(value)
  if (value.trim() !== '' && Number.isFinite(found) && found >= 0) return found
  throw wrong(flag, `${flag} is a number of at least 0, not ${JSON.stringify(value)}`)
}

function unknown(flag: string, key: string): ConfigError {
  const known = [...OWN.keys(), ...Object.keys(ALIASES), ...Object.keys(IGNORED), 'audio_length', 'apex_level']
  const near = nearest(key, known)
  return wrong(flag, `SPECTRA has no option ${flag}${near ? `; did you mean --${near.replaceAll('_', '-')}?` : ''}`)
}

const wrong = (argument: string, message: string): ConfigError => new ConfigError(message, { argument })
