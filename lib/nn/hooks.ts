import { ConfigError } from '../base/errors.js'
import type { ForwardHook, Module } from './module.js'

type Forward = (...args: unknown[]) => unknown

/** Forward hooks of one module. Its forward is wrapped only while it has hooks. */
export class ForwardHooks {
  readonly #module: Module
  readonly #watch: (hooks: ForwardHooks) => () => void
  readonly #hooks = new Set<{ hook: ForwardHook }>()
  #stop: (() => void) | undefined

  /** @param watch makes each forward pass call `run` or `runAsync`, and returns a function that stops that */
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

  /** Return the output after all hooks. */
  run(args: unknown[], output: unknown): unknown {
    let current = output
    for (const { hook } of [...this.#hooks]) {
      const result = hook(this.#module, args, current)
      if (result instanceof Promise) {
        throw new ConfigError(
          `${this.#module.constructor.name}: expected a synchronous forward hook, since its forward is synchronous, got one that returned a promise`,
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

/** Shadow the class's `forward` with one that runs the hooks; returns a function that removes it. */
export function wrapForward(module: Module, hooks: ForwardHooks): () => void {
  const forward = module.forward as Forward
  const descriptor = Object.getOwnPropertyDescriptor(module, 'forward')
  const value = (...args: unknown[]): unknown => {
    const output = Reflect.apply(forward, module, args)
    return output instanceof Promise ? output.then((result) => hooks.runAsync(args, result)) : hooks.run(args, output)
  }
  Object.defineProperty(module, 'forward', { value, configurable: true, writable: true, enumerable: false })
  return () => {
    if (descriptor) Object.defineProperty(module, 'forward', descriptor)
    else Reflect.deleteProperty(module, 'forward')
  }
}
