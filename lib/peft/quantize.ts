import { misuse, requireObject, requireWhole } from '../data/check.js'
import { optionsOf } from '../native/arguments.js'
import { op, opAsync } from '../native/call.js'
import { ConfigError } from '../native/errors.js'
import { Linear } from '../nn/linear.js'
import { keepDType, Module } from '../nn/module.js'
import { NativeModule, nativeKind, nativeOf } from '../nn/native-module.js'
import type { Parameter } from '../nn/parameter.js'
import {
  type QuantizationScheme,
  type QuantizedWeight,
  quantizationOf,
  setQuantization,
} from '../nn/quantized-weight.js'
import { matcher } from '../nn/text.js'
import { type DType, noGrad, scope, type Tensor } from '../tensor/index.js'

export interface QuantizeOptions {
  /**
   * - 'nf4': 4 bits, blocks of 64 in row-major order with one float32 scale each. 4.5 bits a weight.
   * - 'int8': 8 bits, one float32 scale for each row: value = code · absmax / 127. Rows are not searched for outliers, so
   *   this is LLM.int8's storage, not its mixed product.
   */
  scheme: QuantizationScheme
  /** Which layers: a RegExp, a path, all below it, or a glob, as `freeze` takes; or a list of them. Default: every Linear. */
  modules?: string | RegExp | readonly (string | RegExp)[]
  /** Elements that share a scale in 'nf4'; even. Default 64. */
  blockSize?: number
}

const operators = {
  now: { nf4: op('voxtorch::quantize_nf4'), int8: op('voxtorch::quantize_int8') },
  queued: { nf4: opAsync('voxtorch::quantize_nf4'), int8: opAsync('voxtorch::quantize_int8') },
}
const tell = op('voxtorch::module_quantize_linear')
const untell = op('voxtorch::module_dequantize_linear')
const dequantizeNf4 = op('voxtorch::dequantize_nf4')
const dequantizeInt8 = op('voxtorch::dequantize_int8')

/**
 * Packs the weights of Linear layers into 4 or 8 bits and freezes them, as QLoRA does (Dettmers et al. 2023,
 * https://arxiv.org/abs/2305.14314): `getPeftModel` then trains adapters on top. Works in native networks and in those
 * written in TypeScript. A forward or backward pass makes one layer's values at a time, in the dtype of its input.
 *
 * A packed layer's `weight` holds the codes, which stay as they are under `to({ dtype })`; its new buffer `weight_absmax`
 * has the scales. Both are in the state dictionary, and load into a network that was packed in the same way. NF4's codes
 * have bitsandbytes' order: uint8 [⌈out · in / 2⌉, 1], the earlier of two elements in the upper four bits.
 *
 * ```ts
 * quantize(model, { scheme: 'nf4', modules: 'model.layers' })
 * const peft = getPeftModel(model, { r: 16, targetModules: 'all-linear' })
 * ```
 *
 * @returns the paths of the layers that were packed
 * @throws ConfigError where `modules` names no Linear, or one that is packed already or has adapters
 * @throws BusyError while a queued call still reads the weights; await it first
 */
export function quantize(model: Module, options: QuantizeOptions): string[] {
  const { layers, scheme, blockSize } = checked(model, options)
  for (const [, layer] of layers) {
    noGrad(() => scope(() => install(layer, scheme, blockSize, codesOf('now', layer, scheme, blockSize) as Codes)))
  }
  return layers.map(([path]) => path)
}

/** The same with the work on the executor, one layer after the other. */
export async function packLayers(model: Module, options: QuantizeOptions): Promise<string[]> {
  const { layers, scheme, blockSize } = checked(model, options)
  for (const [, layer] of layers) {
    await noGrad(() =>
      scope(async () => install(layer, scheme, blockSize, await codesOf('queued', layer, scheme, blockSize))),
    )
  }
  return layers.map(([path]) => path)
}

function checked(model: Module, options: QuantizeOptions) {
  if (!(model instanceof Module)) throw misuse('quantize', 'the model', 'a Module', model)
  requireObject('quantize', 'options', options)
  const { scheme, modules, blockSize = 64, ...unknown } = optionsOf(options)
  if (scheme !== 'nf4' && scheme !== 'int8') throw misuse('quantize', 'scheme', "'nf4' or 'int8'", scheme)
  requireWhole('quantize', 'blockSize', blockSize, 2)
  if (blockSize % 2 !== 0 || blockSize > 65536) {
    throw misuse('quantize', 'blockSize', 'an even number up to 65536', blockSize)
  }
  const other = Object.keys(unknown)[0]
  if (other !== undefined) {
    throw new ConfigError(`quantize has no option '${other}'; it has scheme, modules and blockSize`, { option: other })
  }
  const layers = linears(model, modules)
  for (const [path, layer] of layers) requireFresh(path, layer, model)
  return { layers, scheme, blockSize }
}

