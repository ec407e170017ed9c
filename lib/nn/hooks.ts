import { ConfigError } from '../base/errors.js'
import type { ForwardHook, Module } from './module.js'

type Forward = (...args: unknown[]) => unknown

/** The forward hooks of one module. Its forward is watched only while there are any. */
export class ForwardHooks {
  readonly #module: Module
  readonly #watch: (hooks: ForwardHooks) => () => void
  readonly #hooks = new Set<{ hook: ForwardHook }>()
  #stop: (() => void) | undefined

  /** @param watch has each forward pass go through `run` or `runAsync`, and returns what ends that */
  constructor(module: Module, watch: (hooks: ForwardHooks) => () => void) {
    this.#module = module
    this.#watch = watch
  }

  add(hook: ForwardHook): () => void {
    this.#stop ??= this.#watch(this)
    const entry = { hook }
    this.#hooks.add(entry)
    return () => {
      if (!this.#hooks.delete(entry) || this.#hooks.size > 0) return
      this.#stop?.()
      this.#stop = undefined
    }
  }

  /** The output after all hooks. */
  run(args: unknown[], output: unknown): unknown {
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

  async runAsync(args: unknown[], output: unknown): Promise<unknown> {
    let current = output
    for (const { hook } of [...this.#hooks]) {
      const result = await hook(this.#module, args, current)
      if (result !== undefined) current = result
    }
    return current
  }
}

/** Puts an own `forward` before that of the module's class, which runs the hooks; returns what takes it away. */
export function wrapForward(module: Module, hooks: ForwardHooks): () => void {
  const forward = module.forward as Forward
  const own = Object.getOwnPropertyDescriptor(module, 'forward')
  const value = (...args: unknown[]): unknown => {
    const output = Reflect.apply(forward, module, args)
    return output instanceof Promise ? output.then((result) => hooks.runAsync(args, result)) : hooks.run(args, output)
  }
  Object.defineProperty(module, 'forward', { value, configurable: true, writable: true, enumerable: false })
  return () => {
    if (own) Object.defineProperty(module, 'forward', own)
    else Reflect.deleteProperty(module, 'forward')
  }
}
