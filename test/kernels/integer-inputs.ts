import { type Tensor, tensor } from '../../lib/index.js'

const largest = (values: number[]) => Math.max(...values.map(Math.abs))
const rounded = (count: number) => Math.sign(count) * Math.floor(Math.fround(Math.abs(count) + 0.5))

/**
 * What an input [..., in] is to weights that are multiplied as integers, float64: numbers become whole steps (in float32, halves
 * away from zero). In few rows, a step is the largest magnitude of 32 neighbors over 127. In many rows, 16 neighbors have as step
 * an integer multiple, 1 to 127 times, of the largest magnitude of 32 over 127².
 */
export function integerInputs(input: Tensor, isMany = false): Tensor {
  const values = input.float().contiguous()
  const width = values.shape.at(-1) as number
  const flat = values.flatten().toArray() as number[]
  const made = flat.slice()
  for (let row = 0; row < flat.length; row += width) {
    for (let block = row; block < row + width; block += 32) {
      const end = Math.min(block + 32, row + width)
      const most = largest(flat.slice(block, end))
      const scale = Math.fround(most / (isMany ? 127 * 127 : 127))
      for (let from = block; from < end; from += isMany ? 16 : 32) {
        const to = isMany ? Math.min(from + 16, end) : end
        const share = isMany ? Math.fround(Math.fround(largest(flat.slice(from, to)) / most) * 127) : 1
        const step = Math.max(1, Math.ceil(share))
        const inverse = scale === 0 ? 0 : Math.fround(1 / Math.fround(scale * step))
        for (let i = from; i < to; i++) made[i] = rounded(Math.fround((flat[i] as number) * inverse)) * step * scale
      }
    }
  }
  return tensor(made, { dtype: 'float64' }).view(values.shape)
}
