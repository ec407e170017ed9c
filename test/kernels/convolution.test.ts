import { describe, expect, it } from 'vitest'
import { autograd, ops, randn, type Tensor } from '../../lib/index.js'
import { difference, ROUNDING } from '../helpers.js'

// oneDNN under AMX gives noise for these shapes (native/core/kernels/convolution_cpu.cc); elsewhere they were always right.
const CASES: [channels: number, out: number, groups: number, kernel: number[], stride: number][] = [
  [16, 16, 2, [8], 1],
  [8, 16, 1, [12], 2],
  [4, 8, 1, [16], 1],
  [6, 4, 1, [16], 1],
  [24, 24, 2, [8], 1],
  [20, 10, 2, [16], 1],
  [2, 3, 1, [32], 1],
  [8, 8, 1, [3, 8], 1],
]

describe.each(['bfloat16', 'float16'] as const)('a convolution of few channels in %s', (dtype) => {
  it.each(CASES)(
    '%i to %i channels in %i groups, kernel %j, stride %i',
    async (channels, out, groups, kernel, stride) => {
      const sizes = kernel.length === 1 ? [48] : [9, 20]
      for (const transposed of [false, true]) {
        // The transposed one goes from `out` to `channels`, with the same weight.
        const half = [
          randn([2, transposed ? out : channels, ...sizes]),
          randn([out, channels / groups, ...kernel]),
        ].map((x) => x.to(dtype))
        const run = async (inputs: Tensor[]) => {
          for (const input of inputs) input.requiresGrad_()
          const same = (value: number) => kernel.map(() => value)
          const [x, w] = inputs as [Tensor, Tensor]
          const y = ops.convolution(x, w, null, same(stride), same(1), same(1), transposed, same(0), groups)
          return [y, ...(await autograd.grad(y.double().square().sum(), inputs))] as Tensor[]
        }
        const exact = await run(half.map((x) => x.double()))
        const found = await run(half)
        expect(found.map((x) => x.dtype)).toEqual([dtype, dtype, dtype])
        // Each is rounded once, the gradients after a result that was, too.
        found.forEach((x, i) => {
          expect(difference(x.double(), exact[i] as Tensor), `${transposed} ${i}`).toBeLessThan(8 * ROUNDING[dtype])
        })
      }
    },
  )
})
