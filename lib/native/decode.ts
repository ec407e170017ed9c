import { ConfigError } from '../base/errors.js'
import {
  BIGINT,
  BOOL,
  COMPLEX,
  cells,
  DOUBLE,
  INLINE,
  integers,
  LIST,
  MODULE,
  NULL,
  NUMBER,
  OBJECT,
  SAME,
  TENSOR,
  UNDEFINED,
} from './buffer.js'
import { isOptions } from './encode.js'
import { type Handle, handleOf, isHandle } from './handle.js'
import { freeWhenForgotten, ModuleHandle, wrapTensor } from './objects.js'

let at = 0

/**
 * Decode the value at `place`. Its tensors belong to the scope; if an operator returned one of its arguments, this returns that
 * same object.
 */
export function decode(place: number, scope: number, args: ArrayLike<unknown> = [], self?: Handle): unknown {
  at = place
  return take(scope, args, self)
}

/** Decode the first values starting at `place`. */
export function decodeSeveral(place: number, count: number, scope: number): unknown[] {
  at = place
  const values: unknown[] = []
  for (let i = 0; i < count; i += 1) values.push(take(scope, [], undefined))
  return values
}

/** Decode the cell at `at` and advance. */
function take(scope: number, args: ArrayLike<unknown>, self: Handle | undefined): unknown {
  const tag = cells[at]!
  const value = cells[at + 1]!
  at += 2
  switch (tag) {
    case TENSOR:
      return wrapTensor(value, scope)
    case SAME:
      return sameArgument(value, args, self)
    case NULL:
      return null
    case UNDEFINED:
      return undefined
    case NUMBER:
    case DOUBLE:
    case OBJECT: // a generator, which lib/tensor wraps
      return value
    case BOOL:
      return value !== 0
    case BIGINT:
      return integers[at - 1]
    case COMPLEX: {
      const im = cells[at + 1]!
      at += 2
      return { re: value, im }
    }
    case INLINE: {
      let text = ''
      for (let i = 0; i < value; i += 1) text += String.fromCharCode(cells[at + i]!)
      at += value + (value & 1)
      return text
    }
    case MODULE: {
      const module = new ModuleHandle(value)
      freeWhenForgotten(module)
      return module
    }
    case LIST: {
      const list: unknown[] = new Array(value)
      for (let i = 0; i < value; i += 1) list[i] = take(scope, args, self)
      return list
    }
    default:
      throw new ConfigError(`decode: expected a known tag from native code, got ${tag}`)
  }
}

function sameArgument(handle: number, args: ArrayLike<unknown>, self: Handle | undefined): unknown {
  if (self !== undefined && handleOf(self) === handle) return self
  for (let i = 0; i < args.length; i += 1) {
    const arg = args[i]
    if (typeof arg !== 'object' || arg === null) continue
    if (isHandle(arg)) {
      if (handleOf(arg) === handle) return arg
    } else if (isOptions(arg)) {
      for (const value of Object.values(arg)) {
        if (typeof value === 'object' && value !== null && isHandle(value) && handleOf(value) === handle) return value
      }
    }
  }
  return null
}
