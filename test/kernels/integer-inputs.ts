import { type Tensor, tensor } from '../../lib/index.js'

/**
 * What an input [..., in] is to weights that are multiplied as integers, float64: 32 neighbours become whole steps of their
 * largest magnitude over 127 (in float32, halves away from zero).
 */
export function integerInputs(input: Tensor): Tensor {
  const values = input.float().contiguous()
  const width = values.shape.at(-1) as number
  const flat = values.flatten().toArray() as number[]
  const made = flat.slice()
  for (let row = 0; row < flat.length; row += width) {
    for (let from = row; from < row + width; from += 32) {
      const to = Math.min(from + 32, row + width)
      const step = Math.fround(Math.max(...flat.slice(from, to).map(Math.abs)) / 127)
      const inverse = step === 0 ? 0 : Math.fround(1 / step)
      for (let i = from; i < to; i++) {
        const count = Math.fround((flat[i] as number) * inverse)
        made[i] = Math.sign(count) * Math.floor(Math.fround(Math.abs(count) + 0.5)) * step
      }
    }
  }
  return tensor(made, { dtype: 'float64' }).view(values.shape)
}
