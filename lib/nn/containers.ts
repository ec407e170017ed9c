import { ConfigError } from '../base/errors.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { Module } from './module.js'

/** Module that maps one tensor to one tensor. */
export type Layer = Module & { forward(input: Tensor): Tensor }

/** List of modules, which are registered as children. It has no forward. */
export class ModuleList<M extends Module = Module> extends Module implements Iterable<M> {
  #modules: M[]

  constructor(modules: Iterable<M> = []) {
    super()
    if (typeof modules !== 'object' || modules === null || !(Symbol.iterator in modules)) {
      throw new ConfigError(`${this.constructor.name}: expected a list of modules`, {})
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

  /** Return a module by index; negative indices count from the end. */
  at(index: number): M {
    const module = this.#modules.at(index)
    if (!module)
      throw new ConfigError(`${this.constructor.name}.at: expected an index below ${this.length}, got ${index}`, {
        index,
      })
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

/** Runs modules in sequence, each on the previous one's result; in the state dictionary they are numbered. */
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

/** Modules by name, which are registered as children. It has no forward. */
export class ModuleDict<M extends Module = Module> extends Module implements Iterable<[string, M]> {
  #modules = new Map<string, M>()

  constructor(modules: Record<string, M> = {}) {
    super()
    if (typeof modules !== 'object' || modules === null) {
      throw new ConfigError('ModuleDict: expected an object of modules', {})
    }
    for (const [name, module] of Object.entries(modules)) this.set(name, module)
  }

  protected override members(): Iterable<[string, unknown]> {
    return this.#modules
  }

  at(name: string): M {
    const module = this.#modules.get(name)
    if (!module)
      throw new ConfigError(`ModuleDict.get: expected one of ${[...this.#modules.keys()].join(', ')}, got '${name}'`, {
        name,
      })
    return module
  }

  has(name: string): boolean {
    return this.#modules.has(name)
  }

  set(name: string, module: M): this {
    if (typeof name !== 'string' || name === '' || name.includes('.')) {
      throw new ConfigError(
        `ModuleDict: expected a module name without dots that is not empty, got '${String(name)}'`,
        { name },
      )
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
    `${container.constructor.name}: expected a Module, got ${value === null ? 'null' : typeof value}`,
    {},
  )
}
