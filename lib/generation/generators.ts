/**
 * Yield the values of a generator, and run each of its steps inside `within`: a mode or an adapter of a network, which other code may change
 * between steps. Leaving the loop ends the generator.
 */
export async function* eachStep<T>(
  steps: AsyncGenerator<T, void, void>,
  within: (step: () => Promise<IteratorResult<T, void>>) => Promise<IteratorResult<T, void>>,
): AsyncGenerator<T, void, void> {
  try {
    for (;;) {
      const { done, value } = await within(() => steps.next())
      if (done) return
      yield value as T
    }
  } finally {
    await steps.return()
  }
}

/** Yield what `map` returns for the values of a generator, except undefined, and return the generator's result. */
export async function* mapped<T, U, R>(
  source: AsyncGenerator<T, R, void>,
  map: (value: T) => U | undefined,
): AsyncGenerator<U, R, void> {
  try {
    for (;;) {
      const { value, done } = await source.next()
      if (done) return value
      const result = map(value)
      if (result !== undefined) yield result
    }
  } finally {
    await source.return(undefined as R)
  }
}
