import { requireRecord } from '../base/arguments.js'
import { argumentError } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { op } from '../native/call.js'
import { Linear } from '../nn/linear.js'
import { Module } from '../nn/module.js'
import { NativeModule, withActiveAdapters } from '../nn/native-module.js'
import { type QuantizeOptions, quantize } from './quantize.js'

const quantizeInputs = op('voxtorch::module_quantize_inputs')

/**
 * Quantize an encoder dynamically for inference on the CPU, like PyTorch's `quantize_dynamic`. The weights of its Linear layers
 * are quantized as by `quantize(model, { scheme: 'int8' })`. If no gradient is needed, each row of a layer's input (float32 or
 * bfloat16 [..., in]) is rounded to int8 by its largest absolute value, so that the product is one of int8 with int8: by AMX,
 * VNNI, AVX-512, AVX2 or SSE. Sums are exact; scales, bias, activation and residual are float32. A layer whose `in` is not a
 * multiple of 64 or whose `out` is not a multiple of 32, and every pass that needs a gradient, computes with the dequantized
 * values. Layers of a network with rare large inputs, as in language models, lose more accuracy than an encoder's: exclude them
 * with `modules`, or use `quantize`.
 *
 * ```ts
 * const encoder = await Roberta.fromPretrained('roberta-base')
 * quantizeDynamic(encoder.eval())
 * ```
 *
 * @returns the paths of the layers that were quantized
 * @throws ConfigError if `modules` matches no Linear, one that is quantized already or has adapters, one written in TypeScript,
 *   or one that is not on the CPU
 * @throws BusyError while a queued call still reads the weights; await it first
 */
export function quantizeDynamic(model: Module, options: Pick<QuantizeOptions, 'modules'> = {}): string[] {
  if (!(model instanceof Module)) throw argumentError('quantizeDynamic', 'the model', 'a Module', model)
  requireRecord('quantizeDynamic', options)
  const unknown = Object.keys(options).find((name) => name !== 'modules')
  if (unknown !== undefined) {
    throw new ConfigError(`quantizeDynamic: expected the option modules, got '${unknown}'`, { option: unknown })
  }
  const unsupported = model
    .namedModules()
    .find(([, module]) => module instanceof Linear || module.parameters().some((each) => each.device !== 'cpu'))
  if (unsupported) {
    const what = unsupported[1] instanceof Linear ? 'a Linear written in TypeScript' : 'one on another device'
    throw new ConfigError(
      `quantizeDynamic: expected Linear layers of native networks on the CPU, but '${unsupported[0]}' is ${what}`,
      {
        path: unsupported[0],
      },
    )
  }
  const paths = quantize(model, { scheme: 'int8', ...options })
  const layers = new Map(model.namedModules())
  for (const path of paths) {
    const layer = layers.get(path)
    if (layer instanceof NativeModule) quantizeInputs(withActiveAdapters(layer), true)
  }
  return paths
}
