import { op, opAsync } from '../native/call.js'
import type { Module } from './module.js'
import { handleOfNetwork, NativeModule } from './native-module.js'
import { Parameter } from './parameter.js'

const find = op('voxtorch::module_output_layer')
const untie = op('voxtorch::module_untie_head')
const tie = opAsync('voxtorch::module_tie_head')

/** Paths of a language model's embedding and output layers, from the network. */
export interface OutputLayer {
  head: string
  embeddings: string
  /** Whether both use one weight; there is no module at `head` then. */
  tied: boolean
}

/** Return the output layer of a native language model; undefined for all other modules. */
export function outputLayerOf(module: Module): OutputLayer | undefined {
  if (!(module instanceof NativeModule)) return undefined
  const found = find(handleOfNetwork(module)) as OutputLayer
  return found.head === '' ? undefined : found
}

const untied = new WeakMap<NativeModule, NativeModule>()

/** Return whether the network's output layer was tied originally, and has its own weight now. */
export const isUntied = (network: Module): boolean => network instanceof NativeModule && untied.has(network)

/** Give the tied output layer a frozen weight of its own with the embeddings' values, as a module of the network. */
export function untieHead(network: NativeModule): void {
  const { parent, field } = placeOf(network)
  const head = new NativeModule(untie(handleOfNetwork(network)) as never)
  head.training = network.training
  const fields = head as unknown as { weight: Parameter; bias?: Parameter }
  fields.weight.requiresGrad = false
  // Its bias may belong to the parent module, and is listed under both names.
  const bias: unknown = Reflect.get(parent, 'bias')
  if (parent !== network && bias instanceof Parameter) fields.bias = bias
  Reflect.set(parent, field, head)
  untied.set(network, head)
}

/** Tie the output layer again. Calls that were already prepared still use the layer. */
export function tieHead(network: NativeModule): void {
  const head = untied.get(network)
  if (!head) return
  const { parent, field } = placeOf(network)
  Reflect.deleteProperty(parent, field)
  Reflect.deleteProperty(head, 'bias')
  untied.delete(network)
  tie(handleOfNetwork(network), handleOfNetwork(head)).catch(() => {})
  head.dispose()
}

function placeOf(network: NativeModule): { parent: Module; field: string } {
  const path = (outputLayerOf(network) as OutputLayer).head.split('.')
  const field = path.pop() as string
  return { parent: network.get<Module>(path.join('.')), field }
}
