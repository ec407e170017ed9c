import { native } from './addon.js'
import { Handle, handleOf } from './handle.js'

// Tensors are made here and defined in lib/tensor, which registers its class to avoid an import cycle.
export let tensorClass: new (handle: number) => Handle = class extends Handle {}
export let generatorClass: new (handle: number) => Handle = tensorClass

export function registerClasses(
  tensor: new (handle: number) => Handle,
  generator: new (handle: number) => Handle,
): void {
  tensorClass = tensor
  generatorClass = generator
}

// Tensors that belong to no scope are freed when JavaScript forgets them.
const forgotten = new FinalizationRegistry<number>((handle) => native.release(handle))

/** Leaves a tensor's lifetime to garbage collection (and `dispose()`). */
export function freeWhenForgotten(tensor: Handle): void {
  forgotten.register(tensor, handleOf(tensor))
}

export function wrapTensor(handle: number, scope: number): Handle {
  const tensor = new tensorClass(handle)
  if (scope === 0) forgotten.register(tensor, handle)
  return tensor
}

/** A native network; lib/nn has the class that people see. */
export class ModuleHandle extends Handle {}
