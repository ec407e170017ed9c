import { op } from '../native/call.js'
import type { DType, Tensor } from '../tensor/index.js'
import type { Module } from './module.js'

export type QuantizationScheme = 'nf4' | 'int8'

/** What a packed Linear's tensors mean. */
export interface QuantizedWeight {
  scheme: QuantizationScheme
  /** The layer's own weight. */
  codes: Tensor
  /** float32; uint8 where `nested` says what its codes stand for. */
  absmax: Tensor
  /** Of 'nf4' with double quantisation. */
  nested?: NestedScales | undefined
  /** [out, in] */
  shape: [number, number]
  /** Of the weight before. */
  dtype: DType
  /** Of 'nf4'. */
  blockSize: number
}

/** The scales of scales: code · absmax of its block of 256 + offset. */
export interface NestedScales {
  /** float32 [⌈blocks / 256⌉] */
  absmax: Tensor
  /** float32 [1] */
  offset: Tensor
}

const packed = new WeakMap<Module, QuantizedWeight>()

/** How a layer's weight is packed; undefined for all others. */
export const quantizationOf = (layer: Module): QuantizedWeight | undefined => packed.get(layer)

export function setQuantization(layer: Module, weight: QuantizedWeight | undefined): void {
  if (weight) packed.set(layer, weight)
  else packed.delete(layer)
}

/** What the operators that take a packed weight want as options. */
export const packingArguments = ({ scheme, blockSize, nested }: QuantizedWeight) => ({
  scheme,
  blockSize,
  nestedAbsmax: nested?.absmax,
  nestedOffset: nested?.offset,
})

const linear = op('voxtorch::quantized_linear')

/** [..., in] → [..., out] */
export function quantizedLinear(input: Tensor, weight: QuantizedWeight, bias: Tensor | null): Tensor {
  const { codes, absmax, shape } = weight
  return linear(input, codes, absmax, shape, bias, packingArguments(weight)) as Tensor
}
