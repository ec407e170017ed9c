import { type Tensor, tensor } from '../../lib/index.js'
import { get } from './decoder.js'

/** Inputs of a fixture. */
export interface Given {
  inputIds: Tensor
  attentionMask: Tensor
  labels: Tensor
  inputFeatures: Tensor
  featuresMask: Tensor
}

/** The samples of a clip in a fixture. */
export const samplesOf = (count: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => (((i * i * 37 + i * 11) % 2001) - 1000) / 4096)

/** Move the padding of rows to the left. */
export function paddedLeft({ inputIds, attentionMask }: Pick<Given, 'inputIds' | 'attentionMask'>) {
  const masks = attentionMask.toArray() as bigint[][]
  const moved = (list: bigint[], i: number) => {
    const real = get(masks[i]).filter((one) => Number(one) === 1).length
    return [...list.slice(real), ...list.slice(0, real)]
  }
  const all = (rows: bigint[][]) => tensor(rows.map(moved), { dtype: 'int64' })
  return { inputIds: all(inputIds.toArray() as bigint[][]), attentionMask: all(masks) }
}
