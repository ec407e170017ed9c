/** The slab number of a handle. */
export let handleOf: (handle: Handle) => number
/** Whether an object is a handle (of any thread's slab; native code tells whose). */
export let isHandle: (value: object) => value is Handle

const OUTSIDE = Symbol('native memory, which no copy of this object would hold: send await tensor.data() and its shape')

/**
 * A JavaScript object that stands for something native: a private number into the thread's slab. Nothing but this file
 * can read the number, so user code can neither forge nor share one.
 */
export class Handle {
  readonly #value: number
  // An own field, though it never changes: structuredClone and postMessage see own fields only, and refuse this one.
  protected readonly memory = OUTSIDE

  constructor(value: number) {
    this.#value = value
  }

  static {
    handleOf = (handle) => handle.#value
    isHandle = (value): value is Handle => #value in value
  }
}
