import { ConfigError } from '../base/errors.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { Module } from './module.js'

/** A module that makes one tensor of one tensor. */
export type Layer = Module & { forward(input: Tensor): Tensor }

/** Modules by number, of which training and saving know. It has no forward. */
export class ModuleList<M extends Module = Module> extends Module implements Iterable<M> {
  #modules: M[]

  constructor(modules: Iterable<M> = []) {
    super()
    if (typeof modules !== 'object' || modules === null || !(Symbol.iterator in modules)) {
      throw new ConfigError(`a ${this.constructor.name} is made of a list of modules`, {})
    }
    this.#modules = [...modules]
    for (const module of this.#modules) requireModule(this, module)
  }

  protected override members(): Iterable<[string, unknown]> {
    return this.#modules.map((module, index) => [String(index), module])
  }

  get length(): number {
    return this.#modules.length
  }

  protected override get joinsAlike(): boolean {
    return true
  }

  /** Negative numbers count from the end. */
  at(index: number): M {
    const module = this.#modules.at(index)
    if (!module) throw new ConfigError(`no module ${index} in a list of ${this.length}`, { index })
    return module
  }

  push(...modules: M[]): this {
    for (const module of modules) requireModule(this, module)
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

  protected override get joinsAlike(): boolean {
    return false
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
  #modules = new Map<string, M>()

  constructor(modules: Record<string, M> = {}) {
    super()
    if (typeof modules !== 'object' || modules === null) {
      throw new ConfigError('a ModuleDict is made of an object of modules', {})
    }
    for (const [name, module] of Object.entries(modules)) this.set(name, module)
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
    if (typeof name !== 'string' || name === '' || name.includes('.')) {
      throw new ConfigError(`a module's name must not be empty or contain a dot: '${String(name)}'`, { name })
    }
    requireModule(this, module)
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

function requireModule(container: Module, value: unknown): void {
  if (value instanceof Module) return
  throw new ConfigError(
    `a ${container.constructor.name} holds modules, not ${value === null ? 'null' : typeof value}`,
    {},
  )
}
