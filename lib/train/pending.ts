import { cat, type Tensor } from '../tensor/index.js'
import { keepForever, scope } from '../tensor/scope.js'

/** What will be asked for, by device. */
const waiting = new Map<string, Set<PendingNumber>>()

/**
 * A number on a device, which is read when it is asked for, or together with whatever is read there before: each reading
 * waits for the device, however little it reads.
 */
export class PendingNumber {
  readonly #device: string
  #tensor: Tensor | null
  #value: Promise<number> | null = null
  #known: number | null = null

  /** @param tensor of one element, which belongs to this from now on; what fills it is done, or queued on the device */
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

  /** The same at once: where it was not read yet, the event loop waits. */
  now(): number {
    return this.#known ?? Number(this.#tensor?.item())
  }

  /** Nobody will ask any more. */
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
    // Reading on the executor is a trip there, which only a wait for a device is worth.
    const read = Promise.resolve(all.device === 'cpu' ? all.dataSync() : all.data()).then((data) =>
      Array.from(data, Number),
    )
    const own = numbers.numel()
    others.forEach((one, i) => {
      waiting.get(numbers.device)?.delete(one)
      one.#value = read.then((found) => {
        one.#known = found[own + i] as number
        one.forget()
        return one.#known
      })
      // Whoever asks will hear of it.
      one.#value.catch(() => {})
    })
    return (await read).slice(0, own)
  }
}

/** The elements of a tensor [n], in one reading with all that is pending on its device. */
export const readNumbers = (numbers: Tensor): Promise<number[]> => PendingNumber.readWith(numbers)
