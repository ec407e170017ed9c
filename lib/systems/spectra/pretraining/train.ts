import { defined, misuse, requireFunction, requireObject, requireOptions, requireString } from '../../../base/check.js'
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
  /** Convolution frames of clips of so many samples. */
  frameCounts(samples: readonly number[]): number[]
  readonly config?: { readonly maxTextLength?: number }
}

/** The four losses, whose sum is trained. */
export const SPECTRA_LOSSES = ['mlmLoss', 'mamLoss', 'crsLoss', 'tppLoss'] as const

export type SpectraLosses = { step: number } & Partial<Record<(typeof SPECTRA_LOSSES)[number], number>>

type SpectraTrainerOptions = TrainerOptions<SpectraPretrainingModel, SpectraPretrainingSample, SpectraPretrainingBatch>

export interface PretrainSpectraOptions {
  model: SpectraPretrainingModel
  /** A prepared folder, or what `openSpectraPretraining` gave. */
  data: string | SpectraPretrainingSource
  evalData?: string | SpectraPretrainingSource
  /**
   * Over `SPECTRA_PRETRAINING_ARGUMENTS`. The original runs them in 8 processes, which is 768 examples for each step: with
   * fewer, raise `gradientAccumulationSteps`.
   */
  args: Partial<TrainingArguments> & { outputDir: string }
  /** Turns of the text at most. Default 8. */
  numTurns?: number
  /** Tokens at most. Default: the network's `maxTextLength`, else 512. */
  maxLength?: number
  /** Audio is padded to this length; see `spectraPretrainingCollate`. */
  padToSamples?: number
  /** Give the network's vocabulary where it is not RoBERTa's. */
  mlm?: MaskTokensOptions
  mam?: MaskFramesOptions
  /** Called at each log with the mean of each loss since the last one. What was before a resume is not in it. */
  onLosses?: (losses: SpectraLosses) => void
  callbacks?: SpectraTrainerOptions['callbacks']
  loggers?: SpectraTrainerOptions['loggers']
}

/** The published recipe of pre-training. */
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
 * Pre-trains SPECTRA on prepared dialogs with the `Trainer`: killed and started again, it goes on where it was.
 * @throws ConfigError, DataError for options and data; what the Trainer throws
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
  if (!(model instanceof Module)) throw misuse(where, 'model', 'a SpectraForPreTraining', model)
  const maxLength = options.maxLength ?? model.config?.maxTextLength
  requireFunction(where, 'model.frameCounts', model.frameCounts)
  requireObject(where, 'args', args)
  requireString(where, 'args.outputDir', args.outputDir)
  if (onLosses !== undefined) requireFunction(where, 'onLosses', onLosses)
  const frames = (samples: number) => model.frameCounts([samples])[0] as number
  const whole = { ...SPECTRA_PRETRAINING_ARGUMENTS, ...args }
  const dataset = async (data: string | SpectraPretrainingSource) => {
    const source = typeof data === 'string' ? await openSpectraPretraining(data) : data
    return new SpectraPretrainingDataset(source, {
      frames,
      seed: whole.dataSeed ?? whole.seed ?? 0,
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
        throw new ConfigError(`${network.constructor.name}.forward() gave no loss: give a SpectraForPreTraining`, {
          argument: 'model',
        })
      }
      if (network.training) losses?.add(output)
      return { loss: output.loss }
    },
    countItems: (batch) => batch.mlmLabels.shape[0] as number,
    args: whole,
    callbacks: [...(losses ? [losses] : []), ...(options.callbacks ?? [])],
    ...(options.loggers && { loggers: options.loggers }),
  })
  try {
    return await trainer.train()
  } finally {
    trainer.dispose()
  }
}

/** Means of the losses between two logs. They are added up where they are, and read when they are told. */
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
