import { cat, type Tensor } from '../tensor/index.js'
import { keepForever, scope } from '../tensor/scope.js'

/** Numbers that will be read, by device. */
const waiting = new Map<string, Set<PendingNumber>>()

/**
 * Number on a device, read on demand together with all other pending numbers of that device: each read waits for the device,
 * however small it is.
 */
export class PendingNumber {
  readonly #device: string
  #tensor: Tensor | null
  #value: Promise<number> | null = null
  #known: number | null = null

  /** @param tensor one element, owned by this object from now on; it is filled, or a queued kernel will fill it */
  constructor(tensor: Tensor) {
    this.#device = tensor.device
    this.#tensor = keepForever(tensor)
    const others = waiting.get(tensor.device)
    if (others) others.add(this)
    else waiting.set(tensor.device, new Set([this]))
  }

  async value(): Promise<number> {
    const tensor = this.#tensor
    if (this.#value === null && tensor) await scope(() => readNumbers(tensor.reshape([-1]).slice(0, 0, 0)))
    return this.#value as unknown as Promise<number>
  }

  /** Read the number synchronously; if it was not read yet, the event loop waits. */
  now(): number {
    return this.#known ?? Number(this.#tensor?.item())
  }

  /** Discard the number unread. */
  forget(): void {
    waiting.get(this.#device)?.delete(this)
    this.#tensor?.dispose()
    this.#tensor = null
  }

  /** @internal */
  static async readWith(numbers: Tensor): Promise<number[]> {
    const others = [...(waiting.get(numbers.device) ?? [])]
    const all =
      others.length > 0 ? cat([numbers, ...others.map((one) => (one.#tensor as Tensor).reshape([-1]))]) : numbers
    // On the CPU nothing has to wait for the device, so skip the trip to the executor.
    const read = Promise.resolve(all.device === 'cpu' ? all.dataSync() : all.data()).then((data) =>
      Array.from(data, Number),
    )
    const ownLength = numbers.numel()
    others.forEach((one, i) => {
      waiting.get(numbers.device)?.delete(one)
      one.#value = read.then((found) => {
        one.#known = found[ownLength + i] as number
        one.forget()
        return one.#known
      })
      // The error reaches the code that awaits the value.
      one.#value.catch(() => {})
    })
    return (await read).slice(0, ownLength)
  }
}

/** Read the elements of a tensor [n], together with all pending numbers of its device. */
export const readNumbers = (numbers: Tensor): Promise<number[]> => PendingNumber.readWith(numbers)
