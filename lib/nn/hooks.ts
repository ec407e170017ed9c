import { ConfigError } from '../native/errors.js'
import type { ForwardHook, Module } from './module.js'

type Forward = (...args: unknown[]) => unknown

/** The forward hooks of one module, which wrap its `forward` only while there are any. */
export class ForwardHooks {
  #module: Module
  #hooks = new Set<{ hook: ForwardHook }>()

  constructor(module: Module) {
    this.#module = module
  }

  add(hook: ForwardHook): () => void {
    const entry = { hook }
    if (this.#hooks.size === 0) this.#wrap()
    this.#hooks.add(entry)
    return () => {
      if (this.#hooks.delete(entry) && this.#hooks.size === 0) this.#unwrap()
    }
  }

  #own: PropertyDescriptor | undefined

  #wrap(): void {
    const module = this.#module
    const forward = module.forward as Forward
    this.#own = Object.getOwnPropertyDescriptor(module, 'forward')
    const value = (...args: unknown[]): unknown => {
      const output = Reflect.apply(forward, module, args)
      return output instanceof Promise ? output.then((result) => this.#runAsync(args, result)) : this.#run(args, output)
    }
    Object.defineProperty(module, 'forward', { value, configurable: true, writable: true, enumerable: false })
  }

  #unwrap(): void {
    if (this.#own) Object.defineProperty(this.#module, 'forward', this.#own)
    else Reflect.deleteProperty(this.#module, 'forward')
  }

  #run(args: unknown[], output: unknown): unknown {
    let current = output
    for (const { hook } of [...this.#hooks]) {
      const result = hook(this.#module, args, current)
      if (result instanceof Promise) {
        throw new ConfigError(
          `a forward hook of ${this.#module.constructor.name} returned a promise, but its forward is synchronous`,
          {},
        )
      }
      if (result !== undefined) current = result
    }
    return current
  }

  async #runAsync(args: unknown[], output: unknown): Promise<unknown> {
    let current = output
    for (const { hook } of [...this.#hooks]) {
      const result = await hook(this.#module, args, current)
      if (result !== undefined) current = result
    }
    return current
  }
}
