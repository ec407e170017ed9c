import { argumentError } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import type { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import { functional } from '../../../nn/index.js'
import { outputLayerOf } from '../../../nn/output-layer.js'
import { isTensor, noGrad, ops, type Tensor, tensor } from '../../../tensor/index.js'
import type { LossOutput } from '../../../train/trainer/loss.js'
import type { EmoVerseBatch } from '../data/collate.js'
import type { EmoVerse } from '../network/network.js'
import type { TaskTally } from './tally.js'

const NUMBERS = ['number'] as const
const BATCH = {
  inputIds: 'object',
  sequenceLengths: NUMBERS,
  tasks: ['string'],
  targets: { places: NUMBERS, ids: NUMBERS, records: NUMBERS },
} as const

/**
 * Compute the mean loss over the label tokens of a batch. Logits are computed only for those; the vision encoder is never part of the graph.
 * `logits` is float64 [records, 3]: the sum of a record's losses, the number of its label tokens, and the number of correct ones.
 * @param tally receives these numbers by task
 * @throws ConfigError naming the argument, for an invalid model or batch
 */
export async function emoverseLoss(model: EmoVerse, batch: EmoVerseBatch, tally?: TaskTally): Promise<LossOutput> {
  const where = 'emoverseLoss'
  requireForm(where, 'model', model, { llm: 'object', embed: 'function' })
  requireForm(where, 'batch', batch, BATCH)
  if (!isTensor(batch.inputIds)) throw argumentError(where, 'batch.inputIds', 'a Tensor', batch.inputIds)
  if (tally !== undefined) requireForm(where, 'tally', tally, { add: 'function' })
  const { inputIds, sequenceLengths, tasks, targets } = batch
  const { llm } = model
  const inputsEmbeds = await model.embed(inputIds, batch)
  const inputs = { ...(inputsEmbeds ? { inputsEmbeds } : { inputIds }), sequenceLengths }
  const labelLogits = await logitsAt(llm, inputs, targets.places)
  const { device } = labelLogits
  const logits = labelLogits.to({ dtype: 'float32' })
  const wanted = tensor(targets.ids, { dtype: 'int64', device })
  const losses = functional.crossEntropy(logits, wanted, { reduction: 'none' })
  const facts = noGrad(() =>
    ops.stack([losses.detach(), logits.detach().argmax(-1).eq(wanted).to({ dtype: 'float32' })]),
  )
  const [lost, right] = (await facts.to({ dtype: 'float64', device: 'cpu' })).toArray() as [number[], number[]]
  const table = tasks.map(() => [0, 0, 0] as [number, number, number])
  for (const [i, record] of targets.records.entries()) {
    const row = table[record] as [number, number, number]
    row[0] += lost[i] as number
    row[1] += 1
    row[2] += right[i] as number
  }
  tally?.add(tasks, table, sequenceLengths)
  return { loss: losses.mean(), logits: noGrad(() => tensor(table, { dtype: 'float64' })) }
}

/** Return the logits [labels, vocabSize] that predict the tokens at `places` of a row. */
async function logitsAt(llm: DecoderLM, inputs: Parameters<DecoderLM['forward']>[0], places: readonly number[]) {
  const weight = headOf(llm)
  // A quantized head computes all logits. Otherwise those of the last token are computed and ignored: logitsToKeep must be at least 1.
  const { lastHiddenState, logits } = await llm.forward({ ...inputs, ...(weight && { logitsToKeep: 1 }) })
  const { device } = lastHiddenState
  const before = tensor(
    places.map((place) => place - 1),
    { dtype: 'int64', device },
  )
  const rows = (weight ? lastHiddenState : (logits as Tensor)).select(0, 0).indexSelect(0, before)
  return weight ? ops.async.linear(rows, weight) : rows
}

/** Return the weight [vocabSize, hiddenSize] of the output layer; undefined if it is quantized. */
function headOf(model: DecoderLM): Tensor | undefined {
  const layer = outputLayerOf(model)
  if (!layer) return undefined
  const { weight } = model.get<{ weight?: Tensor } & never>(layer.tied ? layer.embeddings : layer.head) as {
    weight?: Tensor
  }
  return weight !== undefined && weight.shape[0] === model.config.vocabSize && /float/.test(weight.dtype)
    ? weight
    : undefined
}
