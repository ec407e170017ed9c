import type { VoxtorchError } from '../../base/errors.js'
import type { Place } from '../byte-source.js'
import type { Payload } from './feed.js'

/**
 * What stands on the machine's stack beside plain JavaScript values. None of it leaves the reader: result.ts turns it
 * into what the caller gets.
 */

/** How deep lists may be nested. CPython writes no more than about 500: its own stack ends there. */
export const DEEPEST = 10_000

/** What a rebuilding function may ask of the machine that calls it. */
export interface Site {
  readonly place: Place
  /** The byte that reading has got to. */
  readonly position: number
  error(what: string, fields?: Record<string, unknown>): VoxtorchError
  /**
   * Counts items or bytes that are copied. A file may refer to the same long list again and again; copies of it may not
   * grow beyond a small multiple of what was read.
   */
  charge(amount: number): void
}

/** A global name of the allow-list that may be called. What it makes is data. */
export class Callable {
  constructor(
    readonly name: string,
    readonly call: (args: readonly unknown[], site: Site) => unknown,
  ) {}
}

/** A global name of the allow-list that only stands as an argument, such as a type. */
export class Marker {
  constructor(
    readonly name: string,
    /** What it is when it stands as a value of its own; undefined where it cannot. */
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

/** A `str` of Python 2 that is not ASCII: text or bytes, the file does not say. */
export class OldString {
  constructor(
    readonly bytes: Uint8Array | Payload,
    readonly byte: number,
  ) {}
}

/** Something whose state comes later, with BUILD. */
export abstract class Buildable {
  abstract build(state: unknown, site: Site): void
}
