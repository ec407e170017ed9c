import { Module } from '../../../nn/module.js'
import type { Device } from '../../../tensor/index.js'

/** Where a part is: on its device as long as somebody works with it, and between that on the CPU. */
export class Residence {
  readonly #modules: Module[]
  readonly #device: Device | undefined
  #guests = 0

  /** @param device undefined: the part stays where it is */
  constructor(parts: readonly unknown[], device: Device | undefined) {
    this.#modules = parts.filter((part) => part instanceof Module)
    this.#device = device
  }

  /** Leave it by `using`. @throws what moving throws, such as for a device without room: then it is on the CPU again */
  enter(): Disposable {
    if (this.#guests === 0) this.#arrive()
    this.#guests += 1
    let isIn = true
    return {
      [Symbol.dispose]: () => {
        if (!isIn) return
        isIn = false
        if (--this.#guests === 0) this.#move(this.#device && 'cpu')
      },
    }
  }

  #arrive(): void {
    try {
      this.#move(this.#device)
    } catch (error) {
      this.#move('cpu')
      throw error
    }
  }

  #move(device: Device | undefined): void {
    if (device === undefined) return
    for (const module of this.#modules) module.to({ device })
  }
}
