import { misuse } from '../../../base/check.js'
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

/** What a batch came to, a row for each record: see {@link emoverseLoss}. */
export const LOSS_COLUMNS = ['loss', 'tokens', 'right'] as const

/**
 * The mean loss over the tokens of a batch that are learnt. Logits are computed for those alone; the vision part is never in the
 * graph. `logits` is float64 [records, 3]: of each record the sum of its losses, how many tokens it has to learn, and how many of
 * them are right.
 * @param tally hears of each record, by its task
 * @throws ConfigError naming the argument, for a model or a batch that is none
 */
export async function emoverseLoss(model: EmoVerse, batch: EmoVerseBatch, tally?: TaskTally): Promise<LossOutput> {
  const where = 'emoverseLoss'
  requireForm(where, 'model', model, { llm: 'object', embed: 'function' })
  requireForm(where, 'batch', batch, BATCH)
  if (!isTensor(batch.inputIds)) throw misuse(where, 'batch.inputIds', 'a Tensor', batch.inputIds)
  if (tally !== undefined) requireForm(where, 'tally', tally, { add: 'function' })
  const { inputIds, sequenceLengths, tasks, targets } = batch
  const { llm } = model
  const inputsEmbeds = await model.embed(inputIds, batch)
  const inputs = { ...(inputsEmbeds ? { inputsEmbeds } : { inputIds }), sequenceLengths }
  const learnt = await learntLogits(llm, inputs, targets.places)
  const { device } = learnt
  const logits = learnt.to({ dtype: 'float32' })
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

/** Logits [learnt, vocabSize] of the tokens at some places of a row, by those before them. */
async function learntLogits(llm: DecoderLM, inputs: Parameters<DecoderLM['forward']>[0], places: readonly number[]) {
  const weight = headOf(llm)
  // A packed head gives the logits of all. Else those of the last token, which nobody looks at: none cannot be asked for.
  const { lastHiddenState, logits } = await llm.forward({ ...inputs, ...(weight && { logitsToKeep: 1 }) })
  const { device } = lastHiddenState
  const before = tensor(
    places.map((place) => place - 1),
    { dtype: 'int64', device },
  )
  const rows = (weight ? lastHiddenState : (logits as Tensor)).select(0, 0).indexSelect(0, before)
  return weight ? ops.async.linear(rows, weight) : rows
}

/** The weight [vocabSize, hiddenSize] of the output layer; undefined where it is packed, or is no plain matrix. */
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
