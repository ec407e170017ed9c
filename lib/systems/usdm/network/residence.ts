import { Module } from '../../../nn/module.js'
import type { Device } from '../../../tensor/index.js'

/** Moves modules to their device while they are in use, and back to the CPU after it. */
export class Residence {
  readonly #modules: Module[]
  readonly #device: Device | undefined
  #guests = 0

  /** @param device undefined: the modules are not moved */
  constructor(parts: readonly unknown[], device: Device | undefined) {
    this.#modules = parts.filter((part) => part instanceof Module)
    this.#device = device
  }

  /** Start using the modules; end it with `using`. @throws the error of moving, such as for a full device; then they are back on the CPU */
  enter(): Disposable {
    if (this.#guests === 0) this.#arrive()
    this.#guests += 1
    let isActive = true
    return {
      [Symbol.dispose]: () => {
        if (!isActive) return
        isActive = false
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
