import { AsyncResource } from 'node:async_hooks'
import { ConfigError } from '../../base/errors.js'
import { scope } from '../../tensor/index.js'
import { isEmpty, type Sent, sendAhead } from './loss.js'
import { encodeRng, rngState, type SeededGenerators } from './rng.js'

/** The batches of a step, which live until they are released. */
export interface Taken<B> {
  own: B[]
  /** The first of them, on its way to the device. */
  first: Sent<B> | null
  release(): Promise<void>
}

/** Takes so often without random numbers, and batches are taken ahead. */
const QUIET = 2

/**
 * Batches of an epoch, a step's at a time. On a GPU the next step's are taken, and the first of them sent, while this one
 * computes; not where batches draw random numbers, which a run that resumes would draw in another order.
 */
export class BatchesAhead<B> {
  readonly #device: string
  readonly #generators: SeededGenerators
  readonly #take: () => Promise<Taken<B>>
  #next: Promise<Taken<B>> | null = null
  #quiet = 0

  constructor(
    batches: AsyncIterator<B>,
    { count, device, generators }: { count: number; device: string; generators: SeededGenerators },
  ) {
    this.#device = device
    this.#generators = generators
    // In the scope of the epoch, whoever asks.
    this.#take = AsyncResource.bind(() => held(batches, count, device))
  }

  async next(): Promise<Taken<B>> {
    const begun = this.#next
    this.#next = null
    if (begun) return begun
    if (this.#device === 'cpu' || this.#quiet === QUIET) return this.#take()
    const before = this.#drawn()
    const taken = await this.#take()
    this.#quiet = this.#drawn() === before ? this.#quiet + 1 : Number.NEGATIVE_INFINITY
    return taken
  }

  /** Takes the next ones now, where that may be. */
  begin(): void {
    if (this.#quiet !== QUIET || this.#device === 'cpu' || this.#next) return
    this.#next = this.#take()
    // next() throws it.
    this.#next.catch(() => {})
  }

  /** Releases what nobody will ask for. */
  async close(): Promise<void> {
    const begun = this.#next
    this.#next = null
    if (begun) await begun.then(({ release }) => release()).catch(() => {})
  }

  #drawn(): string {
    return scope(() => JSON.stringify(encodeRng(rngState(this.#generators))))
  }
}

/** Up to `count` batches in a scope that is open until they are released. */
function held<B>(batches: AsyncIterator<B>, count: number, device: string): Promise<Taken<B>> {
  let letGo = () => {}
  const wanted = new Promise<void>((resolve) => {
    letGo = resolve
  })
  return new Promise((resolve, reject) => {
    const closed: Promise<void> = scope(async () => {
      const own = await take(batches, count)
      const [first] = own
      const sent = device === 'cpu' || first === undefined || isEmpty(first) ? null : await sendAhead(first, device)
      resolve({
        own,
        first: sent,
        release: () => {
          letGo()
          return closed
        },
      })
      await wanted
    })
    closed.catch(reject)
  })
}

/** Up to `count` batches. */
async function take<B>(batches: AsyncIterator<B>, count: number): Promise<B[]> {
  const taken: B[] = []
  while (taken.length < count) {
    const next = await batches.next()
    if (next.done) break
    if (next.value === undefined) throw new ConfigError('collate returned nothing for a batch', { argument: 'collate' })
    taken.push(next.value)
  }
  return taken
}
