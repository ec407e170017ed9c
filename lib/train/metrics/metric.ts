import { elementsOf, isList, misuse, requireFunction, requireObject, requireString } from '../../base/check.js'
import { ConfigError, DataError } from '../../base/errors.js'

/** What a metric is made of. `S` is what it remembers of the samples: an object of numbers, strings and lists of them. */
export interface MetricDefinition<P, R, S extends object, V> {
  /** Says what is measured, with the settings that matter: only states of the same name are put together. */
  name: string
  /** The statistics of no sample. */
  empty(): S
  /** The statistics of some samples. */
  measure(predictions: P, references: R): S
  /** Adds `from` to `into`, which it changes; `from` stays as it is. */
  merge(into: S, from: S): void
  compute(statistics: S): V
}

/** What a metric has seen, as plain data: `JSON.stringify` keeps it, and so does a message to another thread or rank. */
export interface MetricState<S extends object = object> {
  metric: string
  statistics: S
}

/**
 * A metric over samples that come batch by batch:
 *
 * ```ts
 * const metric = new WordErrorRate()
 * for (const batch of batches) metric.update(batch.hypotheses, batch.references)
 * metric.compute().wer
 * ```
 *
 * Here the predictions come first, as in most training loops; the functions beside the classes take their arguments in
 * the order of the library that they equal. Several ranks send each other `state()` and `merge` what they get: the
 * result is that of all samples together. A metric of your own is `new Metric({ … })`.
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
   * Adds samples. When they are refused, nothing of the batch is added.
   * @throws DataError as the metric's function
   */
  update(predictions: P, references: R): this {
    this.#definition.merge(this.#statistics, this.#definition.measure(predictions, references))
    return this
  }

  /** The metric of all samples since the beginning or `reset()`; it can be asked for at any time. */
  compute(): V {
    return this.#definition.compute(this.#statistics)
  }

  reset(): void {
    this.#statistics = this.#definition.empty()
  }

  /** A copy of what the metric has seen. */
  state(): MetricState<S> {
    return { metric: this.name, statistics: structuredClone(this.#statistics) }
  }

  /**
   * Goes on from a state, in place of what the metric has seen.
   * @throws ConfigError when it is another metric's; DataError when it is damaged
   */
  loadState(state: MetricState<S>): void {
    this.#statistics = this.#checked(state)
  }

  /** Adds what another metric has seen, such as the same metric on another rank. Throws as `loadState`. */
  merge(other: MetricState<S> | Metric<P, R, S, V>): this {
    const state = other instanceof Metric ? other.state() : other
    this.#definition.merge(this.#statistics, this.#checked(state))
    return this
  }

  #checked(state: MetricState<S>): S {
    requireObject(this.name, 'state', state)
    if (state.metric !== this.name) {
      throw new ConfigError(`A state of the metric '${state.metric}' was given to '${this.name}'`, {
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
      throw new DataError(`The state of the metric '${this.name}' is damaged: ${why}`, { metric: this.name, cause })
    }
    return statistics
  }
}

/** Checks data against the shape of empty statistics. JSON writes NaN and infinities as null, which are read as NaN. */
function restored(shape: unknown, value: unknown, path: string): unknown {
  if (typeof shape === 'number') {
    if (value === null) return Number.NaN
    if (typeof value === 'number') return value
    throw new DataError(`${path} is no number`)
  }
  if (Array.isArray(shape)) {
    if (!Array.isArray(value)) throw new DataError(`${path} is no list`)
    if (shape.length === 0) return value
    if (value.length !== shape.length) throw new DataError(`${path} has ${value.length} items, not ${shape.length}`)
    return shape.map((item, i) => restored(item, value[i], `${path}[${i}]`))
  }
  if (typeof shape !== 'object' || shape === null) {
    if (typeof value === typeof shape) return value
    throw new DataError(`${path} is no ${typeof shape}`)
  }
  if (typeof value !== 'object' || value === null) throw new DataError(`${path} is no object`)
  return Object.fromEntries(
    Object.entries(shape).map(([key, item]) => [
      key,
      restored(item, (value as Record<string, unknown>)[key], `${path}.${key}`),
    ]),
  )
}

/** Adds numbers and lists of numbers key by key: `merge` of a metric that only counts. */
export function addCounts<S extends object>(into: S, from: S): void {
  const target = into as Record<string, number | number[]>
  for (const [key, value] of Object.entries(from) as [string, number | number[]][]) {
    const sum = target[key]
    if (Array.isArray(sum)) for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + (value as number[])[i]!
    else target[key] = (sum as number) + (value as number)
  }
}

/** Texts, one for each sample. */
export function textsOf(where: string, role: string, values: readonly string[] | string): readonly string[] {
  const list = typeof values === 'string' ? [values] : values
  if (!isList(list)) throw misuse(where, role, 'a text or an array of texts', values)
  return elementsOf(where, role, list, (text, i) => {
    if (typeof text === 'string') return text
    throw new DataError(`${role}[${i}] of ${where} is no text`, { role, index: i })
  })
}

/** For each sample one or more reference texts. */
export function referencesOf(where: string, values: readonly (string | readonly string[])[]): readonly string[][] {
  if (!isList(values)) {
    throw misuse(where, 'references', 'an array with a text or an array of texts for each sample', values)
  }
  return elementsOf(where, 'references', values, (value, i) => {
    const wrong = () =>
      new DataError(`references[${i}] of ${where} is neither a text nor a list of at least one text`, { index: i })
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
  throw new DataError(`${where} was given ${predictions} predictions and ${references} references`, {
    predictions,
    references,
  })
}
