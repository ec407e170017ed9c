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
