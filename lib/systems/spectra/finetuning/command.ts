import type { RobertaConfig } from '../../../models/roberta.js'
import type { WavLMConfig } from '../../../models/wavlm.js'
import { ConfigError } from '../../../native/errors.js'
import type { SpectraArguments } from './arguments.js'
import type { OpenSpectraDataOptions } from './data.js'
import type { FinetuneSpectraOptions, SpectraResults } from './finetune.js'
import type { SpectraLayout } from './published-layouts.js'
import { isPublishedTask, ownTask, publishedTask, type SpectraTask } from './tasks.js'

/** The task that a command line names. @throws ConfigError where it is none of the four and its kind is not said */
export function taskOfArguments({ task, kind, labels }: SpectraArguments): SpectraTask {
  if (task === undefined)
    throw new ConfigError('Say what to learn: --task mosi, mosei, iemocap, mintrec or a name', { argument: 'task' })
  if (isPublishedTask(task)) return publishedTask(task)
  const known = kind ?? (labels === undefined ? undefined : 'classification')
  if (known === undefined) return publishedTask(task) // which names the nearest
  return ownTask({ name: task, kind: known, ...(labels && { labels }) })
}

/** What `openSpectraData` is given by a command line: its path and its options. */
export function dataOfArguments(options: SpectraArguments): [path: string, options: OpenSpectraDataOptions] {
  const {
    data,
    tokenizer = options.model,
    layout,
    onBadRecord,
    testSpeakers,
    validSpeakers,
    seed,
    maxAudioLength,
  } = options
  if (data === undefined) throw new ConfigError('Say where the data is: --data DIR or FILE.jsonl', { argument: 'data' })
  return [
    data,
    {
      task: taskOfArguments(options),
      ...(tokenizer !== undefined && { tokenizer }),
      ...(layout !== undefined && { layout: layout as SpectraLayout }),
      ...(onBadRecord !== undefined && { onBadRecord }),
      ...(seed !== undefined && { seed }),
      ...(maxAudioLength !== undefined && { maxAudioLength }),
      speakers: { ...(testSpeakers && { test: testSpeakers }), ...(validSpeakers && { valid: validSpeakers }) },
    },
  ]
}

/** What `finetuneSpectra` is given by a command line, beside model and data. */
export function finetuneOfArguments(
  options: SpectraArguments,
): Pick<
  FinetuneSpectraOptions<never>,
  'outputDir' | 'preset' | 'compat' | 'args' | 'maxAudioLength' | 'maxTextLength'
> {
  const { output, compat, maxAudioLength, maxTextLength, fp16, bf16, gradientCheckpointing, progress, device } = options
  const { epochs, batchSize, accumulation, learningRate, warmup, weightDecay, maxGradNorm, patience, seed } = options
  const { historyAudio, turnIds } = options
  const preset = { epochs, batchSize, accumulation, learningRate, warmup, weightDecay, maxGradNorm, patience, seed }
  return {
    outputDir: output ?? `spectra-${options.task}`,
    preset: defined({ ...preset, historyAudio, turnIds }),
    ...(compat && { compat }),
    ...(maxAudioLength !== undefined && { maxAudioLength }),
    ...(maxTextLength !== undefined && { maxTextLength }),
    args: defined({
      // As the original: mixed precision is for CUDA.
      fp16: fp16 && device?.startsWith('cuda') ? true : undefined,
      bf16,
      gradientCheckpointing,
      progress,
    }),
  }
}

/** Results as text. */
export function spectraReport({ task, keyMetric, bestStep, valid, test, samples, cut, notes }: SpectraResults): string {
  const names = Object.keys(valid)
  const width = Math.max(...names.map((name) => name.length))
  const cell = (value: number | undefined) => (value === undefined ? '' : value.toFixed(4)).padStart(9)
  const rows = names.map(
    (name) =>
      `  ${name.padEnd(width)} ${cell(valid[name])} ${cell(test?.[name])}${name === keyMetric ? '  (best by this)' : ''}`,
  )
  const { train, valid: validation, test: tests } = samples
  const lost = `${cut.audio} clips, ${cut.historyAudio} clips of turns before and ${cut.text} texts were cut`
  return [
    ...notes,
    `${task}: ${train} samples to learn from, ${validation} to choose by, ${tests} to test on; best at step ${bestStep}; ${lost}`,
    `  ${''.padEnd(width)} ${'valid'.padStart(9)} ${'test'.padStart(9)}`,
    ...rows,
  ].join('\n')
}

const defined = <T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never

const TINY = { hiddenSize: 64, numHiddenLayers: 2, numAttentionHeads: 4, intermediateSize: 128 }
const ROBERTA = { vocabSize: 50265, maxPositionEmbeddings: 514, typeVocabSize: 2, layerNormEps: 1e-5, padTokenId: 1 }

/** Configurations of networks that are made from scratch: the published size, and one that a laptop trains. */
export const SPECTRA_SIZES: Readonly<Record<string, { textConfig: RobertaConfig; audioConfig: WavLMConfig }>> = {
  base: { textConfig: ROBERTA, audioConfig: { activationDropout: 0, featProjDropout: 0.1, layerdrop: 0.05 } },
  tiny: {
    textConfig: { ...ROBERTA, ...TINY },
    audioConfig: {
      ...TINY,
      convDim: Array<number>(7).fill(32),
      numConvPosEmbeddings: 16,
      numConvPosEmbeddingGroups: 2,
    },
  },
}

/** @throws ConfigError for a size that there is not */
export function spectraSize(name = 'base'): { textConfig: RobertaConfig; audioConfig: WavLMConfig } {
  const found = Object.hasOwn(SPECTRA_SIZES, name) ? SPECTRA_SIZES[name] : undefined
  if (found !== undefined) return found
  throw new ConfigError(`There is no SPECTRA of the size ${JSON.stringify(name)}: say tiny or base`, {
    argument: 'config',
  })
}
