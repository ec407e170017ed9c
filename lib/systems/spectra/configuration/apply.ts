import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { flagOf, missingOption } from '../../../kit/options.js'
import { metricsTable } from '../../../kit/recipe.js'
import type { Device } from '../../../tensor/index.js'
import { OPEN_SETTINGS, type OpenSpectraDataOptions, type SpectraData } from '../data/open.js'
import { isPublishedTask, publishedSpectraTask, type SpectraTask, spectraTask } from '../evaluation/task.js'
import { readSpectraConfig } from '../network/config.js'
import { SpectraForSequenceClassification } from '../network/network.js'
import { SPECTRA_LENGTHS, SPECTRA_SETTINGS } from '../training/recipe.js'
import type { FinetuneSpectraOptions, SpectraResults } from '../training/train.js'
import { SPECTRA_RUN_SETTINGS, type SpectraArguments } from './arguments.js'

/** Return the task of a command line. @throws ConfigError for a name that is not one of the four published tasks, without `kind` */
export function spectraTaskOfArguments(options: SpectraArguments): SpectraTask {
  requireForm('spectraTaskOfArguments', 'options', options, { 'task?': 'string' })
  const { task, kind, labels, keyMetric } = options
  if (task === undefined)
    throw new ConfigError('--task: expected mosi, mosei, iemocap, mintrec or a name of your own, got nothing.', {
      argument: 'task',
    })
  if (isPublishedTask(task)) return publishedSpectraTask(task)
  const known = kind ?? (labels === undefined ? undefined : 'classification')
  if (known === undefined) return publishedSpectraTask(task) // throws, with the nearest name
  return spectraTask({ name: task, kind: known, labels, keyMetric })
}

/** Return the arguments of `openSpectraData` for a command line: path and options. */
export function spectraDataOfArguments(options: SpectraArguments): [path: string, options: OpenSpectraDataOptions] {
  requireForm('spectraDataOfArguments', 'options', options, 'object')
  const { data, model, textModel, testSpeakers, validSpeakers, tokenizer = model ?? textModel } = options
  if (data === undefined) throw missingOption('data', 'the folder or JSONL file of the data', 'PATH')
  const task = spectraTaskOfArguments(options)
  const speakers = { ...(testSpeakers && { test: testSpeakers }), ...(validSpeakers && { valid: validSpeakers }) }
  return [data, { ...OPEN_SETTINGS.changesIn({ ...options, tokenizer, speakers }), task }]
}

/** Return the options of `finetuneSpectra` for a command line, without model and data. */
export function spectraFinetuningOfArguments(
  options: SpectraArguments,
): Omit<FinetuneSpectraOptions<never>, 'model' | 'data'> {
  requireForm('spectraFinetuningOfArguments', 'options', options, { 'task?': 'string', 'device?': 'string' })
  const { output, compat, fp16, device } = options
  // As in the original, mixed precision is for CUDA only.
  const isMixed = fp16 && device?.startsWith('cuda') ? true : undefined
  return {
    outputDir: output ?? `spectra-${options.task}`,
    preset: SPECTRA_SETTINGS.changesIn(options),
    ...SPECTRA_LENGTHS.changesIn(options),
    ...(compat && { compat }),
    args: defined({ ...SPECTRA_RUN_SETTINGS.changesIn(options), fp16: isMixed }),
  }
}

/** Options of other commands, and of the original, that have no effect on fine-tuning. */
const NOT_HERE: Partial<Record<keyof SpectraArguments, string>> = {
  datasetConfig: 'slots are for voxtorch spectra track',
  transcripts: 'transcripts are for voxtorch spectra pretrain',
  numTurns: 'each turn has the history of its data, at most ten turns',
  saveEpochs: 'each epoch is saved, and the best one kept',
  lossScale: 'the loss scale is dynamic',
}

/**
 * Return the options of a command line that have no effect on fine-tuning, with the reasons, for a warning.
 * @throws ConfigError for a `mode` other than fine-tuning
 */
export function unusedSpectraArguments(options: SpectraArguments): { flag: string; reason: string }[] {
  requireForm('unusedSpectraArguments', 'options', options, { 'device?': 'string' })
  const { mode = 'finetune', fp16, device } = options
  if (mode !== 'finetune') {
    const verb = { pretrain: 'pretrain', dst: 'track' }[mode]
    throw new ConfigError(`--mode: expected finetune, got ${mode}. Run voxtorch spectra ${verb}.`, { argument: 'mode' })
  }
  const found = Object.entries(NOT_HERE).filter(([name]) => Object.hasOwn(options, name))
  const unused = found.map(([name, reason]) => ({ flag: flagOf(name), reason }))
  return fp16 && !device?.startsWith('cuda')
    ? [...unused, { flag: '--fp16', reason: 'it is for CUDA: add --device cuda' }]
    : unused
}

/**
 * Load or create the network of a command line, with as many outputs as the task has: a pre-trained or fine-tuned one (`--model DIR`),
 * one from a RoBERTa and a WavLM (`--text-model DIR --audio-model DIR`), or a new one (`--config`).
 * @throws CheckpointError, ConfigError as `SpectraForSequenceClassification`
 */
export async function spectraOfArguments(
  options: SpectraArguments,
  data: Pick<SpectraData, 'task' | 'tokenizer'>,
): Promise<SpectraForSequenceClassification> {
  requireForm('spectraOfArguments', 'options', options, 'object')
  requireForm('spectraOfArguments', 'data', data, { task: { numLabels: 'number' } })
  const { model, textModel, audioModel, compat, numFusedLayers, device } = options
  const factory = device === undefined ? {} : { device: device as Device }
  const config = defined({ numLabels: data.task.numLabels, compat, numFusedLayers })
  if ((textModel === undefined) !== (audioModel === undefined) || (model !== undefined && textModel !== undefined)) {
    throw new ConfigError(
      '--model: expected either --model, or --text-model and --audio-model, got another combination.',
      { argument: 'model' },
    )
  }
  const from = model ?? (textModel !== undefined && { text: textModel, audio: audioModel as string })
  if (from)
    return SpectraForSequenceClassification.fromPretrained(from, {
      ...{ config, freshHeads: true, dtype: 'float32' },
      ...factory,
    })
  const size = await readSpectraConfig(options.config ?? 'base', data.tokenizer)
  return SpectraForSequenceClassification.fromConfig({ ...size, ...config }, factory)
}

const RESULTS = {
  task: 'string',
  keyMetric: 'string',
  valid: 'object',
  'test?': 'object',
  samples: 'object',
  cut: 'object',
  notes: ['string'],
} as const

/** Format results as text. */
export function spectraReport(results: SpectraResults): string {
  requireForm('spectraReport', 'results', results, RESULTS)
  const { task, keyMetric, bestStep, samples, cut, notes } = results
  const { train, valid: validation, test: tests } = samples
  const lost = `truncated ${cut.audio} clips, ${cut.historyAudio} clips of previous turns and ${cut.text} texts`
  return [
    ...notes,
    `${task}: ${train} training, ${validation} validation and ${tests} test samples; best at step ${bestStep}; ${lost}`,
    metricsTable(results, keyMetric),
  ].join('\n')
}
