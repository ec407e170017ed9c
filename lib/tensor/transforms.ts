/** Number of levels of function transforms (lib/func) that are open on this thread. Transforms are synchronous. */
let open = 0

/** Return whether the caller runs inside a function transform. */
export const insideTransform = (): boolean => open > 0

/** Run the body of a level of a transform. */
export function asLevel<T>(body: () => T): T {
  open += 1
  try {
    return body()
  } finally {
    open -= 1
  }
}
