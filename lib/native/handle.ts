/** The slab number of a handle. */
export let handleOf: (handle: Handle) => number
/** Whether an object is a handle (of any thread's slab; native code tells whose). */
export let isHandle: (value: object) => value is Handle

/**
 * A JavaScript object that stands for something native: a private number into the thread's slab. Nothing but this file
 * can read the number, so user code can neither forge nor share one.
 */
export class Handle {
  readonly #value: number

  constructor(value: number) {
    this.#value = value
  }

  static {
    handleOf = (handle) => handle.#value
    isHandle = (value): value is Handle => #value in value
  }
}
