import { basename, resolve } from 'node:path'
import {
  argumentError,
  requireNumber,
  requireObject,
  requireOneOf,
  requireString,
  requireWhole,
} from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { nearest } from '../../base/words.js'
import { requirePath } from '../../files/file-tensors.js'
import { readConfig } from '../../files/yaml/yaml.js'
import { SCHEDULER_TYPES } from '../scheduler.js'
import type { ReportTarget, ResolvedArguments, TrainingArguments } from './arguments.js'
import { OPTIMIZERS } from './optimizing.js'

const WHERE = 'TrainingArguments'
const REPORTS: readonly ReportTarget[] = ['jsonl', 'tensorboard', 'html']
const INTERVALS = ['no', 'steps', 'epoch']

type Check = (name: string, value: unknown) => void
const whole =
  (least = 0): Check =>
  (name, value) =>
    requireWhole(WHERE, name, value, least)
const number =
  (least?: number, below?: number): Check =>
  (name, value) => {
    requireNumber(WHERE, name, value, { least, below })
    if (value === Number.POSITIVE_INFINITY) throw argumentError(WHERE, name, 'a finite number', value)
  }
const text: Check = (name, value) => requireString(WHERE, name, value)
/** Check that a folder's path is valid for a file system, before training reaches its first checkpoint. */
const folder: Check = (name, value) => {
  requirePath(WHERE, name, value)
  const names = (value as string).split('/')
  if ((value as string) === '') throw argumentError(WHERE, name, 'the folder to write to', value)
  if (Buffer.byteLength(value as string) <= 4000 && names.every((one) => Buffer.byteLength(one) <= 255)) return
  throw argumentError(
    WHERE,
    name,
    'a path of at most 4000 bytes, 255 in each name',
    `${(value as string).slice(0, 40)}…`,
  )
}
const word =
  (...words: string[]): Check =>
  (name, value) =>
    requireOneOf(WHERE, name, value, words)
const boolean: Check = (name, value) => {
  if (typeof value !== 'boolean') throw argumentError(WHERE, name, 'a boolean', value)
}
const orNull =
  (check: Check): Check =>
  (name, value) => {
    if (value !== null) check(name, value)
  }
/** Check a number of steps: an integer, or a fraction of all steps. */
const steps: Check = (name, value) => {
  if (!(typeof value === 'number' && value > 0 && (value < 1 || Number.isSafeInteger(value)))) {
    throw argumentError(WHERE, name, 'an integer of at least 1, or a fraction below 1', value)
  }
}

