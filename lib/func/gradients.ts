import { optionsOf } from '../base/arguments.js'
import { ConfigError, ShapeError } from '../base/errors.js'
import { native } from '../native/addon.js'
import { op } from '../native/call.js'
import { handleOf } from '../native/handle.js'
import { enableGrad, scope, Tensor, zerosLike } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'
import {
  atLevel,
  gradientsHere,
  requireFloating,
  requireTransformed,
  run,
  splitAux,
  type TensorFunction,
  unwrapTree,
  wrapTree,
} from './level.js'
import { describe, mapTree, type Tree, tensorsOf, treeLike } from './tree.js'

export interface GradTransformOptions {
  /** Arguments to differentiate: an index, or an array for an array of gradients. Default: 0. */
  argnums?: number | readonly number[]
  /** Whether the function returns `[output, aux]`, where aux is returned as it is. Default: false. */
  hasAux?: boolean
}

/** Check the option and return the arguments that it selects: one tree, or an array of trees. */
export function selected(where: string, argnums: number | readonly number[], args: readonly unknown[]): Tree {
  const pick = (index: number): unknown => {
    const place = index < 0 ? index + args.length : index
    if (Number.isInteger(index) && place >= 0 && place < args.length) return args[place]
    throw new ConfigError(
      `${where}: expected argnums to be in [${-args.length}, ${args.length - 1}] for ${args.length} arguments, got ${String(index)}`,
      { argnums },
    )
  }
  if (typeof argnums === 'number') return pick(argnums)
  if (!Array.isArray(argnums) || argnums.length === 0) {
    throw new ConfigError(`${where}: expected argnums to be an index or an array of indices, got ${describe(argnums)}`)
  }
  return argnums.map(pick)
}

/** Return the arguments with the selected ones replaced. */
export function replaced(argnums: number | readonly number[], args: readonly unknown[], values: Tree): unknown[] {
  const result = [...args]
  const put = (index: number, value: unknown) => {
    result[index < 0 ? index + args.length : index] = value
  }
  if (typeof argnums === 'number') put(argnums, values)
  else for (const [i, index] of argnums.entries()) put(index, (values as unknown[])[i])
  return result
}

/** Return the level's tensors for all arguments; those of the selected ones require a gradient. */
export function differentiable(
  where: string,
  argnums: number | readonly number[],
  args: readonly unknown[],
  level: number,
): { inputs: Tree; tensors: Tensor[]; wrapped: unknown[] } {
  const chosen = selected(where, argnums, args)
  requireFloating(where, 'a differentiated argument', tensorsOf(where, 'a differentiated argument', chosen))
  const inputs = wrapTree(chosen, level, true)
  const wrapped = replaced(
    argnums,
    args.map((arg) => wrapTree(arg, level, false)),
    inputs,
  )
  return { inputs, tensors: tensorsOf(where, 'a differentiated argument', inputs), wrapped }
}

function gradTransform(where: string, fn: TensorFunction, options: GradTransformOptions, withOutput: boolean) {
  requireTransformed(where, fn)
  const { argnums = 0, hasAux = false } = optionsOf(options, where, ['argnums', 'hasAux'])
  return (args: readonly unknown[]): { gradients: Tree; output: unknown; aux: unknown } =>
    scope(() =>
      atLevel('grad', (level) =>
        enableGrad(() => {
          const { inputs, tensors, wrapped } = differentiable(where, argnums, args, level)
          const result = run(where, fn, wrapped)
          const [output, aux] = hasAux ? splitAux(where, result) : [result, undefined]
          if (!(output instanceof Tensor)) {
            throw new ConfigError(
              `${where}: expected the function to return a tensor without dimensions, got ${describe(output)}`,
            )
          }
          if (output.ndim !== 0) {
            throw new ShapeError(
              `${where}: expected the function to return a tensor without dimensions, got shape [${output.shape}]. Use jacrev(), or sum()`,
              { shape: output.shape },
            )
          }
          const gradients = treeLike(inputs, gradientsHere([output], tensors))
          const results = { gradients, output: withOutput ? output : null, aux }
          return unwrapTree(results, level) as { gradients: Tree; output: unknown; aux: unknown }
        }),
      ),
    )
}

/**
 * Return a function that computes the gradient of `fn`, whose output is a tensor without dimensions, for its first argument or
 * those that `argnums` names. The gradient has the form of the argument; with `hasAux` the result is `[gradient, aux]`.
 * Synchronous, on this thread, unlike `backward()`. Like `torch.func.grad`.
 */
