import type { VoxtorchError } from '../../base/errors.js'
import type { Place } from '../byte-source.js'
import type { Payload } from './feed.js'

/**
 * Objects on the machine's stack in addition to plain JavaScript values. None of them leaves the reader: result.ts converts
 * them to the caller's result.
 */

/** Maximum nesting of lists. CPython writes at most about 500, the limit of its own stack. */
export const DEEPEST = 10_000

/** Services of the machine for a rebuilding function that it calls. */
export interface Site {
  readonly place: Place
  /** Current byte of the input. */
  readonly position: number
  error(what: string, fields?: Record<string, unknown>): VoxtorchError
  /**
   * Count copied items or bytes. A file may refer to the same long list many times; copies of it may not exceed a small
   * multiple of what was read.
   */
  charge(amount: number): void
}

/** A global name of the allow-list that may be called. Its result is data. */
export class Callable {
  constructor(
    readonly name: string,
    readonly call: (args: readonly unknown[], site: Site) => unknown,
  ) {}
}

/** A global name of the allow-list that may only be an argument, such as a type. */
export class Marker {
  constructor(
    readonly name: string,
    /** Its value when it occurs alone; undefined if it cannot. */
    readonly value?: string,
  ) {}
}

/** A dict of any kind. */
export class PyDict extends Map<unknown, unknown> {
  result: object | undefined
}

/** An instance of a class that is read as its fields. */
export class PyRecord extends PyDict {
  constructor(readonly className: string) {
    super()
  }
}

/** A `str` of Python 2 that is not ASCII: the file does not say whether it is text or bytes. */
export class OldString {
  constructor(
    readonly bytes: Uint8Array | Payload,
    readonly byte: number,
  ) {}
}

/** An object whose state comes later, with BUILD. */
export abstract class Buildable {
  abstract build(state: unknown, site: Site): void
}
