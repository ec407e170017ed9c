/** Return the slab index of a handle. */
export let handleOf: (handle: Handle) => number
/** Return whether an object is a handle (of any thread's slab; native code determines which). */
export let isHandle: (value: object) => value is Handle

const OUTSIDE = Symbol('native memory, which no copy of this object would hold: send await tensor.data() and its shape')

/**
 * A JavaScript object for a native one: a private index into the thread's slab. Only this file can read the index, so user code
 * can neither forge nor share one.
 */
export class Handle {
  readonly #value: number
  // An own field, although it never changes: structuredClone and postMessage only see own fields, and reject this one.
  protected readonly memory = OUTSIDE

  constructor(value: number) {
    this.#value = value
  }

  static {
    handleOf = (handle) => handle.#value
    isHandle = (value): value is Handle => #value in value
  }
}
