import { ApiError } from './api-error.js'

interface Waiting {
  enter: () => void
  refuse: (error: ApiError) => void
}

/** Lets so many requests in at once, and so many more wait their turn. */
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
   * Waits for a place and gives the function that leaves it, to be called once.
   * @throws ApiError 429 where too many wait, 503 after the longest wait and once closed
   */
  async enter(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted()
    this.requireRoom()
    if (this.#running < this.#most.running) this.#running += 1
    else await this.#wait(signal)
    return () => this.#leave()
  }

  /** @throws ApiError 429 where too many wait, 503 once closed */
  requireRoom(): void {
    if (this.#closed) throw closing()
    if (this.#running < this.#most.running || this.#queue.size < this.#most.queued) return
    throw new ApiError(429, `${this.#running} requests are worked on and ${this.#queue.size} wait; try again later.`, {
      code: 'too_many_requests',
      retryAfter: 1 + this.#queue.size,
    })
  }

  /** Refuses all that wait and come. */
  close(): void {
    this.#closed = true
    for (const waiting of this.#queue) waiting.refuse(closing())
  }

  #wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const { seconds } = this.#most
      const settle = (finish: () => void) => {
        clearTimeout(timer)
        signal.removeEventListener('abort', gone)
        this.#queue.delete(waiting)
        finish()
      }
      const waiting: Waiting = { enter: () => settle(resolve), refuse: (error) => settle(() => reject(error)) }
      const gone = () => settle(() => reject(signal.reason))
      const timer = setTimeout(() => {
        const facts = { code: 'queue_timeout', retryAfter: Math.ceil(seconds) }
        waiting.refuse(new ApiError(503, `No place was free within ${seconds} s.`, facts))
      }, seconds * 1000)
      signal.addEventListener('abort', gone)
      this.#queue.add(waiting)
    })
  }

  /** Who waited longest takes the place over. */
  #leave(): void {
    const [next] = this.#queue
    if (next === undefined) this.#running -= 1
    else next.enter()
  }
}

const closing = () => new ApiError(503, 'The server is shutting down.', { code: 'shutting_down', retryAfter: 5 })
