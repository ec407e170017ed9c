import { randint, randn, type Tensor } from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { type BlockScheme, blockFacts } from '../../lib/nn/quantized-weight.js'

// Weights in GGUF's blocks, and products with them.

export const encode = op('voxtorch::gguf_quantize') as (values: Tensor, code: number) => Tensor
export const decode = op('voxtorch::gguf_dequantize') as (blocks: Tensor, code: number, size: number[]) => Tensor
export const linear = op('voxtorch::quantized_linear') as (...args: unknown[]) => Tensor

/** Where the float16 scales of a block stand. */
const HALVES: Record<string, number[]> = { q4_1: [0, 2], q4_k: [0, 2], q6_k: [208] }

export interface Packed {
  scheme: BlockScheme
  shape: [number, number]
  codes: Tensor
  values: Tensor
}

export function packed(scheme: BlockScheme, to: number, from: number): Packed {
  const { code, block, bytes } = blockFacts(scheme)
  const row = (from / block) * bytes
  let codes: Tensor
  const halves = HALVES[scheme]
  if (halves === undefined) {
    codes = encode(randn([to, from]), code).view([to, row])
  } else {
    // Any codes, with scales of usual size.
    codes = randint(0, 256, [to * (from / block), bytes], { dtype: 'uint8' })
    const scales = randn([to * (from / block), halves.length])
      .mul(0.01)
      .to('float16')
      .view('uint8')
    halves.forEach((at, i) => {
      codes.narrow(1, at, 2).copy_(scales.narrow(1, 2 * i, 2))
    })
    codes = codes.view([to, row])
  }
  return { scheme, shape: [to, from], codes, values: decode(codes.flatten(), code, [to, from]) }
}

export const product = (input: Tensor, { codes, shape, scheme }: Packed, bias: Tensor | null = null) =>
  linear(input, codes, null, shape, bias, { scheme })
