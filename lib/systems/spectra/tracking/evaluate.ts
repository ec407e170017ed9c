import { argumentError, requireWhole } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { batchesOf, evaluate } from '../../../kit/evaluate.js'
import { noGrad, scope, stack, type Tensor } from '../../../tensor/index.js'
import { type DstBatch, type DstCollateOptions, dstCollate } from './collate.js'
import type { DstDataset, DstSample } from './dataset.js'
import { type SlotValues, slotValues } from './dialog.js'
import type { DstFeatures } from './features.js'
import type { DstLogits } from './heads.js'
import type { SpectraForDst } from './network.js'
import { type DstDecodeOptions, type DstPrediction, nextDstState } from './state.js'

/** A turn, its prediction, and the state after it. */
export interface DstResult {
  features: DstFeatures
  prediction: DstPrediction
  state: SlotValues
}

/** Return the argmax of each slot's logits, int64 [batch, slots, 4]: class, start, end, reference. */
export const dstChoices = ({ classLogits, startLogits, endLogits, referLogits }: DstLogits): Tensor =>
  scope(() =>
    stack(
      [classLogits, startLogits, endLogits, referLogits].map((logits) => logits.argmax(-1)),
      -1,
    ),
  )

/** Convert the rows of {@link dstChoices} to predictions. */
export const dstPredictions = (choices: Tensor): DstPrediction[] =>
  (choices.toArray() as number[][][]).map((slots) => ({
    classIds: slots.map((slot) => slot[0]!),
    startPositions: slots.map((slot) => slot[1]!),
    endPositions: slots.map((slot) => slot[2]!),
    referIds: slots.map((slot) => slot[3]!),
  }))

/**
 * Return the states after each turn of dialogs. Dialogs may be interleaved, with the turns of each in order. The state is empty before
 * turn 0.
 */
export function decodeDst(
  features: readonly DstFeatures[],
  predictions: readonly DstPrediction[],
  options: DstDecodeOptions,
): DstResult[] {
  requireForm('decodeDst', 'features', features, [{ dialog: 'string', turn: 'number' }])
  requireForm('decodeDst', 'predictions', predictions, ['object'])
  if (predictions.length !== features.length) {
    throw argumentError('decodeDst', 'predictions', `${features.length} predictions, one per turn`, predictions)
  }
  const states = new Map<string, SlotValues>()
  return features.map((turn, i) => {
    const before = (turn.turn > 0 && states.get(turn.dialog)) || slotValues()
    const prediction = predictions[i]!
    const state = nextDstState(before, prediction, turn, options)
    states.set(turn.dialog, state)
    return { features: turn, prediction, state }
  })
}

export interface TrackDstOptions extends DstDecodeOptions, DstCollateOptions {
  /** Turns per batch, of any dialogs. Default 24. */
  batchSize?: number
  onBatch?: (turnsDone: number) => void
}

/** Track whole dialogs. The network processes turns independently, so turns of several dialogs share a batch. */
export async function trackDst(
  model: SpectraForDst,
  dataset: DstDataset,
  options: TrackDstOptions,
): Promise<DstResult[]> {
  requireForm('trackDst', 'model', model, { modules: 'function', forward: 'function' })
  requireForm('trackDst', 'dataset', dataset, { length: 'number', get: 'function' })
  requireForm('trackDst', 'options', options, { config: 'object', tokenizer: 'object', 'onBatch?': 'function' })
  const { batchSize = 24, onBatch, padId, textLength, ...decoding } = options
  requireWhole('trackDst', 'batchSize', batchSize, 1)
  const collate = dstCollate({ padId, textLength })
  const features: DstFeatures[] = []
  const { predictions } = await evaluate(model, batchesOf(dataset, batchSize), {
    predict(samples: readonly DstSample[]) {
      features.push(...samples.map((sample) => sample.features))
      return predictDst(model, () => collate(samples))
    },
    onBatch,
  })
  return decodeDst(features, predictions, decoding)
}

/** Predict the turns of one batch. The network should be in evaluation mode. */
export const predictDst = (model: SpectraForDst, makeBatch: () => DstBatch): Promise<DstPrediction[]> =>
  noGrad(() =>
    scope(async () => {
      const device = model.parameters()[0]?.device ?? 'cpu'
      const { classIds: _c, startPositions: _s, endPositions: _e, referIds: _r, ...inputs } = makeBatch()
      const { audiosPerText, ...tensors } = inputs
      const moved = Object.fromEntries(
        Object.entries(tensors).map(([name, value]) => [name, value.device === device ? value : value.to({ device })]),
      ) as typeof tensors
      return dstPredictions(dstChoices(await model.forward({ ...moved, audiosPerText })))
    }),
  )
