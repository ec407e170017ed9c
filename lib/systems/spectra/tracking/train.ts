import { requireForm } from '../../../base/form.js'
import { scope } from '../../../tensor/index.js'
import { Trainer, type TrainerOptions, type TrainingArguments } from '../../../train/index.js'
import { type DstBatch, dstCollate } from './collate.js'
import type { DstDataset, DstSample } from './dataset.js'
import { decodeDst, dstChoices, dstPredictions } from './evaluate.js'
import type { DstFeatures } from './features.js'
import { dstSpecialIds } from './features.js'
import { dstScores } from './metrics.js'
import type { SpectraForDst } from './network.js'
import { DST_TRAINING } from './recipe.js'
import type { DstDecodeOptions } from './state.js'

export interface DstTrainerOptions
  extends DstDecodeOptions,
    Pick<TrainerOptions<SpectraForDst, DstSample, DstBatch>, 'callbacks' | 'loggers' | 'optimizers'> {
  model: SpectraForDst
  trainDataset?: DstDataset
  /** Whole dialogs with their turns in order, and their features. */
  evalDataset?: { dataset: DstDataset; features: readonly DstFeatures[] }
  /** Changes to {@link DST_TRAINING}. */
  args: TrainingArguments
  /** Pad texts to this length. The original pads to 512. */
  textLength?: number
}

/**
 * Return a Trainer of state tracking with the published settings. The loss of a step is the mean over its batches of the sum over turns and
 * slots. Evaluation tracks the dialogs, and returns `evalJointGoalAccuracy`, `evalJointGoalAccuracyWithoutProfile` and
 * `evalSlotAccuracy`.
 */
export function dstTrainer(options: DstTrainerOptions): Trainer<SpectraForDst, DstSample, DstBatch> {
  requireForm('dstTrainer', 'options', options, { tokenizer: 'object', config: 'object' })
  const { model, config, tokenizer, compat, trainDataset, evalDataset, args, textLength } = options
  const padId = dstSpecialIds(tokenizer).pad
  const { callbacks, loggers, optimizers } = options
  return new Trainer<SpectraForDst, DstSample, DstBatch>({
    model,
    ...(trainDataset && { trainDataset }),
    ...(evalDataset && { evalDataset: evalDataset.dataset }),
    collate: dstCollate({ padId, textLength }),
    // The loss of a batch is a sum, so all batches have equal weight.
    countItems: () => 1,
    async computeLoss(network, batch) {
      const output = await network.forward(batch)
      return { loss: output.loss!, ...(!network.training && { logits: dstChoices(output) }) }
    },
    computeMetrics({ predictions }) {
      const turns = evalDataset?.features ?? []
      const results = decodeDst(
        turns,
        scope(() => dstPredictions(predictions)),
        { config, tokenizer, compat },
      )
      const { jointGoalAccuracy, jointGoalAccuracyWithoutProfile, slotAccuracy } = dstScores(results, config)
      return { jointGoalAccuracy, jointGoalAccuracyWithoutProfile, slotAccuracy }
    },
    ...(callbacks && { callbacks }),
    ...(loggers && { loggers }),
    ...(optimizers && { optimizers }),
    args: { ...DST_TRAINING, ...args },
  })
}