/** Check and default of each argument. A function receives the arguments above it. */
const OPTIONS: {
  [K in keyof ResolvedArguments]: [check: Check, value: unknown | ((args: ResolvedArguments) => unknown)]
} = {
  outputDir: [folder, undefined],
  runName: [text, (args: ResolvedArguments) => basename(resolve(args.outputDir))],
  perDeviceTrainBatchSize: [whole(1), 8],
  perDeviceEvalBatchSize: [whole(1), 8],
  gradientAccumulationSteps: [whole(1), 1],
  numTrainEpochs: [number(0), 3],
  maxSteps: [whole(-1), -1],
  optim: [word(...Object.keys(OPTIMIZERS)), 'adamw_torch'],
  learningRate: [number(0), 5e-5],
  masterWeights: [boolean, true],
  weightDecay: [number(0), 0],
  decayAll: [boolean, false],
  adamBeta1: [number(0, 1), 0.9],
  adamBeta2: [number(0, 1), 0.999],
  adamEpsilon: [number(0), 1e-8],
  maxGradNorm: [number(0), 1],
  onNonFinite: [word('stop', 'warn'), 'stop'],
  lrSchedulerType: [word(...SCHEDULER_TYPES), 'linear'],
  lrSchedulerKwargs: [(name, value) => requireObject(WHERE, name, value), {}],
  warmupRatio: [number(0, 1), 0],
  warmupSteps: [whole(), 0],
  loggingStrategy: [word(...INTERVALS), 'steps'],
  loggingSteps: [steps, 500],
  loggingFirstStep: [boolean, false],
  evalStrategy: [word(...INTERVALS), 'no'],
  evalSteps: [steps, (args: ResolvedArguments) => args.loggingSteps],
  saveStrategy: [word(...INTERVALS, 'best'), 'steps'],
  saveSteps: [steps, 500],
  saveTotalLimit: [orNull(whole(1)), null],
  saveOnlyTrained: [boolean, false],
  loadBestModelAtEnd: [boolean, false],
  earlyStoppingPatience: [orNull(whole(1)), null],
  earlyStoppingThreshold: [number(0), 0],
  metricForBestModel: [orNull(text), (args: ResolvedArguments) => (needsMetric(args) ? 'loss' : null)],
  greaterIsBetter: [
    orNull(boolean),
    (args: ResolvedArguments) => (args.metricForBestModel ? !/loss$/i.test(args.metricForBestModel) : null),
  ],
  bf16: [boolean, false],
  fp16: [boolean, false],
  gradientCheckpointing: [boolean, false],
  labelSmoothingFactor: [number(0, 1), 0],
  neftuneNoiseAlpha: [orNull(number(0)), null],
  seed: [orNull(whole()), 42],
  dataSeed: [orNull(whole()), (args: ResolvedArguments) => args.seed],
  resumeFromCheckpoint: [
    (name, value) => {
      if (typeof value !== 'boolean' && typeof value !== 'string') {
        throw argumentError(WHERE, name, 'a boolean or the folder of a checkpoint', value)
      }
    },
    true,
  ],
  skipDamagedCheckpoints: [boolean, false],
  reportTo: [
    (name, value) => {
      if (value === 'all' || value === 'none') return
      if (!Array.isArray(value)) throw argumentError(WHERE, name, "'all', 'none' or a list of them", value)
      for (const target of value) requireOneOf(WHERE, name, target, REPORTS)
    },
    'all',
  ],
  progress: [boolean, () => process.stderr.isTTY === true],
  dataloaderNumWorkers: [whole(), 0],
  dataloaderPrefetchFactor: [whole(1), 2],
  dataloaderDropLast: [boolean, false],
  groupByLength: [boolean, false],
  zero: [
    (name, value) => {
      if (value !== 0 && value !== 1) throw argumentError(WHERE, name, '0 or 1', value)
    },
    0,
  ],
  ddpTimeout: [whole(1), 1800],
  ddpFindUnusedParameters: [boolean, true],
}

const needsMetric = ({ loadBestModelAtEnd, earlyStoppingPatience, saveStrategy }: ResolvedArguments) =>
  loadBestModelAtEnd || earlyStoppingPatience !== null || saveStrategy === 'best'

/**
 * Check arguments and fill in defaults; `undefined` counts as left out.
 * @throws ConfigError that names the argument, and for an unknown one the nearest known name
 */
export function resolveArguments(given: TrainingArguments): ResolvedArguments {
  requireObject(WHERE, 'the arguments', given)
  const known = [...Object.keys(OPTIONS), 'evaluationStrategy', 'disableTqdm']
  for (const key of Object.keys(given)) {
    if (known.includes(key)) continue
    const near = nearest(key, known)
    throw new ConfigError(
      `${WHERE}: expected a known argument, got '${key}'${near ? `; did you mean '${near}'?` : ''}`,
      { argument: key, near },
    )
  }
  if (given.outputDir === undefined) throw argumentError(WHERE, 'outputDir', 'the folder to write to', undefined)
  const values = unified(given)
  const result = {} as Record<string, unknown>
  for (const [name, [check, standard]] of Object.entries(OPTIONS)) {
    // null means the default, as in transformers.
    const value =
      values[name] === null && /^(metricForBestModel|greaterIsBetter)$/.test(name) ? undefined : values[name]
    if (value !== undefined) check(name, value)
    result[name] = value === undefined ? (typeof standard === 'function' ? standard(result) : standard) : value
  }
  if (result.reportTo === 'all') result.reportTo = REPORTS
  if (result.reportTo === 'none') result.reportTo = []
  const args = result as unknown as ResolvedArguments
  checkTogether(args)
  return args
}

