import { native } from './addon.js'
import { Handle, handleOf } from './handle.js'

// Tensors are created here and defined in lib/tensor, which registers its class to avoid an import cycle.
export let tensorClass: new (handle: number) => Handle = class extends Handle {}

export function registerTensorClass(tensor: new (handle: number) => Handle): void {
  tensorClass = tensor
}

// Free tensors that belong to no scope when JavaScript collects them.
const forgotten = new FinalizationRegistry<number>((handle) => native.release(handle))

/** Leave a handle's lifetime to garbage collection (and `dispose()`). */
export function freeWhenForgotten(tensor: Handle): void {
  forgotten.register(tensor, handleOf(tensor))
}

export function wrapTensor(handle: number, scope: number): Handle {
  const tensor = new tensorClass(handle)
  if (scope === 0) {
    forgotten.register(tensor, handle)
    outside += 1
    if (outside >= MANY && outside % LOOK_EVERY === 0) lookAtOutside()
  }
  return tensor
}

// Number of tensors created outside any scope: a loop without a scope is slow and fills the memory, without an error.
let outside = 0
let warned = false
const LOOK_EVERY = 1024
const MANY = 4096

function lookAtOutside(): void {
  if (warned) return
  const { liveTensors } = native.memory()
  if (liveTensors < MANY) return
  warned = true
  process.emitWarning(
    `${liveTensors} tensors are alive, ${outside} of them created outside any scope, where only garbage collection frees ` +
      'them, which may not run during a loop. Put the body of the loop into scope(() => ...), or dispose() unused tensors. ' +
      'If you need all of them, ignore this warning.',
    { type: 'VoxtorchWarning', code: 'VOXTORCH_NO_SCOPE' },
  )
}

/** A native network; the public class is in lib/nn. */
export class ModuleHandle extends Handle {}
