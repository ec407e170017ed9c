import { op } from '../native/call.js'
import { keepDType, type Module, type StateForm, setStateForms } from '../nn/module.js'
import { NativeModule, withActiveAdapters } from '../nn/native-module.js'
import type { Parameter } from '../nn/parameter.js'
import {
  blockFacts,
  isBlocks,
  type NestedScales,
  packingArguments,
  type QuantizedWeight,
  quantizationOf,
  setQuantization,
} from '../nn/quantized-weight.js'
import { type DType, empty, noGrad, scope, Tensor } from '../tensor/index.js'

const setPackedWeight = op('voxtorch::module_quantize_linear')
const untell = op('voxtorch::module_dequantize_linear')
const dequantizeNf4 = op('voxtorch::dequantize_nf4')
const dequantizeInt8 = op('voxtorch::dequantize_int8')
const dequantizeScales = op('voxtorch::dequantize_scales')
const dequantizeBlocks = op('voxtorch::gguf_dequantize')

/** bitsandbytes' names for the scales of scales. */
const NESTED = { absmax: 'weight_nested_absmax', offset: 'weight_nested_offset' } as const
const SCALE_BLOCK = 256

type Scales = Pick<QuantizedWeight, 'absmax' | 'nested'>

export const weightOf = (layer: Module) => Reflect.get(layer, 'weight') as Parameter

/** Make a layer compute with a quantized weight. Its own `weight` already contains the codes. */
export function pack(layer: Module, weight: QuantizedWeight): void {
  for (const [name, buffer] of Object.entries(buffersOf(weight))) {
    keepDType(buffer)
    layer.registerBuffer(name, buffer)
  }
  keepDType(weight.codes)
  setQuantization(layer, weight)
  setStateForms(layer, (entry) => formLike(layer, entry))
  if (!(layer instanceof NativeModule)) return
  const { codes, absmax = null, shape } = weight
  setPackedWeight(withActiveAdapters(layer), codes, absmax, shape, packingArguments(weight))
}

/** Reverse `quantize` for one layer: replace its weight by the dequantized values in the original dtype. */
export function dequantizeLayer(layer: Module): void {
  const packed = quantizationOf(layer)
  if (!packed) return
  scope(() =>
    noGrad(() => {
      weightOf(layer).setData(valuesOf(packed, packed.dtype))
      keepDType(weightOf(layer), false)
      if (layer instanceof NativeModule) untell(withActiveAdapters(layer))
      setQuantization(layer, undefined)
      setStateForms(layer, undefined)
      drop(layer, packed)
    }),
  )
}

/** Return the dequantized values, a new tensor [out, in]. */
export function valuesOf({ scheme, codes, absmax, nested, shape, blockSize }: QuantizedWeight, dtype: DType): Tensor {
  if (isBlocks(scheme)) {
    return scope(() => {
      const direct = dtype === 'bfloat16' || dtype === 'float16' ? dtype : 'float32'
      const values = dequantizeBlocks(codes.flatten(), blockFacts(scheme).code, shape, { dtype: direct }) as Tensor
      return values.to({ dtype })
    })
  }
  if (scheme === 'int8') return dequantizeInt8(codes, absmax as Tensor, { dtype }) as Tensor
  return scope(() => {
    const scales = nested ? dequantizeScales(absmax as Tensor, nested.absmax, nested.offset) : absmax
    return dequantizeNf4(codes, scales as Tensor, shape, { blockSize, dtype }) as Tensor
  })
}

/** Return a layer's buffers by their names in the state dictionary. */
export const buffersOf = ({ absmax, nested }: Scales): Record<string, Tensor> => ({
  ...(absmax && { weight_absmax: absmax }),
  ...(nested && { [NESTED.absmax]: nested.absmax, [NESTED.offset]: nested.offset }),
})

function drop(layer: Module, scales: Scales): void {
  for (const [name, buffer] of Object.entries(buffersOf(scales))) {
    layer.registerBuffer(name, null)
    buffer.dispose()
  }
}

/**
 * Adapt a layer to a dictionary: if it has float32 scales and the layer quantized ones, or the reverse, use the dictionary's
 * form.
 */
function formLike(layer: Module, entry: (name: string) => unknown): StateForm | undefined {
  const packed = quantizationOf(layer)
  const given = entry('weight_absmax')
  if (packed?.scheme !== 'nf4' || !(given instanceof Tensor)) return undefined
  const nests = Object.values(NESTED).some((name) => entry(name) !== undefined)
  const scales = packed.nested
    ? given.dtype === 'float32' && !nests && scalesOf(packed, false)
    : given.dtype === 'uint8' && nests && scalesOf(packed, true)
  if (!scales) return undefined
  const gone = Object.fromEntries(Object.keys(buffersOf(packed)).map((name) => [name, null]))
  return {
    buffers: { ...gone, ...buffersOf(scales) },
    take() {
      // Throws while a queued call reads it.
      packed.codes.setData(packed.codes.detach())
      drop(layer, packed)
      pack(layer, { ...packed, nested: undefined, ...scales })
    },
  }
}

/** Return uninitialized buffers for the scales. */
function scalesOf({ absmax }: QuantizedWeight, isNested: boolean): Scales {
  const { shape, device } = absmax as Tensor
  const make = (shape: number[], dtype: DType) => {
    const buffer = empty(shape, { dtype, device })
    keepDType(buffer)
    return buffer
  }
  if (!isNested) return { absmax: make(shape, 'float32') }
  const blocks = Math.ceil((shape[0] as number) / SCALE_BLOCK)
  const nested: NestedScales = { absmax: make([blocks], 'float32'), offset: make([1], 'float32') }
  return { absmax: make(shape, 'uint8'), nested }
}
