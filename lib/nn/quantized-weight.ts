import { type GgufType, TYPES } from '../files/gguf/types.js'
import { op } from '../native/call.js'
import type { DType, Tensor } from '../tensor/index.js'
import type { Module } from './module.js'

/** Quantization schemes of `quantize`: its own, and GGUF's blocks. */
export type QuantizationScheme = 'nf4' | 'int8' | 'q8_0' | 'q4_0'
/** Schemes of quantized weights; a GGUF file may have other block types too. */
export type PackedScheme = QuantizationScheme | 'q4_1' | 'q4_k' | 'q6_k'

export const QUANTIZATION_SCHEMES: readonly QuantizationScheme[] = ['nf4', 'int8', 'q8_0', 'q4_0']
const BLOCKS = ['q8_0', 'q4_0', 'q4_1', 'q4_k', 'q6_k'] as const
export type BlockScheme = (typeof BLOCKS)[number]
export const isBlocks = (scheme: string): scheme is BlockScheme => (BLOCKS as readonly string[]).includes(scheme)

/** Return the GGUF name, code, weights per block and bytes per block of a block scheme. */
export function blockFacts(scheme: BlockScheme): { type: GgufType; code: number; block: number; bytes: number } {
  const type = scheme.toUpperCase() as GgufType
  const { code, block, bytes } = TYPES[type]
  return { type, code, block, bytes }
}

/** Return the scheme of a GGUF type that kernels compute with; undefined for the others. */
export function blockSchemeOf(type: string): BlockScheme | undefined {
  const scheme = type.toLowerCase()
  return isBlocks(scheme) ? scheme : undefined
}

/** Quantized weight of a Linear or Embedding. */
export interface QuantizedWeight {
  scheme: PackedScheme
  /** Codes of the layer's weight. For blocks uint8 [out, bytes per row], as in a GGUF file. */
  codes: Tensor
  /** Scales, float32; uint8 with `nested`, which decodes them. Blocks contain their scales. */
  absmax?: Tensor | undefined
  /** Scales of the scales, for 'nf4' with double quantization. */
  nested?: NestedScales | undefined
  /** [out, in] */
  shape: [number, number]
  /** Dtype of the original weight. */
  dtype: DType
  /** Block size of 'nf4'. */
  blockSize: number
}

/** Scales of scales: code · absmax of its block of 256 + offset. */
export interface NestedScales {
  /** float32 [⌈blocks / 256⌉] */
  absmax: Tensor
  /** float32 [1] */
  offset: Tensor
}

const packed = new WeakMap<Module, QuantizedWeight>()

/** Return how a layer's weight is quantized; undefined for all others. */
export const quantizationOf = (layer: Module): QuantizedWeight | undefined => packed.get(layer)

export function setQuantization(layer: Module, weight: QuantizedWeight | undefined): void {
  if (weight) packed.set(layer, weight)
  else packed.delete(layer)
}

/** Return the options for operators that take a quantized weight. */
export const packingArguments = ({ scheme, blockSize, nested }: QuantizedWeight) => ({
  scheme,
  blockSize,
  nestedAbsmax: nested?.absmax,
  nestedOffset: nested?.offset,
})

const linear = op('voxtorch::quantized_linear')
const embedding = op('voxtorch::quantized_embedding')

/** Map [..., in] to [..., out]. */
export function quantizedLinear(input: Tensor, weight: QuantizedWeight, bias: Tensor | null): Tensor {
  const { codes, absmax, shape } = weight
  return linear(input, codes, absmax ?? null, shape, bias, packingArguments(weight)) as Tensor
}

/** Look up integer indices [...] in a quantized table: [..., in]. */
export const quantizedEmbedding = (indices: Tensor, { codes, shape, scheme, dtype }: QuantizedWeight): Tensor =>
  embedding(indices, codes, shape, { scheme, dtype }) as Tensor
