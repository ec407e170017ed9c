/** Counters for `/metrics`, in the text format of Prometheus: https://prometheus.io/docs/instrumenting/exposition_formats/ */
export class Metrics {
  readonly #statuses = new Map<string, number>()
  promptTokens = 0
  cachedTokens = 0
  completionTokens = 0

  /** Count a finished request to the API; the status is 'gone' if its client disconnected. */
  count(status: string): void {
    this.#statuses.set(status, (this.#statuses.get(status) ?? 0) + 1)
  }

  /** Return the metrics as text. @param now current values of gauges, by name */
  text(now: Readonly<Record<string, number>>): string {
    const lines: string[] = []
    const add = (name: string, kind: string, samples: Iterable<readonly [string, number]>) => {
      lines.push(`# TYPE voxtorch_${name} ${kind}`)
      for (const [labels, value] of samples) lines.push(`voxtorch_${name}${labels} ${value}`)
    }
    const one = (value: number): [string, number][] => [['', value]]
    add(
      'requests_total',
      'counter',
      [...this.#statuses].map(([status, count]) => [`{status="${status}"}`, count] as const),
    )
    add('prompt_tokens_total', 'counter', one(this.promptTokens))
    add('cached_prompt_tokens_total', 'counter', one(this.cachedTokens))
    add('completion_tokens_total', 'counter', one(this.completionTokens))
    for (const [name, value] of Object.entries(now)) add(name, 'gauge', one(value))
    return `${lines.join('\n')}\n`
  }
}
