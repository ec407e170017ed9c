import { AsyncResource } from 'node:async_hooks'
import { ConfigError } from '../../base/errors.js'
import { scope } from '../../tensor/index.js'
import { isEmpty, type Sent, sendAhead } from './loss.js'
import { encodeRng, rngState, type SeededGenerators } from './rng.js'

/** Batches of one step, alive until they are released. */
export interface Taken<B> {
  own: B[]
  /** First batch, on its way to the device. */
  first: Sent<B> | null
  release(): Promise<void>
}

/** Number of consecutive takes without random numbers after which batches are prefetched. */
const QUIET = 2

/**
 * Prefetches the batches of an epoch, one step at a time. On a GPU the batches of the next step are taken, and the first one
 * sent, while this step computes. Batches that draw random numbers are not prefetched, since a resumed run would draw in
 * another order.
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
    // Run in the scope of the epoch, independent of the caller's.
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

  /** Take the next batches now, if prefetching is allowed. */
  begin(): void {
    if (this.#quiet !== QUIET || this.#device === 'cpu' || this.#next) return
    this.#next = this.#take()
    // `next()` throws the error.
    this.#next.catch(() => {})
  }

  /** Release the batches that were not used. */
  async close(): Promise<void> {
    const begun = this.#next
    this.#next = null
    if (begun) await begun.then(({ release }) => release()).catch(() => {})
  }

  #drawn(): string {
    return scope(() => JSON.stringify(encodeRng(rngState(this.#generators))))
  }
}

/** Take up to `count` batches in a scope that stays open until they are released. */
function held<B>(batches: AsyncIterator<B>, count: number, device: string): Promise<Taken<B>> {
  let letGo = () => {}
  const wanted = new Promise<void>((resolve) => {
    letGo = resolve
  })
  return new Promise((resolve, reject) => {
    const closed: Promise<void> = scope(async () => {
      const takenBatches = await take(batches, count)
      const [first] = takenBatches
      const sent = device === 'cpu' || first === undefined || isEmpty(first) ? null : await sendAhead(first, device)
      resolve({
        own: takenBatches,
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

/** Take up to `count` batches. */
async function take<B>(batches: AsyncIterator<B>, count: number): Promise<B[]> {
  const taken: B[] = []
  while (taken.length < count) {
    const next = await batches.next()
    if (next.done) break
    if (next.value === undefined)
      throw new ConfigError('Trainer.collate: expected a batch, got undefined. Return the batch from collate.', {
        argument: 'collate',
      })
    taken.push(next.value)
  }
  return taken
}