export function grad(fn: TensorFunction, options: GradTransformOptions = {}): TensorFunction {
  const transformed = gradTransform('grad', fn, options, false)
  return (...args) => {
    const { gradients, aux } = transformed(args)
    return options.hasAux ? [gradients, aux] : gradients
  }
}

/**
 * Return a function that computes `[gradient, output]` of `fn`, or `[gradient, [output, aux]]` with `hasAux`; see {@link grad}. Like
 * `torch.func.grad_and_value`.
 */
export function gradAndValue(fn: TensorFunction, options: GradTransformOptions = {}): TensorFunction {
  const transformed = gradTransform('gradAndValue', fn, options, true)
  return (...args) => {
    const { gradients, output, aux } = transformed(args)
    return [gradients, options.hasAux ? [output, aux] : output]
  }
}

/** A derivative: from gradients of the output to those of the arguments (`vjp`), or from tangents to tangents (`linearize`). */
export interface Pullback {
  // biome-ignore lint/suspicious/noExplicitAny: both have the forms of the function's result and arguments.
  (...vectors: any[]): any
  /** Free what was recorded for it. Without this, garbage collection does. */
  dispose(): void
  [Symbol.dispose](): void
}

/** Compute `fn` and record it. The pullback's result has the form of the selected arguments. */
export function pullback(
  where: string,
  fn: TensorFunction,
  argnums: number | readonly number[],
  args: readonly unknown[],
  hasAux: boolean,
): { output: Tree; aux: unknown; pull: Pullback } {
  const recorded = scope(() =>
    atLevel('grad', (level) =>
      enableGrad(() => {
        const { inputs, tensors, wrapped } = differentiable(where, argnums, args, level)
        const result = run(where, fn, wrapped)
        const [output, aux] = hasAux ? splitAux(where, result) : [result, undefined]
        const outputs = tensorsOf(where, 'the result of the function', output)
        const values = unwrapTree({ output, aux }, level) as { output: Tree; aux: unknown }
        // The graph hangs on them, and the pullback may outlive every scope.
        const kept = new Set([...outputs, ...tensors])
        for (const tensor of kept) keepForever(tensor)
        return { ...values, inputs, tensors, outputs, kept }
      }),
    ),
  )
  const { output, aux, inputs, tensors, outputs, kept } = recorded
  const pull = (cotangents: Tree): Tree => {
    const seeds = tensorsOf(where, 'the gradient of the result', cotangents)
    const fits =
      seeds.length === outputs.length &&
      seeds.every((seed, i) => seed.shape.join() === (outputs[i] as Tensor).shape.join())
    if (!fits) {
      throw new ShapeError(
        `${where}: expected gradients of shapes ${outputs.map(({ shape }) => `[${shape}]`).join(', ')}, like the result, got ${seeds.map(({ shape }) => `[${shape}]`).join(', ')}`,
      )
    }
    return scope(() => enableGrad(() => treeLike(inputs, gradientsHere(outputs, tensors, seeds))))
  }
  const dispose = () => {
    for (const tensor of kept) native.release(handleOf(tensor))
  }
  return { output, aux, pull: Object.assign(pull, { dispose, [Symbol.dispose]: dispose }) }
}

/**
 * Compute `fn(...primals)` and return `[output, vjpFn]`, or `[output, vjpFn, aux]` with `hasAux`. `vjpFn(cotangents)`, which takes
 * gradients in the form of the output, returns an array of gradients, one for each primal. What was recorded lives until
 * `vjpFn.dispose()` or garbage collection. Like `torch.func.vjp`, with the primals in an array.
 */
export function vjp(
  fn: TensorFunction,
  primals: readonly unknown[],
  options: { hasAux?: boolean } = {},
  // biome-ignore lint/suspicious/noExplicitAny: the results have the form of the arguments.
): [output: any, vjpFn: Pullback, aux?: any] {
  requireTransformed('vjp', fn)
  requireArray('vjp', 'primals', primals)
  const { hasAux = false } = optionsOf(options, 'vjp', ['hasAux'])
  const { output, aux, pull } = pullback('vjp', fn, [...primals.keys()], primals, hasAux)
  return hasAux ? [output, pull, aux] : [output, pull]
}

const makeDual = op('aten::_make_dual')
const unpackDual = op('aten::_unpack_dual')

