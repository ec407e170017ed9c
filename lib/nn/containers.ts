import { ConfigError } from '../native/errors.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { Module } from './module.js'

/** A module that makes one tensor of one tensor. */
export type Layer = Module & { forward(input: Tensor): Tensor }

/** Modules by number, of which training and saving know. It has no forward. */
export class ModuleList<M extends Module = Module> extends Module implements Iterable<M> {
  #modules: M[]

  constructor(modules: Iterable<M> = []) {
    super()
    this.#modules = [...modules]
  }

  protected override members(): Iterable<[string, unknown]> {
    return this.#modules.map((module, index) => [String(index), module])
  }

  get length(): number {
    return this.#modules.length
  }

  /** Negative numbers count from the end. */
  at(index: number): M {
    const module = this.#modules.at(index)
    if (!module) throw new ConfigError(`no module ${index} in a list of ${this.length}`, { index })
    return module
  }

  push(...modules: M[]): this {
    this.#modules.push(...modules)
    return this
  }

  [Symbol.iterator](): ArrayIterator<M> {
    return this.#modules.values()
  }
}

/** Runs modules one after the other, each on the result of the one before; in the state dictionary by number. */
export class Sequential extends ModuleList<Layer> {
  constructor(...modules: Layer[]) {
    super(modules)
  }

  override forward(input: Tensor): Tensor {
    if (this.length === 0) return ops.dropout(input, 0, false)
    return scope(() => {
      let output = input
      for (const module of this) output = module.forward(output)
      return output
    })
  }
}

/** Modules by name, of which training and saving know. It has no forward. */
export class ModuleDict<M extends Module = Module> extends Module implements Iterable<[string, M]> {
  #modules: Map<string, M>

  constructor(modules: Record<string, M> | Iterable<[string, M]> = {}) {
    super()
    this.#modules = new Map(Symbol.iterator in modules ? modules : Object.entries(modules))
  }

  protected override members(): Iterable<[string, unknown]> {
    return this.#modules
  }

  at(name: string): M {
    const module = this.#modules.get(name)
    if (!module)
      throw new ConfigError(`no module '${name}', there are ${[...this.#modules.keys()].join(', ')}`, { name })
    return module
  }

  has(name: string): boolean {
    return this.#modules.has(name)
  }

  set(name: string, module: M): this {
    if (name === '' || name.includes('.')) {
      throw new ConfigError(`a module's name must not be empty or contain a dot: '${name}'`, { name })
    }
    this.#modules.set(name, module)
    return this
  }

  keys(): MapIterator<string> {
    return this.#modules.keys()
  }

  [Symbol.iterator](): MapIterator<[string, M]> {
    return this.#modules.entries()
  }
}