/** The reverse of `quantize` for one layer: its weight is the values that the codes stand for, in the dtype it had. */
export function dequantizeLayer(layer: Module): void {
  const packed = quantizationOf(layer)
  if (!packed) return
  scope(() =>
    noGrad(() => {
      weightOf(layer).setData(valuesOf(packed, packed.dtype))
      if (layer instanceof NativeModule) untell(nativeOf(layer))
      setQuantization(layer, undefined)
      layer.registerBuffer('weight_absmax', null)
      packed.absmax.dispose()
    }),
  )
}

/** What the codes stand for, a fresh tensor [out, in]. */
export function valuesOf({ scheme, codes, absmax, shape, blockSize }: QuantizedWeight, dtype: DType): Tensor {
  return (
    scheme === 'nf4'
      ? dequantizeNf4(codes, absmax, shape, { blockSize, dtype })
      : dequantizeInt8(codes, absmax, { dtype })
  ) as Tensor
}

function linears(model: Module, modules: QuantizeOptions['modules']): [string, Module][] {
  const all = model.namedModules().filter(([, module]) => isLinear(module))
  const patterns = modules === undefined ? undefined : Array.isArray(modules) ? modules : [modules]
  const tests = patterns?.map((pattern: string | RegExp) => [pattern, matcher(pattern)] as const)
  const found = tests ? all.filter(([path]) => tests.some(([, test]) => test(path))) : all
  const empty = tests?.find(([, test]) => !all.some(([path]) => test(path)))
  if (found.length > 0 && !empty) return found
  const some = all.slice(0, 5).map(([path]) => path || '(the model itself)')
  throw new ConfigError(
    `quantize: ${empty ? `no Linear of ${model.constructor.name} matches ${String(empty[0])}` : `${model.constructor.name} has none to pack`}; ` +
      `it has ${some.join(', ') || 'no Linear'}`,
    {},
  )
}

const isLinear = (module: Module) =>
  module instanceof NativeModule ? nativeKind(module) === 'Linear' : module instanceof Linear

const weightOf = (layer: Module) => Reflect.get(layer, 'weight') as Parameter

function requireFresh(path: string, layer: Module, model: Module): void {
  const weight = weightOf(layer)
  const fail = (what: string) => new ConfigError(`quantize: '${path}' ${what}`, { path })
  if (quantizationOf(layer)) throw fail('is packed already')
  if (!/^(float32|bfloat16|float16)$/.test(weight.dtype)) {
    throw fail(`has a ${weight.dtype} weight, expected float32, bfloat16 or float16`)
  }
  if (weight.device === 'meta') throw fail('is on the meta device, which has no values to pack; load the weights first')
  if (layer.namedParameters().some(([name]) => name.startsWith('lora_'))) {
    throw fail('has an adapter; quantize the network first and attach adapters then')
  }
  const owners = model.modules().filter((module) => Reflect.get(module, 'weight') === weight)
  if (owners.length > 1) throw fail('shares its weight with another layer; leave it out with `modules`')
}

interface Codes {
  codes: Tensor
  absmax: Tensor
}

function codesOf(when: keyof typeof operators, layer: Module, scheme: QuantizationScheme, blockSize: number) {
  const weight = weightOf(layer)
  const make = operators[when][scheme]
  return (scheme === 'nf4' ? make(weight, { blockSize }) : make(weight)) as Codes | Promise<Codes>
}

/** Puts codes in the place of a layer's weight. */
function install(layer: Module, scheme: QuantizationScheme, blockSize: number, { codes, absmax }: Codes): void {
  const weight = weightOf(layer)
  const { dtype, requiresGrad } = weight
  const shape = weight.shape as [number, number]
  try {
    weight.requiresGrad = false
    weight.setData(codes)
  } catch (error) {
    // A queued call still reads it.
    weight.requiresGrad = requiresGrad
    throw error
  }
  weight.grad = null
  keepDType(absmax)
  layer.registerBuffer('weight_absmax', absmax)
  setQuantization(layer, { scheme, codes: weight, absmax, shape, dtype, blockSize })
  if (layer instanceof NativeModule) tell(nativeOf(layer), weight, absmax, shape, { scheme, blockSize })
}