/** Return the output of `fn`, its forward derivative and aux; `tangents` has the form of `primals`. */
export function pushforward(
  where: string,
  fn: TensorFunction,
  argnums: number | readonly number[],
  args: readonly unknown[],
  tangents: Tree,
  hasAux: boolean,
): { output: Tree; tangent: Tree; aux: unknown } {
  return scope(() =>
    atLevel('jvp', (level) => {
      const chosen = selected(where, argnums, args)
      const primals = tensorsOf(where, 'a differentiated argument', chosen)
      requireFloating(where, 'a differentiated argument', primals)
      const directions = tensorsOf(where, 'a tangent', tangents)
      if (directions.length !== primals.length) {
        throw new ConfigError(
          `${where}: expected a tangent for each of ${primals.length} primals, got ${directions.length}`,
        )
      }
      const duals = primals.map((primal, i) => {
        const direction = directions[i] as Tensor
        if (direction.shape.join() === primal.shape.join()) return makeDual(primal, direction, 0)
        throw new ShapeError(
          `${where}: expected a tangent of its primal's shape [${primal.shape}], got [${direction.shape}]`,
          { shape: direction.shape },
        )
      })
      const wrapped = args.map((arg) => wrapTree(arg, level, false))
      const result = run(where, fn, replaced(argnums, wrapped, treeLike(chosen, duals)))
      const [output, aux] = hasAux ? splitAux(where, result) : [result, undefined]
      tensorsOf(where, 'the result of the function', output)
      const parts = (pick: (dual: { primal: Tensor; tangent: Tensor | null }) => Tensor): Tree =>
        mapTree(output, (leaf) => pick(unpackDual(leaf, 0) as { primal: Tensor; tangent: Tensor | null }))
      return unwrapTree(
        {
          output: parts(({ primal }) => primal),
          tangent: parts(({ primal, tangent }) => tangent ?? zerosLike(primal)),
          aux: mapTree(aux, (leaf) => (leaf instanceof Tensor ? unpackDual(leaf, 0).primal : leaf)),
        },
        level,
      ) as { output: Tree; tangent: Tree; aux: unknown }
    }),
  )
}

/**
 * Compute `fn(...primals)` and its derivative in the direction of `tangents`, by forward differentiation: `[output, tangent]`, or
 * `[output, tangent, aux]` with `hasAux`. Both arrays have one entry per argument. Like `torch.func.jvp`.
 */
export function jvp(
  fn: TensorFunction,
  primals: readonly unknown[],
  tangents: readonly unknown[],
  options: { hasAux?: boolean } = {},
  // biome-ignore lint/suspicious/noExplicitAny: the results have the form of the function's.
): [output: any, tangent: any, aux?: any] {
  requireTransformed('jvp', fn)
  requireArray('jvp', 'primals', primals)
  requireArray('jvp', 'tangents', tangents)
  const { hasAux = false } = optionsOf(options, 'jvp', ['hasAux'])
  const { output, tangent, aux } = pushforward('jvp', fn, [...primals.keys()], primals, tangents, hasAux)
  return hasAux ? [output, tangent, aux] : [output, tangent]
}

/**
 * Compute `fn(...primals)` once and return `[output, jvpFn]`, where `jvpFn(...tangents)` is the derivative at the primals in a
 * direction, without another run of `fn`. It differentiates the backward pass, so each operator needs a second derivative. What was
 * recorded lives until `jvpFn.dispose()` or garbage collection. Like `torch.func.linearize`, with the primals in an array.
 */
export function linearize(
  fn: TensorFunction,
  primals: readonly unknown[],
  // biome-ignore lint/suspicious/noExplicitAny: the results have the form of the function's.
): [output: any, jvpFn: Pullback] {
  requireTransformed('linearize', fn)
  requireArray('linearize', 'primals', primals)
  return scope(() => {
    const { output, pull } = pullback('linearize', fn, [...primals.keys()], primals, false)
    // The pullback is linear, and its own pullback is the forward derivative.
    const zeros = mapTree(output, (leaf) => zerosLike(leaf as Tensor))
    const { pull: push } = pullback('linearize', pull, 0, [zeros], false)
    const dispose = () => {
      push.dispose()
      pull.dispose()
    }
    const derivative = (...tangents: unknown[]) => push(tangents)
    return [output, Object.assign(derivative, { dispose, [Symbol.dispose]: dispose })]
  })
}

export function requireArray(where: string, what: string, value: unknown): asserts value is readonly unknown[] {
  if (Array.isArray(value)) return
  throw new ConfigError(`${where}: expected ${what} to be an array with one entry per argument, got ${describe(value)}`)
}
