import { native } from './addon.js'
import { Handle, handleOf } from './handle.js'

// Tensors are made here and defined in lib/tensor, which registers its class to avoid an import cycle.
export let tensorClass: new (handle: number) => Handle = class extends Handle {}

export function registerTensorClass(tensor: new (handle: number) => Handle): void {
  tensorClass = tensor
}

// Tensors that belong to no scope are freed when JavaScript forgets them.
const forgotten = new FinalizationRegistry<number>((handle) => native.release(handle))

/** Leaves a handle's lifetime to garbage collection (and `dispose()`). */
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

// Tensors made outside any scope: a loop that forgot its scope is slow and fills the memory, and looks right.
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
    `${liveTensors} tensors are alive, and ${outside} were made outside any scope, where only garbage collection frees ` +
      'them, which a loop may not let run: put the body of the loop into scope(() => ...), or dispose() what is done with. ' +
      'If they are wanted, nothing is wrong.',
    { type: 'VoxtorchWarning', code: 'VOXTORCH_NO_SCOPE' },
  )
}

/** A native network; lib/nn has the class that people see. */
export class ModuleHandle extends Handle {}
