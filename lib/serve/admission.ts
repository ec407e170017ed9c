import { ApiError } from './api-error.js'

interface Waiting {
  enter: () => void
  refuse: (error: ApiError) => void
}

/** Limits on how many requests run at once and how many wait in a queue. */
export class Admission {
  readonly #most: { running: number; queued: number; seconds: number }
  readonly #queue = new Set<Waiting>()
  #running = 0
  #closed = false

  constructor(running: number, queued: number, seconds: number) {
    this.#most = { running, queued, seconds }
  }

  get running(): number {
    return this.#running
  }

  get queued(): number {
    return this.#queue.size
  }

  /**
   * Wait for a free slot and return the function that releases it, to be called once.
   * @throws ApiError 429 when the queue is full, 503 after the longest wait and once closed
   */
  async enter(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted()
    this.requireCapacity()
    if (this.#running < this.#most.running) this.#running += 1
    else await this.#wait(signal)
    return () => this.#leave()
  }

  /** @throws ApiError 429 when the queue is full, 503 once closed */
  requireCapacity(): void {
    if (this.#closed) throw closing()
    if (this.#running < this.#most.running || this.#queue.size < this.#most.queued) return
    throw new ApiError(
      429,
      `The server is busy: ${this.#running} requests run and ${this.#queue.size} wait. Try again later.`,
      {
        code: 'too_many_requests',
        retryAfter: 1 + this.#queue.size,
      },
    )
  }

  /** Refuse the requests that wait and those that arrive later. */
  close(): void {
    this.#closed = true
    for (const waiting of this.#queue) waiting.refuse(closing())
  }

  #wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const { seconds } = this.#most
      const settle = (finish: () => void) => {
        clearTimeout(timer)
        signal.removeEventListener('abort', abort)
        this.#queue.delete(waiting)
        finish()
      }
      const waiting: Waiting = { enter: () => settle(resolve), refuse: (error) => settle(() => reject(error)) }
      const abort = () => settle(() => reject(signal.reason))
      const timer = setTimeout(() => {
        const facts = { code: 'queue_timeout', retryAfter: Math.ceil(seconds) }
        waiting.refuse(
          new ApiError(503, `The request waited ${seconds} s and no slot became free. Try again later.`, facts),
        )
      }, seconds * 1000)
      signal.addEventListener('abort', abort)
      this.#queue.add(waiting)
    })
  }

  /** Hand the slot to the request that has waited longest. */
  #leave(): void {
    const [next] = this.#queue
    if (next === undefined) this.#running -= 1
    else next.enter()
  }
}

const closing = () => new ApiError(503, 'The server is shutting down.', { code: 'shutting_down', retryAfter: 5 })
