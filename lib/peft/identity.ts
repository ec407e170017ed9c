import { op } from '../native/call.js'
import { currentContext } from '../native/context.js'
import type { Module } from '../nn/module.js'
import type { Tensor } from '../tensor/index.js'
import { peftModelOf } from './model.js'

const versionOf = op('aten::_version') as (tensor: Tensor) => number

/**
 * Return a text that changes with the weights of a network, and with its active adapters: what was computed under another one is not its
 * output. @internal
 */
export function weightsIdentity(network: Module): string {
  const tensors = [...network.parameters(), ...network.namedBuffers().map(([, buffer]) => buffer)]
  const versions = tensors.reduce((sum, tensor) => sum + versionOf(tensor), 0)
  const { adapters, adapterScales, flags } = currentContext()
  const chosen = [...(adapters?.values() ?? []), ...(adapterScales?.values() ?? [])]
  const active = network.modules().flatMap((module) => peftModelOf(module)?.activeAdapters ?? [])
  const { device, dtype } = tensors[0] ?? {}
  return JSON.stringify([tensors.length, versions, device, dtype, network.training, active, chosen, flags >> 8])
}