/** Resolve aliases. */
function unified(given: TrainingArguments): Record<string, unknown> {
  const { evaluationStrategy, disableTqdm, ...values } = { ...given } as Record<string, unknown>
  const both = (one: string, other: string) =>
    new ConfigError(`${WHERE}: expected one of ${one} and ${other}, which are aliases, got both`, { argument: one })
  if (evaluationStrategy !== undefined) {
    if (values.evalStrategy !== undefined) throw both('evaluationStrategy', 'evalStrategy')
    values.evalStrategy = evaluationStrategy
  }
  if (disableTqdm !== undefined) {
    if (values.progress !== undefined) throw both('disableTqdm', 'progress')
    boolean('disableTqdm', disableTqdm)
    values.progress = !disableTqdm
  }
  return values
}

function checkTogether(args: ResolvedArguments): void {
  const refuse = (message: string) => new ConfigError(`${WHERE}: ${message}`, {})
  if (args.maxSteps === 0) throw argumentError(WHERE, 'maxSteps', 'positive, or -1 for none', 0)
  if (args.maxSteps < 0 && args.numTrainEpochs === 0) throw argumentError(WHERE, 'numTrainEpochs', 'positive', 0)
  if (args.bf16 && args.fp16) throw refuse('expected one of bf16 and fp16, got both')
  const wants = args.loadBestModelAtEnd
    ? 'loadBestModelAtEnd'
    : args.earlyStoppingPatience !== null
      ? 'earlyStoppingPatience'
      : args.saveStrategy === 'best'
        ? "saveStrategy 'best'"
        : undefined
  if (wants && args.evalStrategy === 'no')
    throw refuse(`expected evalStrategy 'steps' or 'epoch' with ${wants}, got 'no'`)
  if (!args.loadBestModelAtEnd || args.saveStrategy === 'best') return
  if (args.saveStrategy !== args.evalStrategy) {
    throw refuse(
      `expected equal evalStrategy and saveStrategy with loadBestModelAtEnd, got evalStrategy '${args.evalStrategy}' and ` +
        `saveStrategy '${args.saveStrategy}'`,
    )
  }
  const { evalSteps, saveSteps } = args
  // Fractions are compared as written: the numbers of steps depend on the data.
  const fits = saveSteps < 1 || evalSteps < 1 ? saveSteps === evalSteps : saveSteps % evalSteps === 0
  if (args.evalStrategy === 'steps' && !fits) {
    throw refuse(
      `expected saveSteps to be a multiple of evalSteps with loadBestModelAtEnd, got ${saveSteps} and ${evalSteps}`,
    )
  }
}

/**
 * Read arguments from a YAML or JSON file. Names may be in transformers' snake_case (`per_device_eval_batch_size`).
 * @throws ConfigError as the Trainer does, with the file's name; DataError if the file cannot be read
 */
export async function loadTrainingArguments(file: string): Promise<TrainingArguments> {
  const read = await readConfig(file)
  if (typeof read !== 'object' || read === null || Array.isArray(read)) {
    throw new ConfigError(`${file}: expected training arguments, a mapping of names to values`, { file })
  }
  const args: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(read)) {
    const name = key.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
    if (Object.hasOwn(args, name))
      throw new ConfigError(`${file}: expected each argument once, got ${name} twice`, { file, argument: name })
    args[name] = value
  }
  try {
    resolveArguments(args as unknown as TrainingArguments)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    throw new ConfigError(`${file}: ${error.message}`, { ...error, file, cause: error })
  }
  return args as unknown as TrainingArguments
}
