import { type GgufType, TYPES } from '../files/gguf/types.js'
import { op } from '../native/call.js'
import type { DType, Tensor } from '../tensor/index.js'
import type { Module } from './module.js'

/** How `quantize` packs weights: its own schemes, and GGUF's blocks. */
export type QuantizationScheme = 'nf4' | 'int8' | 'q8_0' | 'q4_0'
/** What a packed weight may be: a GGUF file has other blocks too. */
export type PackedScheme = QuantizationScheme | 'q4_1' | 'q4_k' | 'q6_k'

export const QUANTIZATION_SCHEMES: readonly QuantizationScheme[] = ['nf4', 'int8', 'q8_0', 'q4_0']
const BLOCKS = ['q8_0', 'q4_0', 'q4_1', 'q4_k', 'q6_k'] as const
export type BlockScheme = (typeof BLOCKS)[number]
export const isBlocks = (scheme: string): scheme is BlockScheme => (BLOCKS as readonly string[]).includes(scheme)

/** Of GGUF's blocks: the type's name there, its number, the weights of a block and its bytes. */
export function blockFacts(scheme: BlockScheme): { type: GgufType; code: number; block: number; bytes: number } {
  const type = scheme.toUpperCase() as GgufType
  const { code, block, bytes } = TYPES[type]
  return { type, code, block, bytes }
}

/** The scheme of a type of GGUF that kernels compute with; undefined for the others. */
export function blockSchemeOf(type: string): BlockScheme | undefined {
  const scheme = type.toLowerCase()
  return isBlocks(scheme) ? scheme : undefined
}

/** What a packed Linear's or Embedding's tensors mean. */
export interface QuantizedWeight {
  scheme: PackedScheme
  /** The layer's own weight. Of blocks uint8 [out, bytes of a row], as a GGUF file has them. */
  codes: Tensor
  /** float32; uint8 where `nested` says what its codes stand for. Blocks have their scales within. */
  absmax?: Tensor | undefined
  /** Of 'nf4' with double quantization. */
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
const embedding = op('voxtorch::quantized_embedding')

/** [..., in] → [..., out] */
export function quantizedLinear(input: Tensor, weight: QuantizedWeight, bias: Tensor | null): Tensor {
  const { codes, absmax, shape } = weight
  return linear(input, codes, absmax ?? null, shape, bias, packingArguments(weight)) as Tensor
}

/** Integer indices [...] → [..., in], of blocks. */
export const quantizedEmbedding = (indices: Tensor, { codes, shape, scheme, dtype }: QuantizedWeight): Tensor =>
  embedding(indices, codes, shape, { scheme, dtype }) as Tensor
