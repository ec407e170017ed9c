import { packSequences } from '../../../data/pack.js'
import { type Tensor, tensor } from '../../../tensor/index.js'
import { IGNORED, type UsdmExample } from './prompt.js'

/** Inputs of `DecoderLM.forward`: packed rows with the lengths of their sequences, or padded rows with a mask. */
export interface UsdmBatch {
  /** int64 [1, total], or padded [batch, longest]. */
  inputIds: Tensor
  labels: Tensor
  sequenceLengths?: number[]
  attentionMask?: Tensor
}

/** Pack the examples of a batch into one row, without padding. Examples do not attend to each other. */
export function packedExamples(examples: readonly UsdmExample[]): UsdmBatch {
  const { inputIds, labels, sequenceLengths } = packSequences(['inputIds', 'labels'])(examples)
  return { inputIds, labels, sequenceLengths }
}

/** Return the examples of a batch as rows, padded on the right as in the original. */
export function paddedExamples(examples: readonly UsdmExample[], pad: number): UsdmBatch {
  const longest = Math.max(...examples.map(({ inputIds }) => inputIds.length))
  const rows = (pick: (example: UsdmExample) => number[], filler: number) =>
    tensor(
      examples.map((example) => {
        const row = pick(example)
        return [...row, ...new Array<number>(longest - row.length).fill(filler)]
      }),
      { dtype: 'int64' },
    )
  return {
    inputIds: rows(({ inputIds }) => inputIds, pad),
    labels: rows(({ labels }) => labels, IGNORED),
    attentionMask: rows(({ inputIds }) => inputIds.map(() => 1), 0),
  }
}
