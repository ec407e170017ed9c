import { op } from '../native/call.js'
import { currentContext } from '../native/context.js'
import type { Module } from '../nn/module.js'
import { identityOf } from '../tensor/identity.js'
import type { Tensor } from '../tensor/index.js'
import { type PeftModel, peftModelOf } from './model.js'

const versionOf = op('aten::_version') as (tensor: Tensor) => number

/**
 * Return a text that changes with the weights of a network, and with its active adapters: what was computed under another one is not its
 * output. @internal
 */
export function weightsIdentity(network: Module): string {
  const tensors = [...network.parameters(), ...network.namedBuffers().map(([, buffer]) => buffer)]
  const { adapters, adapterScales, flags } = currentContext()
  const numbered = <T>(map: ReadonlyMap<object, T> | undefined) =>
    Array.from(map ?? [], ([peft, value]) => [identityOf(peft), value])
  const peft = new Set(network.modules().flatMap((module) => peftModelOf(module) ?? []))
  const { device, dtype } = tensors[0] ?? {}
  return JSON.stringify([
    tensors.map((tensor) => [identityOf(tensor), versionOf(tensor)]),
    ...[device, dtype, network.training],
    Array.from(peft, (one: PeftModel) => [identityOf(one), one.activeAdapters]),
    ...[numbered(adapters), numbered(adapterScales), flags >> 8],
  ])
}
