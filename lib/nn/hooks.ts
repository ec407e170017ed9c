import { ConfigError } from '../base/errors.js'
import { isGradEnabled } from '../tensor/index.js'
import { BackwardWatch } from './backward-hooks.js'
import type { Module } from './module.js'

/** Options of the functions that register a hook. */
export interface HookOptions {
  /** Run the hook before the registered ones of the same kind. Default: false. */
  prepend?: boolean
}

/** Kinds of hooks that a module's forward calls. */
export type HookKind = 'forwardPre' | 'forward' | 'fullBackwardPre' | 'fullBackward'

type Forward = (...args: unknown[]) => unknown
// biome-ignore lint/suspicious/noExplicitAny: each kind has its own arguments.
type AnyHook = (...args: any[]) => unknown

// biome-ignore lint/suspicious/noExplicitAny: of either kind.
type Hooks = Iterable<any>

/** Hooks of one kind in the order in which they run. */
export class HookList<H extends AnyHook> implements Iterable<H> {
  #entries: { readonly hook: H }[] = []

  get size(): number {
    return this.#entries.length
  }

  /** Add a hook; returns a function that removes it and returns whether it was there. */
  add(hook: H, prepend = false): () => boolean {
    const entry = { hook }
    this.#entries = prepend ? [entry, ...this.#entries] : [...this.#entries, entry]
    return () => {
      const before = this.#entries.length
      this.#entries = this.#entries.filter((other) => other !== entry)
      return this.#entries.length < before
    }
  }

  /** Iterate over the hooks that are registered now: one may remove itself while it runs. */
  [Symbol.iterator](): Iterator<H> {
    return this.#entries.map(({ hook }) => hook).values()
  }
}

/** Hooks that one module's forward calls. The forward is wrapped only while there are any. */
export class ForwardHooks {
  readonly #module: Module
  readonly #watch: (hooks: ForwardHooks) => () => void
  readonly #hooks: Record<HookKind, HookList<AnyHook>> = {
    forwardPre: new HookList(),
    forward: new HookList(),
    fullBackwardPre: new HookList(),
    fullBackward: new HookList(),
  }
  #stop: (() => void) | undefined

  /** @param watch makes each forward pass call `call`, or `run` after it, and returns a function that stops that */
  constructor(module: Module, watch: (hooks: ForwardHooks) => () => void) {
    this.#module = module
    this.#watch = watch
  }

  add(kind: HookKind, hook: AnyHook, prepend: boolean): () => void {
    this.#stop ??= this.#watch(this)
    const remove = this.#hooks[kind].add(hook, prepend)
    return () => {
      if (!remove() || Object.values(this.#hooks).some(({ size }) => size > 0)) return
      this.#stop?.()
      this.#stop = undefined
    }
  }

  /** Run all hooks around a forward pass, and return its output. */
  call(args: unknown[], forward: Forward): unknown {
    const given = this.#before(args)
    const { fullBackwardPre, fullBackward } = this.#hooks
    const watched = fullBackwardPre.size + fullBackward.size > 0 && isGradEnabled()
    const watch = watched ? new BackwardWatch(this.#module, fullBackwardPre as Hooks, fullBackward as Hooks) : undefined
    const inputs = watch?.inputs(given) ?? given
    const finish = (output: unknown): unknown => (watch ? watch.outputs(output) : output)
    const output = forward(...inputs)
    return output instanceof Promise
      ? output.then((result) => this.#runAsync(inputs, result)).then(finish)
      : finish(this.run(inputs, output))
  }

  /** Return the arguments after all forward pre-hooks. */
  #before(args: unknown[]): unknown[] {
    let current = args
    for (const hook of this.#hooks.forwardPre) {
      const result = hook(this.#module, current)
      if (result instanceof Promise) throw this.#notSynchronous('forward pre-hook')
      if (result !== undefined) current = Array.isArray(result) ? result : [result]
    }
    return current
  }

  /** Return the output after all forward hooks. */
  run(args: unknown[], output: unknown): unknown {
    let current = output
    for (const hook of this.#hooks.forward) {
      const result = hook(this.#module, args, current)
      if (result instanceof Promise) throw this.#notSynchronous('forward hook, since its forward is synchronous')
      if (result !== undefined) current = result
    }
    return current
  }

  async #runAsync(args: unknown[], output: unknown): Promise<unknown> {
    let current = output
    for (const hook of this.#hooks.forward) {
      const result = await hook(this.#module, args, current)
      if (result !== undefined) current = result
    }
    return current
  }

  #notSynchronous(what: string): ConfigError {
    return new ConfigError(
      `${this.#module.constructor.name}: expected a synchronous ${what}, got one that returned a promise`,
      {},
    )
  }
}

/** Shadow the class's `forward` with one that runs the hooks; returns a function that removes it. */
export function wrapForward(module: Module, hooks: ForwardHooks): () => void {
  const forward = module.forward as Forward
  const descriptor = Object.getOwnPropertyDescriptor(module, 'forward')
  const value = (...args: unknown[]): unknown => hooks.call(args, (...inputs) => Reflect.apply(forward, module, inputs))
  Object.defineProperty(module, 'forward', { value, configurable: true, writable: true, enumerable: false })
  return () => {
    if (descriptor) Object.defineProperty(module, 'forward', descriptor)
    else Reflect.deleteProperty(module, 'forward')
  }
}
