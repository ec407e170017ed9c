import {
  argumentError,
  defined,
  requireFunction,
  requireObject,
  requireOptions,
  requireString,
  shown,
} from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { Module } from '../../../nn/index.js'
import { noGrad, scope, stack, Tensor, zeros } from '../../../tensor/index.js'
import { keepForever } from '../../../tensor/scope.js'
import { Trainer, type TrainerOptions, type TrainingArguments, type TrainOutput } from '../../../train/index.js'
import { type SpectraPretrainingBatch, spectraPretrainingCollate } from './collate.js'
import { SpectraPretrainingDataset, type SpectraPretrainingSample } from './dataset.js'
import type { MaskFramesOptions, MaskTokensOptions } from './masking.js'
import { openSpectraPretraining, type SpectraPretrainingSource } from './open.js'

/** A network with SPECTRA's four pre-training losses: `SpectraForPreTraining`. */
export interface SpectraPretrainingModel extends Module {
  /** Return the convolution frames of clips of these lengths. */
  frameCounts(samples: readonly number[]): number[]
  readonly config?: { readonly maxTextLength?: number }
}

/** The four losses, whose sum is minimized. */
export const SPECTRA_LOSSES = ['mlmLoss', 'mamLoss', 'crsLoss', 'tppLoss'] as const

export type SpectraLosses = { step: number } & Partial<Record<(typeof SPECTRA_LOSSES)[number], number>>

type SpectraTrainerOptions = TrainerOptions<SpectraPretrainingModel, SpectraPretrainingSample, SpectraPretrainingBatch>

export interface PretrainSpectraOptions {
  model: SpectraPretrainingModel
  /** A prepared folder, or a result of `openSpectraPretraining`. */
  data: string | SpectraPretrainingSource
  evalData?: string | SpectraPretrainingSource
  /**
   * Changes to `SPECTRA_PRETRAINING_ARGUMENTS`. The original uses 8 processes, so 768 examples per step: with fewer processes, raise
   * `gradientAccumulationSteps`.
   */
  args: Partial<TrainingArguments> & { outputDir: string }
  /** Maximum number of turns in the text. Default 8. */
  numTurns?: number
  /** Maximum number of tokens. Default: the network's `maxTextLength`, else 512. */
  maxLength?: number
  /** Audio is padded to this length; see `spectraPretrainingCollate`. */
  padToSamples?: number
  /** Set the network's vocabulary if it is not RoBERTa's. */
  mlm?: MaskTokensOptions
  mam?: MaskFramesOptions
  /** Called at each log with the mean of each loss since the last log. Steps before a resume are not included. */
  onLosses?: (losses: SpectraLosses) => void
  callbacks?: SpectraTrainerOptions['callbacks']
  loggers?: SpectraTrainerOptions['loggers']
}

/** Published hyperparameters of pre-training. */
export const SPECTRA_PRETRAINING_ARGUMENTS = {
  perDeviceTrainBatchSize: 24,
  gradientAccumulationSteps: 4,
  numTrainEpochs: 5,
  learningRate: 1e-4,
  weightDecay: 0.01,
  warmupRatio: 0.01,
  maxGradNorm: 1,
  saveStrategy: 'epoch',
} as const satisfies Partial<TrainingArguments>

/**
 * Pre-train SPECTRA on prepared dialogs with the `Trainer`. An interrupted run resumes.
 * @throws ConfigError, DataError for options and data; errors of the Trainer
 */
export async function pretrainSpectra(options: PretrainSpectraOptions): Promise<TrainOutput> {
  const where = 'pretrainSpectra'
  requireOptions(where, options, [
    'model',
    'data',
    'evalData',
    'args',
    'numTurns',
    'maxLength',
    'padToSamples',
    'mlm',
    'mam',
    'onLosses',
    'callbacks',
    'loggers',
  ])
  const { model, args, numTurns, mlm, mam, padToSamples, onLosses } = options
  if (!(model instanceof Module)) throw argumentError(where, 'model', 'a SpectraForPreTraining', model)
  const maxLength = options.maxLength ?? model.config?.maxTextLength
  requireFunction(where, 'model.frameCounts', model.frameCounts)
  requireObject(where, 'args', args)
  requireString(where, 'args.outputDir', args.outputDir)
  if (onLosses !== undefined) requireFunction(where, 'onLosses', onLosses)
  const frames = (samples: number) => model.frameCounts([samples])[0] as number
  const trainingArgs = { ...SPECTRA_PRETRAINING_ARGUMENTS, ...args }
  const dataset = async (data: string | SpectraPretrainingSource) => {
    const source = typeof data === 'string' ? await openSpectraPretraining(data) : data
    return new SpectraPretrainingDataset(source, {
      frames,
      seed: trainingArgs.dataSeed ?? trainingArgs.seed ?? 0,
      ...defined({ numTurns }),
      ...(mlm && { mlm }),
      ...(mam && { mam }),
    })
  }
  const losses = onLosses && new LossParts(onLosses)
  const trainer = new Trainer<SpectraPretrainingModel, SpectraPretrainingSample, SpectraPretrainingBatch>({
    model,
    trainDataset: await dataset(options.data),
    ...(options.evalData !== undefined && { evalDataset: await dataset(options.evalData) }),
    collate: spectraPretrainingCollate({
      frames,
      ...defined({ maxLength, padToSamples }),
    }),
    computeLoss: async (network, batch) => {
      const forward = network.forward as unknown as (batch: SpectraPretrainingBatch) => unknown
      const output = (await forward.call(network, batch)) as Record<string, unknown> | null
      if (!(output?.loss instanceof Tensor)) {
        throw new ConfigError(
          `pretrainSpectra: expected a loss from ${network.constructor.name}.forward(), got ${shown(output?.loss)}. Use a SpectraForPreTraining.`,
          { argument: 'model' },
        )
      }
      if (network.training) losses?.add(output)
      return { loss: output.loss }
    },
    countItems: (batch) => batch.mlmLabels.shape[0] as number,
    args: trainingArgs,
    callbacks: [...(losses ? [losses] : []), ...(options.callbacks ?? [])],
    ...(options.loggers && { loggers: options.loggers }),
  })
  try {
    return await trainer.train()
  } finally {
    trainer.dispose()
  }
}

/** Means of the losses between two logs. They are summed on the device, and read at each log. */
class LossParts {
  #sums: Tensor | null = null
  readonly #found = new Set<string>()
  #count = 0

  constructor(readonly tell: (losses: SpectraLosses) => void) {}

  add(output: Record<string, unknown>): void {
    this.#count++
    noGrad(() =>
      scope(() => {
        const { device } = output.loss as Tensor
        const losses = SPECTRA_LOSSES.map((name) => {
          const value = output[name]
          if (!(value instanceof Tensor)) return zeros([], { dtype: 'float64', device })
          this.#found.add(name)
          return value.detach().reshape([]).to({ dtype: 'float64' })
        })
        if (this.#sums) this.#sums.add_(stack(losses))
        else this.#sums = keepForever(stack(losses))
      }),
    )
  }

  onLog = async ({ logs }: { logs: { step: number; [name: string]: number } }): Promise<void> => {
    const sums = this.#sums
    if (sums === null || logs.loss === undefined) return
    const count = this.#count
    this.#sums = null
    this.#count = 0
    const read = Array.from(await sums.data(), Number)
    sums.dispose()
    const means = SPECTRA_LOSSES.flatMap((name, i) =>
      this.#found.has(name) ? [[name, (read[i] as number) / count]] : [],
    )
    this.#found.clear()
    this.tell({ step: logs.step, ...Object.fromEntries(means) })
  }
}
