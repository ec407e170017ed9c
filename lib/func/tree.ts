import { ConfigError } from '../base/errors.js'
import { withArticle } from '../base/words.js'
import { Tensor } from '../tensor/index.js'

/** Values nested in arrays and plain objects, as transforms take and return them. */
export type Tree = unknown

const isObject = (value: unknown): value is Record<string, unknown> => {
  if (typeof value !== 'object' || value === null || value instanceof Tensor) return false
  const prototype = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

/** Deepest nesting of arguments: more than any function has, and less than the call stack allows. */
const DEEPEST = 100

/** Return a tree of the same form with `change(leaf)` in place of each leaf. */
export function mapTree(tree: Tree, change: (leaf: unknown) => unknown, depth = 0): Tree {
  if (depth > DEEPEST) {
    throw new ConfigError(`func: expected arguments of at most ${DEEPEST} levels, got more. Is one inside itself?`)
  }
  if (Array.isArray(tree)) return tree.map((item) => mapTree(item, change, depth + 1))
  if (!isObject(tree)) return change(tree)
  return Object.fromEntries(Object.entries(tree).map(([name, item]) => [name, mapTree(item, change, depth + 1)]))
}

/** Return the leaves of a tree, in order. */
export function leavesOf(tree: Tree): unknown[] {
  const leaves: unknown[] = []
  mapTree(tree, (leaf) => leaves.push(leaf))
  return leaves
}

/** Return the leaves of a tree, all of which must be tensors. */
export function tensorsOf(where: string, what: string, tree: Tree): Tensor[] {
  const leaves = leavesOf(tree)
  const wrong = leaves.findIndex((leaf) => !(leaf instanceof Tensor))
  if (wrong >= 0 || leaves.length === 0) {
    const found = leaves.length === 0 ? 'none' : describe(leaves[wrong])
    throw new ConfigError(`${where}: expected ${what} to be a tensor, or arrays and objects of tensors, got ${found}`)
  }
  return leaves as Tensor[]
}

/** Return a tree of the same form with these leaves. */
export function treeLike(tree: Tree, leaves: readonly unknown[]): Tree {
  let next = 0
  return mapTree(tree, () => {
    next += 1
    return leaves[next - 1]
  })
}

/** Return one value for each leaf of `tree`: `values` is one value for all leaves, or a tree that begins like `tree`. */
export function spreadOver<T>(where: string, values: Tree, tree: Tree, isValue: (value: unknown) => value is T): T[] {
  if (isValue(values)) return leavesOf(tree).map(() => values)
  const items = Array.isArray(tree) ? [...tree.entries()] : isObject(tree) ? Object.entries(tree) : undefined
  const found = Array.isArray(values) ? values : isObject(values) ? values : undefined
  const fits = items !== undefined && found !== undefined && Array.isArray(tree) === Array.isArray(found)
  if (!fits || Object.keys(found).length !== items.length) {
    throw new ConfigError(
      `${where}: expected one value, or a value for each argument in the same form, got ${describe(values)}`,
    )
  }
  return items.flatMap(([name, item]) => spreadOver(where, (found as Record<string, unknown>)[name], item, isValue))
}

export function describe(value: unknown): string {
  if (value instanceof Tensor) return 'a tensor'
  if (value === null) return 'null'
  return Array.isArray(value) ? `an array of ${value.length}` : withArticle(typeof value)
}
