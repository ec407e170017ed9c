import { argumentError, requireFunction, requireString, shown } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { type ChangesOf, functionOf, objectOf, settings, unchecked } from '../../../base/settings.js'
import { TRAINER_OPTIONS } from '../../../kit/training-settings.js'
import { Module } from '../../../nn/index.js'
import { noGrad, scope, stack, Tensor, zeros } from '../../../tensor/index.js'
import { keepForever } from '../../../tensor/scope.js'
import { Trainer, type TrainingArguments, type TrainOutput } from '../../../train/index.js'
import { type SpectraPretrainingBatch, spectraPretrainingCollate } from './collate.js'
import { SpectraPretrainingDataset, type SpectraPretrainingSample } from './dataset.js'
import type { MaskFramesOptions, MaskTokensOptions } from './masking.js'
import { openSpectraPretraining, type SpectraPretrainingSource } from './open.js'
import { SPECTRA_PRETRAINING_ARGUMENTS } from './recipe.js'

/** A network with SPECTRA's four pre-training losses: `SpectraForPreTraining`. */
export interface SpectraPretrainingModel extends Module {
  /** Return the convolution frames of clips of these lengths. */
  frameCounts(samples: readonly number[]): number[]
  readonly config?: { readonly maxTextLength?: number }
}

/** The four losses, whose sum is minimized. */
export const SPECTRA_LOSSES = ['mlmLoss', 'mamLoss', 'crsLoss', 'tppLoss'] as const

export type SpectraLosses = { step: number } & Partial<Record<(typeof SPECTRA_LOSSES)[number], number>>

const PRETRAIN_SETTINGS = settings({
  model: { type: unchecked<SpectraPretrainingModel>(), required: true },
  /** A prepared folder, or a result of `openSpectraPretraining`. */
  data: { type: unchecked<string | SpectraPretrainingSource>(), required: true },
  evalData: { type: unchecked<string | SpectraPretrainingSource>() },
  ...TRAINER_OPTIONS,
  /**
   * Changes to `SPECTRA_PRETRAINING_ARGUMENTS`. The original uses 8 processes, so 768 examples per step: with fewer processes, raise
   * `gradientAccumulationSteps`.
   */
  args: { type: objectOf<Partial<TrainingArguments> & { outputDir: string }>(), required: true },
  /** Maximum number of turns in the text. Default 8. */
  numTurns: { type: 'integer', min: 2 },
  /** Maximum number of tokens. Default: the network's `maxTextLength`, else 512. */
  maxLength: { type: 'integer', min: 2 },
  /** Audio is padded to this length; see `spectraPretrainingCollate`. */
  padToSamples: { type: 'integer', min: 1 },
  /** Set the network's vocabulary if it is not RoBERTa's. */
  mlm: { type: unchecked<MaskTokensOptions>() },
  mam: { type: unchecked<MaskFramesOptions>() },
  /** Called at each log with the mean of each loss since the last log. Steps before a resume are not included. */
  onLosses: { type: functionOf<(losses: SpectraLosses) => void>() },
})

/** @interface */
export type PretrainSpectraOptions = ChangesOf<typeof PRETRAIN_SETTINGS.table>

/**
 * Pre-train SPECTRA on prepared dialogs with the `Trainer`. An interrupted run resumes.
 * @throws ConfigError, DataError for options and data; errors of the Trainer
 */
export async function pretrainSpectra(options: PretrainSpectraOptions): Promise<TrainOutput> {
  const where = 'pretrainSpectra'
  const read = PRETRAIN_SETTINGS.read(where, options)
  const { model, data, evalData, args, numTurns, mlm, mam, padToSamples, onLosses, callbacks, loggers } = read
  if (!(model instanceof Module)) throw argumentError(where, 'model', 'a SpectraForPreTraining', model)
  const { maxLength = model.config?.maxTextLength } = read
  requireFunction(where, 'model.frameCounts', model.frameCounts)
  requireString(where, 'args.outputDir', args.outputDir)
  const frames = (samples: number) => model.frameCounts([samples])[0] as number
  const trainingArgs = { ...SPECTRA_PRETRAINING_ARGUMENTS, ...args }
  const dataset = async (data: string | SpectraPretrainingSource) => {
    const source = typeof data === 'string' ? await openSpectraPretraining(data) : data
    const seed = trainingArgs.dataSeed ?? trainingArgs.seed ?? 0
    return new SpectraPretrainingDataset(source, { frames, seed, numTurns, mlm, mam })
  }
  const losses = onLosses && new LossParts(onLosses)
  const trainer = new Trainer<SpectraPretrainingModel, SpectraPretrainingSample, SpectraPretrainingBatch>({
    model,
    trainDataset: await dataset(data),
    ...(evalData !== undefined && { evalDataset: await dataset(evalData) }),
    collate: spectraPretrainingCollate({ frames, maxLength, padToSamples }),
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
    callbacks: [...(losses ? [losses] : []), ...callbacks],
    loggers,
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
