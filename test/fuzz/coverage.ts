/** Code of the library that ran, by V8's counters. */
import type { Profiler } from 'node:inspector'
import { Session } from 'node:inspector/promises'

export class Coverage {
  readonly #session = new Session()
  // V8 merges neighboring blocks with the same count, so its blocks differ from one question to the next; the characters
  // of a function do not.
  readonly #seen = new Map<string, Uint8Array>()
  #characters = 0

  async start(): Promise<void> {
    this.#session.connect()
    await this.#session.post('Profiler.enable')
    await this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
  }

  async stop(): Promise<void> {
    await this.#session.post('Profiler.stopPreciseCoverage')
    this.#session.disconnect()
  }

  /** Covered characters of the library's source. */
  get characters(): number {
    return this.#characters
  }

  /** Whether something ran since the last question that never had before. Counts it as seen when told to. */
  async fresh(remember: boolean): Promise<boolean> {
    const { result } = await this.#session.post('Profiler.takePreciseCoverage')
    const before = this.#characters
    let found = false
    for (const { url, functions } of result) {
      if (!url.includes('/lib/') || url.includes('/node_modules/')) continue
      for (const one of functions) {
        const fresh = this.#compare(`${url}:${one.functionName}:${one.ranges[0]!.startOffset}`, one.ranges, remember)
        found ||= fresh
      }
    }
    return remember ? this.#characters > before : found
  }

  /** Ranges come from the outermost to the innermost. */
  #compare(name: string, ranges: readonly Profiler.CoverageRange[], remember: boolean): boolean {
    const { startOffset, endOffset } = ranges[0]!
    const ran = new Uint8Array(endOffset - startOffset)
    for (const range of ranges) {
      ran.fill(range.count > 0 ? 1 : 0, range.startOffset - startOffset, range.endOffset - startOffset)
    }
    let seen = this.#seen.get(name)
    if (seen === undefined) {
      seen = new Uint8Array(ran.length)
      this.#seen.set(name, seen)
    }
    let fresh = false
    for (let i = 0; i < ran.length; i += 1) {
      if (ran[i] === 0 || seen[i] !== 0) continue
      fresh = true
      if (!remember) break
      seen[i] = 1
      this.#characters += 1
    }
    return fresh
  }
}
