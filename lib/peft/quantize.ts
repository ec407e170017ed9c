import { requireRecord } from '../base/arguments.js'
import { argumentError, requireOneOf, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { op, opAsync } from '../native/call.js'
import { Embedding } from '../nn/embedding.js'
import { Linear } from '../nn/linear.js'
import { Module } from '../nn/module.js'
import { NativeModule, nativeKind } from '../nn/native-module.js'
import { outputLayerOf } from '../nn/output-layer.js'
import {
  blockFacts,
  isBlocks,
  QUANTIZATION_SCHEMES,
  type QuantizationScheme,
  quantizationOf,
} from '../nn/quantized-weight.js'
import { matcher } from '../nn/text.js'
import { noGrad, scope, type Tensor } from '../tensor/index.js'
import { pack, weightOf } from './packed-layer.js'

/** Quantization scheme of a weight and its settings. */
export interface PackingOptions {
  /**
   * - 'nf4': 4 bits, blocks of 64 in row-major order with one scale each. 4.13 bits per weight.
   * - 'int8': 8 bits, one float32 scale for each row: value = code · absmax / 127. Outliers are not separated, so this is the
   *   storage of LLM.int8, not its mixed-precision product.
   * - 'q8_0', 'q4_0': GGUF's blocks of 32 with a float16 scale, bit-identical to llama.cpp's quantization; 8.5 and 4.5 bits per
   *   weight. The length of rows must be a multiple of 32. Supported on the CPU only.
   *
   * Without gradients and on the CPU, 'int8' and blocks multiply in integers: the input is quantized to 8 bits too, 32 neighbors
   * (from 5 rows on, 16) with one scale, as in llama.cpp. For normally distributed inputs that changes a result by less
   * than 1 % of its usual magnitude.
   */
  scheme: QuantizationScheme
  /**
   * QLoRA's double quantization of the scales of 'nf4' to 8 bits, bitsandbytes' `bnb_4bit_use_double_quant`. Default true; with
   * false, bitsandbytes' own default, they stay float32: 4.5 bits per weight.
   */
  doubleQuant?: boolean
  /** Elements per scale in 'nf4'; even. Default 64. */
  blockSize?: number
}

export interface QuantizeOptions extends PackingOptions {
  /**
   * Layers to quantize: a RegExp, a path with everything below it, or a glob, as in `freeze`; or a list of them. Default: every
   * Linear.
   */
  modules?: string | RegExp | readonly (string | RegExp)[]
  /**
   * Whether to quantize embeddings and a language model's output layer too, in Q8_0 for any scheme; a layer that is tied to the
   * embeddings is quantized with them. Default: true for 'q8_0' and 'q4_0' without `modules`, as in llama.cpp's files, else
   * false.
   */
  embeddings?: boolean
}

const makeBlocks = op('voxtorch::gguf_quantize')
const makeBlocksAsync = opAsync('voxtorch::gguf_quantize')

const operators = {
  now: {
    nf4: op('voxtorch::quantize_nf4'),
    int8: op('voxtorch::quantize_int8'),
    scales: op('voxtorch::quantize_scales'),
  },
  queued: {
    nf4: opAsync('voxtorch::quantize_nf4'),
    int8: opAsync('voxtorch::quantize_int8'),
    scales: opAsync('voxtorch::quantize_scales'),
  },
}

/**
 * Quantize the weights of Linear layers, and of embeddings with `embeddings`, to 4 or 8 bits and freeze them, as QLoRA does
 * (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314): `getPeftModel` then trains adapters on top. Works in native
 * networks and in those written in TypeScript. A forward or backward pass dequantizes one layer at a time, in the dtype of its
 * input.
 *
 * The `weight` of a quantized layer contains the codes, which `to({ dtype })` does not convert. For 'q8_0' and 'q4_0' that is
 * all: uint8 [out, bytes per row], as in a GGUF file. Otherwise a new buffer `weight_absmax` contains the scales. With double
 * quantization those are uint8 codes too, which `weight_nested_absmax` (float32 [⌈blocks / 256⌉]) and `weight_nested_offset`
 * (float32 [1], the scales' mean) decode. All are in the state dictionary, and load into a network that was quantized by the
 * same scheme, with or without double quantization. NF4 codes have bitsandbytes' order: uint8 [⌈out · in / 2⌉, 1], the earlier
 * of two elements in the upper four bits; and the scales use its dynamic 8-bit values.
 *
 * ```ts
 * quantize(model, { scheme: 'nf4', modules: 'model.layers' })
 * const peft = getPeftModel(model, { r: 16, targetModules: 'all-linear' })
 * ```
 *
 * @returns the paths of the layers that were quantized
 * @throws ConfigError if `modules` matches no Linear, or one that is quantized already or has adapters
 * @throws BusyError while a queued call still reads the weights; await it first
 */
export function quantize(model: Module, options: QuantizeOptions): string[] {
  const layers = checked(model, options)
  const make = operators.now
  for (const { layer, packing } of layers) {
    const { scheme } = packing
    noGrad(() =>
      scope(() => {
        if (isBlocks(scheme)) {
          return install(layer, packing, inRows(layer, makeBlocks(weightOf(layer), blockFacts(scheme).code) as Tensor))
        }
        const quantizedCodes = make[scheme](...inputsOf(layer, packing)) as Codes
        install(
          layer,
          packing,
          quantizedCodes,
          packing.doubleQuant ? (make.scales(quantizedCodes.absmax as Tensor) as PackedScales) : undefined,
        )
      }),
    )
  }
  return layers.map(({ path }) => path)
}

/** Quantize as {@link quantize} does, with the work on the executor, one layer at a time. */
export async function packLayers(model: Module, options: QuantizeOptions): Promise<string[]> {
  const layers = checked(model, options)
  const make = operators.queued
  for (const { layer, packing } of layers) {
    const { scheme } = packing
    await noGrad(() =>
      scope(async () => {
        if (isBlocks(scheme)) {
          const blocks = (await makeBlocksAsync(weightOf(layer), blockFacts(scheme).code)) as Tensor
          return install(layer, packing, inRows(layer, blocks))
        }
        const quantizedCodes = (await make[scheme](...inputsOf(layer, packing))) as Codes
        const scales = packing.doubleQuant
          ? ((await make.scales(quantizedCodes.absmax as Tensor)) as PackedScales)
          : undefined
        install(layer, packing, quantizedCodes, scales)
      }),
    )
  }
  return layers.map(({ path }) => path)
}

/** Check the quantization options of a weight, and fill in defaults. */
export function packingOf(where: string, options: PackingOptions): Required<PackingOptions> {
  requireRecord(where, options)
  const { scheme, doubleQuant = scheme === 'nf4', blockSize = 64, ...unknown } = options
  requireOneOf(where, 'scheme', scheme, QUANTIZATION_SCHEMES)
  if (isBlocks(scheme) && options.blockSize !== undefined) {
    throw new ConfigError(
      `${where}: expected scheme 'nf4' with blockSize, got '${scheme}', whose blocks have 32 elements`,
      { scheme },
    )
  }
  if (typeof doubleQuant !== 'boolean') throw argumentError(where, 'doubleQuant', 'true or false', doubleQuant)
  if (doubleQuant && scheme !== 'nf4') {
    throw new ConfigError(
      `${where}: expected scheme 'nf4' with doubleQuant, got '${scheme}', which has ${isBlocks(scheme) ? 'float16 scales in its blocks' : 'one float32 scale for each row'}`,
      { scheme },
    )
  }
  requireWhole(where, 'blockSize', blockSize, 2)
  if (blockSize % 2 !== 0 || blockSize > 65536) {
    throw argumentError(where, 'blockSize', 'an even number up to 65536', blockSize)
  }
  const other = Object.keys(unknown)[0]
  if (other !== undefined) {
    const optionNames = `scheme, doubleQuant, blockSize${where === 'quantize' ? ', modules and embeddings' : ''}`
    throw new ConfigError(`${where}: expected one of the options ${optionNames}, got '${other}'`, { option: other })
  }
  return { scheme, doubleQuant, blockSize }
}

interface Packed {
  path: string
  layer: Module
  packing: Required<PackingOptions>
}

function checked(model: Module, options: QuantizeOptions): Packed[] {
  if (!(model instanceof Module)) throw argumentError('quantize', 'the model', 'a Module', model)
  requireRecord('quantize', options)
  const { modules, embeddings, ...how } = options
  const packing = packingOf('quantize', how)
  if (embeddings !== undefined && typeof embeddings !== 'boolean') {
    throw argumentError('quantize', 'embeddings', 'true or false', embeddings)
  }
  const words =
    (embeddings ?? (isBlocks(packing.scheme) && modules === undefined)) ? tokenLayers(model) : new Map<Module, string>()
  if (embeddings === true && words.size === 0) {
    throw new ConfigError(
      `quantize: expected embeddings or an output layer, but ${model.constructor.name} has neither`,
      {},
    )
  }
  const inBlocks = packingOf('quantize', { scheme: 'q8_0' })
  const layers = [
    ...linears(model, modules, words.size > 0).flatMap(([path, layer]) =>
      words.has(layer) ? [] : [{ path, layer, packing }],
    ),
    ...[...words].map(([layer, path]) => ({ path, layer, packing: inBlocks })),
  ]
  for (const one of layers) requireFresh(one, model)
  return layers
}

/** Return the embeddings that can be quantized, and the output layers of language models. */
function tokenLayers(model: Module): Map<Module, string> {
  const found = new Map<Module, string>()
  for (const [path, module] of model.namedModules()) {
    if (module instanceof Embedding) found.set(module, path)
    if (!(module instanceof NativeModule) || nativeKind(module) !== 'DecoderLM') continue
    const output = outputLayerOf(module)
    if (!output) continue
    for (const name of output.tied ? [output.embeddings] : [output.embeddings, output.head]) {
      found.set(module.get(name), path === '' ? name : `${path}.${name}`)
    }
  }
  return found
}

function linears(model: Module, modules: QuantizeOptions['modules'], mayLack: boolean): [string, Module][] {
  const all = model.namedModules().filter(([, module]) => isLinear(module))
  const patterns = modules === undefined ? undefined : Array.isArray(modules) ? modules : [modules]
  const tests = patterns?.map((pattern: string | RegExp) => [pattern, matcher(pattern)] as const)
  const found = tests ? all.filter(([path]) => tests.some(([, test]) => test(path))) : all
  const empty = tests?.find(([, test]) => !all.some(([path]) => test(path)))
  if ((found.length > 0 || (mayLack && !tests)) && !empty) return found
  const some = all.slice(0, 5).map(([path]) => path || '(the model itself)')
  throw new ConfigError(
    `quantize: expected Linear layers to quantize, ${empty ? `but none of ${model.constructor.name} matches ${String(empty[0])}` : `but ${model.constructor.name} has none`}; ` +
      `it has ${some.join(', ') || 'no Linear'}`,
    {},
  )
}

const isLinear = (module: Module) =>
  module instanceof NativeModule ? nativeKind(module) === 'Linear' : module instanceof Linear

function requireFresh({ path, layer, packing: { scheme } }: Packed, model: Module): void {
  const weight = weightOf(layer)
  const fail = (what: string) => new ConfigError(`quantize: '${path}' ${what}`, { path })
  if (quantizationOf(layer)) throw fail('is quantized already')
  if (!/^(float32|bfloat16|float16)$/.test(weight.dtype)) {
    throw fail(`has a ${weight.dtype} weight, expected float32, bfloat16 or float16`)
  }
  if (weight.device === 'meta')
    throw fail('is on the meta device, which has no values to quantize. Load the weights first')
  if (isBlocks(scheme)) {
    const { block } = blockFacts(scheme)
    const width = weight.shape[1] as number
    if (width % block !== 0) {
      throw fail(
        `has rows of ${width}, which is not a multiple of ${block} as ${scheme} requires. Leave it out with \`modules\``,
      )
    }
    if (!weight.device.startsWith('cpu'))
      throw fail(`is on ${weight.device}, but ${scheme} is supported on the CPU only`)
  }
  if (layer instanceof Embedding && (layer.maxNorm !== null || layer.scaleGradByFreq)) {
    throw fail('has maxNorm or scaleGradByFreq, which quantized embeddings do not support')
  }
  if (layer.namedParameters().some(([name]) => name.startsWith('lora_'))) {
    throw fail('has an adapter. Quantize the network before attaching adapters')
  }
  const owners = model.modules().filter((module) => Reflect.get(module, 'weight') === weight)
  if (owners.length > 1) throw fail('shares its weight with another layer. Leave it out with `modules`')
}

interface Codes {
  codes: Tensor
  absmax?: Tensor
}

/** Return the blocks of a weight, concatenated in rows. */
function inRows(layer: Module, blocks: Tensor): Codes {
  const rows = weightOf(layer).shape[0] as number
  return { codes: blocks.view([rows, blocks.numel() / rows]) }
}

interface PackedScales {
  codes: Tensor
  absmax: Tensor
  offset: Tensor
}

const inputsOf = (layer: Module, { scheme, blockSize }: Required<PackingOptions>): [Tensor, object?] =>
  scheme === 'nf4' ? [weightOf(layer), { blockSize }] : [weightOf(layer)]

/** Replace a layer's weight by codes. */
function install(
  layer: Module,
  { scheme, blockSize }: Required<PackingOptions>,
  { codes, absmax }: Codes,
  scales?: PackedScales,
): void {
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
  const buffers = scales
    ? { absmax: scales.codes, nested: { absmax: scales.absmax, offset: scales.offset } }
    : { absmax }
  pack(layer, { scheme, codes: weight, shape, dtype, blockSize, ...buffers })
}
