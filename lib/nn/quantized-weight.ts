import { op } from '../native/call.js'
import type { DType, Tensor } from '../tensor/index.js'
import type { Module } from './module.js'

export type QuantizationScheme = 'nf4' | 'int8'

/** What a packed Linear's tensors mean. */
export interface QuantizedWeight {
  scheme: QuantizationScheme
  /** The layer's own weight. */
  codes: Tensor
  absmax: Tensor
  /** [out, in] */
  shape: [number, number]
  /** Of the weight before. */
  dtype: DType
  /** Of 'nf4'. */
  blockSize: number
}

const packed = new WeakMap<Module, QuantizedWeight>()

/** How a layer's weight is packed; undefined for all others. */
export const quantizationOf = (layer: Module): QuantizedWeight | undefined => packed.get(layer)

export function setQuantization(layer: Module, weight: QuantizedWeight | undefined): void {
  if (weight) packed.set(layer, weight)
  else packed.delete(layer)
}

const linear = op('voxtorch::quantized_linear')

/** [..., in] → [..., out] */
export function quantizedLinear(input: Tensor, weight: QuantizedWeight, bias: Tensor | null): Tensor {
  const { codes, absmax, shape, scheme, blockSize } = weight
  return linear(input, codes, absmax, shape, bias, { scheme, blockSize }) as Tensor
}
