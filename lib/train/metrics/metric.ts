import { argumentError, elementsOf, isList, requireFunction, requireObject, requireString } from '../../base/check.js'
import { ConfigError, DataError } from '../../base/errors.js'

/** Definition of a metric. `S` are its statistics: an object of numbers, strings and lists of them. */
export interface MetricDefinition<P, R, S extends object, V> {
  /** Name of the metric with the settings that matter: only states with the same name can be merged. */
  name: string
  /** Return the statistics of no samples. */
  empty(): S
  /** Return the statistics of some samples. */
  measure(predictions: P, references: R): S
  /** Add `from` to `into` in place; `from` stays unchanged. */
  merge(into: S, from: S): void
  compute(statistics: S): V
}

/** Statistics of a metric as plain data that JSON or a message to another thread or rank can carry. */
export interface MetricState<S extends object = object> {
  metric: string
  statistics: S
}

/**
 * A metric over samples that come batch by batch:
 *
 * ```ts
 * const metric = new WordErrorRateMetric()
 * for (const batch of batches) metric.update(batch.hypotheses, batch.references)
 * metric.compute().wer
 * ```
 *
 * Predictions come first, as in most training loops; the functions next to the classes take their arguments in the order of the
 * library that they reproduce. In several processes, exchange `state()` and `merge` the received states: the result is that of
 * all samples together. To define a metric, use `new Metric({ … })`.
 */
export class Metric<P, R, S extends object, V> {
  readonly #definition: MetricDefinition<P, R, S, V>
  #statistics: S

  constructor(definition: MetricDefinition<P, R, S, V>) {
    requireObject('Metric', 'definition', definition)
    requireString('Metric', 'name', definition.name)
    for (const key of ['empty', 'measure', 'merge', 'compute'] as const) {
      requireFunction('Metric', key, definition[key])
    }
    this.#definition = definition
    this.#statistics = definition.empty()
  }

  get name(): string {
    return this.#definition.name
  }

  /**
   * Add samples. If they are invalid, nothing of the batch is added.
   * @throws DataError as the metric's function
   */
  update(predictions: P, references: R): this {
    this.#definition.merge(this.#statistics, this.#definition.measure(predictions, references))
    return this
  }

  /** Return the metric of all samples since the beginning or `reset()`. */
  compute(): V {
    return this.#definition.compute(this.#statistics)
  }

  reset(): void {
    this.#statistics = this.#definition.empty()
  }

  /** Return a copy of the statistics so far. */
  state(): MetricState<S> {
    return { metric: this.name, statistics: structuredClone(this.#statistics) }
  }

  /**
   * Replace the statistics with a saved state.
   * @throws ConfigError for another metric's state; DataError for a damaged one
   */
  loadState(state: MetricState<S>): void {
    this.#statistics = this.#checked(state)
  }

  /** Add the statistics of another metric, such as the same metric on another rank. Throws as `loadState`. */
  merge(other: MetricState<S> | Metric<P, R, S, V>): this {
    const state = other instanceof Metric ? other.state() : other
    this.#definition.merge(this.#statistics, this.#checked(state))
    return this
  }

  #checked(state: MetricState<S>): S {
    requireObject(this.name, 'state', state)
    if (state.metric !== this.name) {
      throw new ConfigError(`Metric: expected a state of '${this.name}', got one of '${state.metric}'`, {
        metric: state.metric,
      })
    }
    const { empty, merge } = this.#definition
    const statistics = empty()
    try {
      const given = restored(empty(), state.statistics, 'statistics')
      merge(statistics, given as S)
    } catch (cause) {
      if (cause instanceof ConfigError) throw cause
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new DataError(`Metric: expected a valid state of '${this.name}', got a damaged one: ${why}`, {
        metric: this.name,
        cause,
      })
    }
    return statistics
  }
}

/** Check data against the form of empty statistics. JSON writes NaN and infinities as null, which is read as NaN. */
function restored(shape: unknown, value: unknown, path: string): unknown {
  if (typeof shape === 'number') {
    if (value === null) return Number.NaN
    if (typeof value === 'number') return value
    throw new DataError(`expected ${path} to be a number`)
  }
  if (Array.isArray(shape)) {
    if (!Array.isArray(value)) throw new DataError(`expected ${path} to be a list`)
    if (shape.length === 0) return value
    if (value.length !== shape.length)
      throw new DataError(`expected ${path} to have ${shape.length} items, got ${value.length}`)
    return shape.map((item, i) => restored(item, value[i], `${path}[${i}]`))
  }
  if (typeof shape !== 'object' || shape === null) {
    if (typeof value === typeof shape) return value
    throw new DataError(`expected ${path} to be a ${typeof shape}`)
  }
  if (typeof value !== 'object' || value === null) throw new DataError(`expected ${path} to be an object`)
  return Object.fromEntries(
    Object.entries(shape).map(([key, item]) => [
      key,
      restored(item, (value as Record<string, unknown>)[key], `${path}.${key}`),
    ]),
  )
}

/** Add numbers and lists of numbers key by key: the `merge` of a metric that only counts. */
export function addCounts<S extends object>(into: S, from: S): void {
  const target = into as Record<string, number | number[]>
  for (const [key, value] of Object.entries(from) as [string, number | number[]][]) {
    const sum = target[key]
    if (Array.isArray(sum)) for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + (value as number[])[i]!
    else target[key] = (sum as number) + (value as number)
  }
}

/** Return texts, one for each sample, after checking them. */
export function textsOf(where: string, role: string, values: readonly string[] | string): readonly string[] {
  const list = typeof values === 'string' ? [values] : values
  if (!isList(list)) throw argumentError(where, role, 'a text or an array of texts', values)
  return elementsOf(where, role, list, (text, i) => {
    if (typeof text === 'string') return text
    throw new DataError(`${where}: expected ${role}[${i}] to be a string`, { role, index: i })
  })
}

/** One or more reference texts for each sample. */
export type References = readonly (string | readonly string[])[]

/** Return each prediction with its references. @throws DataError if their numbers differ */
export function textPairs(
  where: string,
  role: string,
  predictions: readonly string[],
  references: References,
): (readonly [text: string, references: string[]])[] {
  const texts = textsOf(where, role, predictions)
  const truth = referencesOf(where, references)
  requireSameCount(where, texts.length, truth.length)
  return texts.map((text, i) => [text, truth[i] as string[]])
}

function referencesOf(where: string, values: References): readonly string[][] {
  if (!isList(values)) {
    throw argumentError(where, 'references', 'an array with a text or an array of texts for each sample', values)
  }
  return elementsOf(where, 'references', values, (value, i) => {
    const wrong = () =>
      new DataError(`${where}: expected references[${i}] to be a string or a list of at least one string`, { index: i })
    if (typeof value === 'string') return [value]
    if (!isList(value) || value.length === 0) throw wrong()
    return elementsOf(where, `references[${i}]`, value, (text) => {
      if (typeof text === 'string') return text
      throw wrong()
    })
  })
}

export function requireSameCount(where: string, predictions: number, references: number): void {
  if (predictions === references) return
  throw new DataError(`${where}: expected as many references as predictions, got ${references} and ${predictions}`, {
    predictions,
    references,
  })
}
