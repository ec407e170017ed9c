import { ConfigError } from '../base/errors.js'
import { ops, scope, Tensor } from '../tensor/index.js'
import { Module } from './module.js'
import { Parameter } from './parameter.js'

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

  protected override setMember(name: string, value: Tensor | Module): void {
    this.#modules[Number(name)] = value as M
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

  protected override setMember(name: string, value: Tensor | Module): void {
    this.#modules.set(name, value as M)
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
    requireName('ModuleDict', 'module', name)
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

/**
 * List of parameters, whose names in the state dictionary are their indices. Other tensors become parameters on the same memory.
 * It has no forward. Like `torch.nn.ParameterList`.
 */
export class ParameterList extends Module implements Iterable<Tensor> {
  #parameters: Tensor[] = []

  constructor(parameters: Iterable<Tensor> = []) {
    super()
    if (typeof parameters !== 'object' || parameters === null || !(Symbol.iterator in parameters)) {
      throw new ConfigError('ParameterList: expected a list of tensors', {})
    }
    this.push(...parameters)
  }

  protected override members(): Iterable<[string, unknown]> {
    return this.#parameters.map((parameter, index) => [String(index), parameter])
  }

  protected override setMember(name: string, value: Tensor | Module): void {
    this.#parameters[Number(name)] = value as Tensor
  }

  get length(): number {
    return this.#parameters.length
  }

  /** Return a parameter by index; negative indices count from the end. */
  at(index: number): Parameter {
    const parameter = this.#parameters.at(index)
    if (parameter) return parameter as Parameter
    throw new ConfigError(`ParameterList.at: expected an index below ${this.length}, got ${index}`, { index })
  }

  push(...parameters: Tensor[]): this {
    this.#parameters.push(...parameters.map((parameter) => asParameter('ParameterList', parameter)))
    return this
  }

  [Symbol.iterator](): ArrayIterator<Parameter> {
    return (this.#parameters as Parameter[]).values()
  }
}

/**
 * Parameters by name. Other tensors become parameters on the same memory. It has no forward. Like `torch.nn.ParameterDict`.
 */
export class ParameterDict extends Module implements Iterable<[string, Tensor]> {
  #parameters = new Map<string, Tensor>()

  constructor(parameters: Readonly<Record<string, Tensor>> = {}) {
    super()
    if (typeof parameters !== 'object' || parameters === null) {
      throw new ConfigError('ParameterDict: expected an object of tensors', {})
    }
    for (const [name, parameter] of Object.entries(parameters)) this.set(name, parameter)
  }

  protected override members(): Iterable<[string, unknown]> {
    return this.#parameters
  }

  protected override setMember(name: string, value: Tensor | Module): void {
    this.#parameters.set(name, value as Tensor)
  }

  at(name: string): Parameter {
    const parameter = this.#parameters.get(name)
    if (parameter) return parameter as Parameter
    throw new ConfigError(`ParameterDict.at: expected one of ${[...this.keys()].join(', ')}, got '${name}'`, { name })
  }

  has(name: string): boolean {
    return this.#parameters.has(name)
  }

  set(name: string, parameter: Tensor): this {
    requireName('ParameterDict', 'parameter', name)
    this.#parameters.set(name, asParameter('ParameterDict', parameter))
    return this
  }

  keys(): MapIterator<string> {
    return this.#parameters.keys()
  }

  [Symbol.iterator](): MapIterator<[string, Parameter]> {
    return (this.#parameters as Map<string, Parameter>).entries()
  }
}

function asParameter(container: string, value: unknown): Parameter {
  if (value instanceof Parameter) return value
  if (value instanceof Tensor) return new Parameter(value)
  throw new ConfigError(`${container}: expected a tensor, got ${value === null ? 'null' : typeof value}`, {})
}

function requireName(container: string, what: string, name: unknown): void {
  if (typeof name === 'string' && name !== '' && name !== '__proto__' && !name.includes('.')) return
  throw new ConfigError(`${container}: expected a ${what} name without dots that is not empty, got '${String(name)}'`, {
    name,
  })
}

function requireModule(container: Module, value: unknown): void {
  if (value instanceof Module) return
  throw new ConfigError(
    `${container.constructor.name}: expected a Module, got ${value === null ? 'null' : typeof value}`,
    {},
  )
}
