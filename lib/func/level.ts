import { requireFunction } from '../base/check.js'
import { ConfigError, DTypeError } from '../base/errors.js'
import { native } from '../native/addon.js'
import { callNative } from '../native/call.js'
import { putAll } from '../native/encode.js'
import { Tensor } from '../tensor/index.js'
import { synchronous } from '../tensor/tensor.js'
import { asLevel } from '../tensor/transforms.js'
import { mapTree } from './tree.js'

/** A function that a transform takes: synchronous, on tensors, and arrays and objects of tensors. */
// biome-ignore lint/suspicious/noExplicitAny: functions of any arguments are transformed.
export type TensorFunction = (...args: any[]) => any

const call = (run: () => void, read: boolean, ...values: unknown[]): unknown =>
  callNative(run, () => putAll(...values), read)

/**
 * Run `body` inside a level of a transform. Levels belong to this thread and are libtorch's own (functorch), so a call of
 * another transform inside nests, and what is thrown closes the level.
 */
export function atLevel<T>(
  kind: 'grad' | 'jvp' | 'vmap',
  body: (level: number) => T,
  batchSize = 0,
  randomness = 'error',
): T {
  const level = call(native.enterTransform, true, kind, batchSize, randomness) as number
  try {
    return asLevel(() => body(level))
  } finally {
    call(native.leaveTransform, false, level)
  }
}

/** Run a transformed function, which must be synchronous. */
export function run(where: string, fn: TensorFunction, args: readonly unknown[]): unknown {
  return synchronous(fn(...args), `the function of ${where}`)
}

export function requireTransformed(where: string, fn: unknown): void {
  requireFunction(where, 'fn', fn)
}

/** Return `[output, aux]` of a function that returns both. */
export function splitAux(where: string, result: unknown): [unknown, unknown] {
  if (Array.isArray(result) && result.length === 2) return result as [unknown, unknown]
  throw new ConfigError(
    `${where}: expected the function to return [output, aux], since hasAux is true, got something else`,
  )
}

/** Return tensors of a grad or jvp level on the same memory. */
export function wrap(tensors: readonly Tensor[], level: number, requiresGrad: boolean): Tensor[] {
  return call(native.wrapTensors, true, tensors, level, requiresGrad) as Tensor[]
}

/** Return a tree with tensors of a level in place of its tensors. */
export function wrapTree(tree: unknown, level: number, requiresGrad: boolean): unknown {
  return mapTree(tree, (leaf) => (leaf instanceof Tensor ? wrap([leaf], level, requiresGrad)[0] : leaf))
}

/** Return a tree with the tensors outside of a level in place of the level's. */
export function unwrapTree(tree: unknown, level: number): unknown {
  return mapTree(tree, (leaf) =>
    leaf instanceof Tensor ? (call(native.unwrapTensors, true, [leaf], level) as Tensor[])[0] : leaf,
  )
}

export const batch = (tensor: Tensor, dim: number, level: number): Tensor =>
  call(native.batchTensor, true, tensor, dim, level) as Tensor

export const unbatch = (tensor: Tensor, level: number, batchSize: number, outDim: number): Tensor =>
  call(native.unbatchTensor, true, tensor, level, batchSize, outDim) as Tensor

/** Return the gradients of `inputs`, computed and recorded on this thread; zeros for those that no output depends on. */
export function gradientsHere(outputs: Tensor[], inputs: Tensor[], gradOutputs: Tensor[] = []): Tensor[] {
  return call(native.gradientsHere, true, outputs, inputs, gradOutputs) as Tensor[]
}

export function requireFloating(where: string, what: string, tensors: readonly Tensor[]): void {
  for (const { dtype } of tensors) {
    if (/^(b?float|complex)/.test(dtype)) continue
    throw new DTypeError(`${where}: expected ${what} to be floating point, since it is differentiated, got ${dtype}`, {
      dtype,
    })
  }
}
