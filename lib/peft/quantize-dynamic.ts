import { misuse, requireObject } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { op } from '../native/call.js'
import { Linear } from '../nn/linear.js'
import { Module } from '../nn/module.js'
import { NativeModule, withActiveAdapters } from '../nn/native-module.js'
import { type QuantizeOptions, quantize } from './quantize.js'

const quantizeInputs = op('voxtorch::module_quantize_inputs')

/**
 * Dynamic quantization of an encoder for inference on the CPU, as PyTorch's `quantize_dynamic`: the weights of its Linear
 * layers are packed as `quantize(model, { scheme: 'int8' })` does, and where no gradient is needed each row of a layer's
 * input (float32 or bfloat16 [..., in]) is rounded to int8 by the largest of its absolute values, so that the product is
 * one of int8 with int8: by AMX, VNNI, AVX-512, AVX2 or SSE. Sums are exact; scales, bias, activation and residual are
 * float32. A layer whose `in` is no multiple of 64, or whose `out` is none of 32, and every pass that needs a gradient,
 * computes with the values that the codes stand for. Layers of a network with rare large inputs, as language models have,
 * lose more accuracy than an encoder's: leave them out with `modules`, or use `quantize`.
 *
 * ```ts
 * const encoder = await Roberta.fromPretrained('roberta-base')
 * quantizeDynamic(encoder.eval())
 * ```
 *
 * @returns the paths of the layers that were packed
 * @throws ConfigError where `modules` names no Linear, one that is packed already or has adapters, one written in
 *   TypeScript, or one that is not on the CPU
 * @throws BusyError while a queued call still reads the weights; await it first
 */
export function quantizeDynamic(model: Module, options: Pick<QuantizeOptions, 'modules'> = {}): string[] {
  if (!(model instanceof Module)) throw misuse('quantizeDynamic', 'the model', 'a Module', model)
  requireObject('quantizeDynamic', 'options', options)
  const unknown = Object.keys(options).find((name) => name !== 'modules')
  if (unknown !== undefined) {
    throw new ConfigError(`quantizeDynamic has no option '${unknown}'; it has modules`, { option: unknown })
  }
  const external = model
    .namedModules()
    .find(([, module]) => module instanceof Linear || module.parameters().some((each) => each.device !== 'cpu'))
  if (external) {
    const what = external[1] instanceof Linear ? 'is a Linear written in TypeScript' : 'is not on the CPU'
    throw new ConfigError(`quantizeDynamic: '${external[0]}' ${what}; native networks on the CPU have int8 products`, {
      path: external[0],
    })
  }
  const paths = quantize(model, { scheme: 'int8', ...options })
  const layers = new Map(model.namedModules())
  for (const path of paths) {
    const layer = layers.get(path)
    if (layer instanceof NativeModule) quantizeInputs(withActiveAdapters(layer), true)
  }
  return paths
}
