import { JinjaError, LIMITS, typeError, unsupported, valueError, Work } from './errors.js'
import { filters } from './filters.js'
import { globals } from './globals.js'
import type { Arguments, Expression, Filter, For, MacroNode, Statement, Template } from './nodes.js'
import { Access, call, setAttribute } from './objects.js'
import { binary, unary } from './operators.js'
import { tests } from './tests.js'
import {
  type CallArguments,
  Callable,
  compare,
  contains,
  Dict,
  equal,
  fromOutside,
  Instance,
  isText,
  iterate,
  length,
  Namespace,
  ordered,
  rawText,
  slice,
  str,
  Tuple,
  toList,
  truthy,
  typeName,
  Undefined,
  type Value,
} from './values.js'

/** Variables of a scope; others are looked up in its parent. */
class Scope {
  /** Boxed values; null is a parameter without a value yet, which differs from a box with None. */
  readonly #values = new Map<string, { value: Value } | null>()

  constructor(readonly parent: Scope | null) {}

  get(name: string): Value | undefined {
    for (let scope: Scope | null = this; scope !== null; scope = scope.parent) {
      const found = scope.#values.get(name)
      if (found !== undefined) return found?.value
    }
    return undefined
  }

  set(name: string, value: Value): void {
    this.#values.set(name, { value })
  }

  /** Hide the variable of that name of the parents. */
  reserve(name: string): void {
    this.#values.set(name, null)
  }
}

class Output {
  text = ''
}

type Signal = 'break' | 'continue' | undefined

/** Ranges of the `generation` blocks in the rendered text, in UTF-16 units. */
export type Generated = [start: number, end: number][]

/** Interpreter of one rendering of a template. */
export class Interpreter {
  readonly work = new Work()
  readonly access = new Access(this.work)
  readonly generated: Generated = []
  readonly #top = new Output()
  readonly #root: Scope

  constructor(
    readonly template: Template,
    variables: Readonly<Record<string, unknown>>,
    readonly now: () => Date = () => new Date(),
  ) {
    const context = new Scope(null)
    for (const [name, value] of globals(this)) context.set(name, value)
    for (const [name, value] of Object.entries(variables)) {
      if (value !== undefined) context.set(name, fromOutside(value, this.work))
    }
    context.set('self', new Self(this))
    this.#root = new Scope(context)
  }

  run(): string {
    this.#body(this.template.body, this.#root, this.#top)
    return this.#top.text
  }

  /** Render a block, for `self.name()`. */
  block(name: string): string | undefined {
    const body = this.template.blocks.get(name)
    return body && this.#captured(body, this.#blockScope(name, this.#root))
  }

  knows(kind: 'filter' | 'test', name: string): boolean {
    return (kind === 'filter' ? filters : tests).has(name)
  }

  filter(name: string, value: Value, callArgs: CallArguments): Value {
    const filter = filters.get(name)
    if (filter === undefined) throw new JinjaError('TemplateRuntimeError', `No filter named '${name}' found.`)
    return filter(this, value, callArgs)
  }

  test(name: string, value: Value, callArgs: CallArguments): boolean {
    const test = tests.get(name)
    if (test === undefined) throw new JinjaError('TemplateRuntimeError', `No test named '${name}' found.`)
    return test(this, value, callArgs)
  }

  // Statements

  #body(body: readonly Statement[], scope: Scope, output: Output): Signal {
    for (const statement of body) {
      const signal = this.#statement(statement, scope, output)
      if (signal !== undefined) return signal
    }
    return undefined
  }

  #write(output: Output, text: string): void {
    output.text += text
    this.work.spend(text.length / 8)
    if (output.text.length > LIMITS.text) this.work.text(output.text.length)
  }

  #captured(body: readonly Statement[], scope: Scope): string {
    const output = new Output()
    this.#body(body, scope, output)
    return output.text
  }

  #statement(node: Statement, scope: Scope, output: Output): Signal {
    this.work.spend(1)
    try {
      return this.#run(node, scope, output)
    } catch (error) {
      throw placed(error, node)
    }
  }

  #run(node: Statement, scope: Scope, output: Output): Signal {
    switch (node.type) {
      case 'data':
        this.#write(output, node.text)
        return undefined
      case 'output':
        for (const value of node.values) this.#write(output, str(this.#value(value, scope), this.work))
        return undefined
      case 'if':
        for (const [test, body] of node.branches) {
          if (truthy(this.#value(test, scope))) return this.#body(body, scope, output)
        }
        return this.#body(node.otherwise, scope, output)
      case 'for':
        return this.#for(node, scope, output)
      case 'set': {
        this.#checkNamespaces(node.target, scope)
        this.#assign(node.target, this.#value(node.value, scope), scope)
        return undefined
      }
      case 'setblock': {
        const inner = new Scope(scope)
        const captured = new Output()
        const signal = this.#body(node.body, inner, captured)
        if (signal !== undefined) return signal
        const value = node.filter === null ? captured.text : this.#filtered(node.filter, inner, captured.text)
        this.#assign(node.target, value, scope)
        return undefined
      }
      case 'with': {
        const inner = new Scope(scope)
        const values = node.values.map((value) => this.#value(value, scope))
        for (const [i, target] of node.targets.entries()) this.#assign(target, values[i]!, inner)
        return this.#body(node.body, inner, output)
      }
      case 'macro':
        scope.set(node.name!, this.#macro(node, scope))
        return undefined
      case 'callblock': {
        const caller = this.#macro(node.caller, scope)
        const callArgs = this.#arguments(node.call, scope)
        const callee = this.#value(node.call.callee, scope)
        callArgs.kwargs.set('caller', caller)
        this.#write(output, str(this.#called(callee, callArgs), this.work))
        return undefined
      }
      case 'generation': {
        const start = this.#top.text.length
        const text = str(this.#called(this.#macro(node.body, scope), { args: [], kwargs: new Map() }), this.work)
        this.generated.push([start, start + text.length])
        this.#write(output, text)
        return undefined
      }
      case 'filterblock': {
        const inner = new Scope(scope)
        const captured = new Output()
        const signal = this.#body(node.body, inner, captured)
        if (signal !== undefined) return signal
        this.#write(output, str(this.#filtered(node.filter, inner, captured.text), this.work))
        return undefined
      }
      case 'block':
        if (node.required) throw new JinjaError('TemplateRuntimeError', `Required block '${node.name}' not found`)
        return this.#body(node.body, this.#blockScope(node.name, node.scoped ? scope : this.#root), output)
      case 'break':
      case 'continue':
        return node.type
      case 'absent':
        throw unsupported(`the tag '${node.tag}'`)
    }
  }

  #blockScope(name: string, parent: Scope): Scope {
    const scope = new Scope(parent)
    scope.set('super', new Undefined(`there is no parent block called '${name}'.`))
    return scope
  }

  #for(node: For, scope: Scope, output: Output): Signal {
    if (!node.recursive) {
      return this.#loop(node, this.#value(node.items, scope), scope, output, 0, undefined)
    }
    const recurse = (items: Value, depth: number): string => {
      this.work.enter()
      const inner = new Output()
      this.#loop(node, items, scope, inner, depth, recurse)
      this.work.leave()
      return inner.text
    }
    this.#write(output, recurse(this.#value(node.items, scope), 0))
    return undefined
  }

  #loop(
    node: For,
    iterable: Value,
    scope: Scope,
    output: Output,
    depth: number,
    recurse: ((items: Value, depth: number) => string) | undefined,
  ): Signal {
    const all = iterate(iterable, this.work)
    const items = node.test === undefined ? all : this.#tested(node, all, scope)
    const loop = new Loop(items, node.test === undefined ? iterable : null, depth, recurse, this.work)
    // As in jinja2, an iteration that `continue` or `break` ends does not count.
    let finished = false
    for (;;) {
      const item = loop.advance()
      if (item === undefined) break
      this.work.spend(1)
      const inner = new Scope(scope)
      inner.set('loop', loop)
      this.#assign(node.target, item, inner)
      const signal = this.#body(node.body, inner, output)
      if (signal === 'break') break
      if (signal === undefined) finished = true
    }
    return finished || node.otherwise.length === 0 ? undefined : this.#body(node.otherwise, new Scope(scope), output)
  }

  *#tested(node: For, items: Iterator<Value>, scope: Scope): Generator<Value> {
    for (let item = items.next(); !item.done; item = items.next()) {
      const inner = new Scope(scope)
      this.#assign(node.target, item.value, inner)
      // jinja2 rebuilds the item from the unpacked variables.
      if (truthy(this.#value(node.test!, inner))) yield this.#rebuilt(node.target, item.value, inner)
    }
  }

  #rebuilt(target: Expression, item: Value, scope: Scope): Value {
    if (target.type !== 'tuple') return item
    return new Tuple(
      target.items.map((one) => (one.type === 'name' ? scope.get(one.name)! : this.#rebuilt(one, null, scope))),
    )
  }

  #checkNamespaces(target: Expression, scope: Scope): void {
    if (target.type === 'tuple') for (const item of target.items) this.#checkNamespaces(item, scope)
    if (target.type === 'attribute' && !(scope.get(target.namespace) instanceof Namespace)) {
      throw new JinjaError('TemplateRuntimeError', 'cannot assign attribute on non-namespace object')
    }
  }

  #assign(target: Expression, value: Value, scope: Scope): void {
    if (target.type === 'name') scope.set(target.name, value)
    else if (target.type === 'attribute') {
      const namespace = scope.get(target.namespace)
      if (!(namespace instanceof Namespace)) throw typeError(`'${typeName(namespace ?? null)}' object does not support item assignment`) // biome-ignore format: one line
      setAttribute(namespace, target.name, value)
    } else if (target.type === 'tuple') {
      const wanted = target.items.length
      const items: Value[] = []
      if (value instanceof Undefined || !isUnpackable(value)) {
        if (!(value instanceof Undefined)) throw typeError(`cannot unpack non-iterable ${typeName(value)} object`)
      } else {
        const iterator = iterate(value, this.work)
        for (let item = iterator.next(); !item.done; item = iterator.next()) {
          if (items.length === wanted) throw valueError(`too many values to unpack (expected ${wanted})`)
          items.push(item.value)
        }
      }
      if (items.length < wanted) {
        throw valueError(`not enough values to unpack (expected ${wanted}, got ${items.length})`)
      }
      for (const [i, item] of target.items.entries()) this.#assign(item, items[i]!, scope)
    }
  }

  // Macros

  #macro(node: MacroNode, scope: Scope): Callable {
    const { parameters, defaults, body, takes } = node
    const described = node.name === null ? '<Macro anonymous>' : `<Macro '${node.name}'>`
    const quoted = node.name === null ? 'None' : `'${node.name}'`
    return new Macro(described, node, ({ args, kwargs: named }) => {
      const kwargs = new Map(named)
      const inner = new Scope(scope)
      for (const name of parameters) inner.reserve(name)
      const values = parameters.map((name, i) => {
        if (i < args.length) return args[i]
        const value = kwargs.get(name)
        kwargs.delete(name)
        return value
      })
      if (takes.caller && !parameters.includes('caller')) {
        const caller = kwargs.get('caller')
        kwargs.delete('caller')
        inner.set('caller', caller === undefined || caller === null ? new Undefined('No caller defined') : caller)
      }
      if (takes.kwargs) inner.set('kwargs', Dict.of(kwargs))
      else if (kwargs.size > 0) {
        if (kwargs.has('caller')) {
          throw typeError(
            `macro ${quoted} was invoked with two values for the special caller argument. This is most likely a bug.`,
          )
        }
        throw typeError(`macro ${quoted} takes no keyword argument '${[...kwargs.keys()][0]}'`)
      }
      if (takes.varargs) inner.set('varargs', new Tuple(args.slice(parameters.length)))
      else if (args.length > parameters.length) {
        throw typeError(`macro ${quoted} takes not more than ${parameters.length} argument(s)`)
      }
      // A default may read parameters, including later ones if they were passed.
      for (const [i, name] of parameters.entries()) if (values[i] !== undefined) inner.set(name, values[i]!)
      for (const [i, name] of parameters.entries()) {
        if (values[i] !== undefined) continue
        const standard = defaults[i - (parameters.length - defaults.length)]
        inner.set(
          name,
          standard === undefined ? new Undefined(`parameter '${name}' was not provided`) : this.#value(standard, inner),
        )
      }
      return this.#captured(body, inner)
    })
  }

  #called(callee: Value, callArgs: CallArguments): Value {
    this.work.enter()
    const result = call(callee, callArgs)
    this.work.leave()
    return result
  }

  // Expressions

  #value(node: Expression, scope: Scope): Value {
    this.work.spend(1)
    if (node.type === 'const') return node.value
    try {
      return this.#evaluate(node, scope)
    } catch (error) {
      throw placed(error, node)
    }
  }

  #evaluate(node: Expression, scope: Scope): Value {
    const { work } = this
    switch (node.type) {
      case 'const':
        return node.value
      case 'name':
        return defined(scope.get(node.name), () => Undefined.named(node.name))
      case 'list':
        return node.items.map((item) => this.#value(item, scope))
      case 'tuple':
        return new Tuple(node.items.map((item) => this.#value(item, scope)))
      case 'dict': {
        const dict = new Dict()
        for (const [key, value] of node.items) {
          const name = this.#value(key, scope)
          dict.set(name, this.#value(value, scope))
        }
        return dict
      }
      case 'concat': {
        let text = ''
        let longest = 0
        for (const item of node.items.map((one) => this.#value(one, scope))) {
          const part = str(item, work)
          text += part
          longest = Math.max(longest, part.length)
          work.joined(text.length, text.length)
        }
        work.joined(text.length, longest)
        return text
      }
      case 'condition':
        if (truthy(this.#value(node.test, scope))) return this.#value(node.value, scope)
        if (node.otherwise !== undefined) return this.#value(node.otherwise, scope)
        return new Undefined(
          `the inline if-expression on line ${node.line} evaluated to false and no else section was defined.`,
        )
      case 'binary': {
        const left = this.#value(node.left, scope)
        if (node.operator === 'and') return truthy(left) ? this.#value(node.right, scope) : left
        if (node.operator === 'or') return truthy(left) ? left : this.#value(node.right, scope)
        return binary(node.operator, left, this.#value(node.right, scope), work)
      }
      case 'unary': {
        const value = this.#value(node.value, scope)
        return node.operator === 'not' ? !truthy(value) : unary(node.operator, value)
      }
      case 'compare': {
        let left = this.#value(node.first, scope)
        for (const [operator, expression] of node.rest) {
          const right = this.#value(expression, scope)
          if (!compared(operator, left, right, work)) return false
          left = right
        }
        return true
      }
      case 'getattr':
        return this.access.attribute(this.#value(node.value, scope), node.name)
      case 'getitem': {
        const value = this.#value(node.value, scope)
        const { index } = node
        if (index.type !== 'slice') return this.access.item(value, this.#value(index, scope))
        const bounds = [index.start, index.stop, index.step].map((bound) => bound && this.#value(bound, scope))
        return slice(value, bounds, work)
      }
      case 'slice':
        throw unsupported('a slice among several indices')
      case 'call': {
        const callee = this.#value(node.callee, scope)
        return this.#called(callee, this.#arguments(node, scope))
      }
      case 'filter':
        return this.#filtered(node, scope, null)
      case 'test': {
        const value = this.#value(node.value, scope)
        return this.test(node.name, value, this.#arguments(node, scope))
      }
      case 'attribute':
        throw unsupported('an attribute as a target')
    }
  }

  /** @param block input of a filter in a `filter` block */
  #filtered(node: Filter, scope: Scope, block: string | null): Value {
    this.work.spend(1)
    const value =
      node.value === null
        ? block!
        : node.value.type === 'filter'
          ? this.#filtered(node.value, scope, block)
          : this.#value(node.value, scope)
    try {
      return this.filter(node.name, value, this.#arguments(node, scope))
    } catch (error) {
      throw placed(error, node)
    }
  }

  #arguments(node: Arguments, scope: Scope): CallArguments {
    const args = node.args.map((one) => this.#value(one, scope))
    const kwargs = new Map<string, Value>()
    for (const [name, value] of node.kwargs) kwargs.set(name, this.#value(value, scope))
    if (node.dynArgs) args.push(...this.#spread(this.#value(node.dynArgs, scope)))
    if (node.dynKwargs) {
      const more = this.#value(node.dynKwargs, scope)
      if (!(more instanceof Dict)) throw typeError(`argument after ** must be a mapping, not ${typeName(more)}`)
      for (const [name, value] of more.entries()) {
        if (!isText(name)) throw typeError('keywords must be strings')
        if (kwargs.has(rawText(name))) throw typeError(`got multiple values for keyword argument '${rawText(name)}'`)
        kwargs.set(rawText(name), value)
      }
    }
    return { args, kwargs }
  }

  #spread(value: Value): Value[] {
    const items = toList(value, this.work)
    // Arguments become those of a JavaScript function, whose number is limited.
    if (items.length > MAX_SPREAD) throw new JinjaError('Limit', `passes more than ${MAX_SPREAD} arguments`)
    return items
  }
}

const MAX_SPREAD = 10_000

/** Whether a value is undefined; None is not. */
const defined = (value: Value | undefined, otherwise: () => Value): Value => (value === undefined ? otherwise() : value)

function compared(operator: string, left: Value, right: Value, work: Work): boolean {
  switch (operator) {
    case '==':
      return equal(left, right, work)
    case '!=':
      return !equal(left, right, work)
    case 'in':
      return contains(right, left, work)
    case 'not in':
      return !contains(right, left, work)
    default:
      return ordered(operator, compare(left, right, operator, work))
  }
}

const isUnpackable = (value: Value): boolean =>
  !(value === null || typeof value === 'boolean' || typeof value === 'bigint' || typeof value === 'number') &&
  !(value instanceof Namespace || value instanceof Callable || value instanceof Instance)

/** Add the position of the innermost node to an error. */
function placed(error: unknown, node: { line: number; column: number }): unknown {
  if (error instanceof JinjaError && error.line === undefined) {
    error.line = node.line
    error.column = node.column
  }
  return error
}

class Macro extends Callable {
  constructor(
    shown: string,
    readonly node: MacroNode,
    run: (callArgs: CallArguments) => Value,
  ) {
    super(shown, run)
  }

  override attribute(name: string): Value | undefined {
    const { parameters, takes } = this.node
    switch (name) {
      case 'name':
        return this.node.name
      case 'arguments':
        return new Tuple(parameters)
      case 'catch_kwargs':
        return takes.kwargs
      case 'catch_varargs':
        return takes.varargs
      case 'caller':
        return takes.caller
      case 'explicit_caller':
        return parameters.includes('caller')
      default:
        return undefined
    }
  }
}

/** jinja2's variable `loop`. */
class Loop extends Instance {
  override readonly typeName = 'LoopContext'
  #index = -1
  #length: number | undefined
  #ahead: Value | undefined
  #current: Value | undefined
  #before: Value | undefined
  #changed: Value | undefined

  constructor(
    private items: Iterator<Value>,
    /** The iterated value, for its length. */
    private readonly iterable: Value,
    private readonly depth: number,
    private readonly recurse: ((items: Value, depth: number) => string) | undefined,
    private readonly work: Work,
  ) {
    super()
  }

  /** Move to the next item; return undefined at the end. */
  advance(): Value | undefined {
    const item = this.#peek()
    this.#ahead = undefined
    if (item === undefined) return undefined
    this.#index++
    this.#before = this.#current
    this.#current = item
    return item
  }

  #peek(): Value | undefined {
    if (this.#ahead === undefined) {
      const { done, value } = this.items.next()
      if (!done) this.#ahead = value
    }
    return this.#ahead
  }

  override length(): number {
    if (this.#length === undefined) {
      if (this.iterable !== null && !isIterator(this.iterable)) this.#length = length(this.iterable, this.work)
      else {
        const rest: Value[] = []
        for (let item = this.items.next(); !item.done; item = this.items.next()) rest.push(item.value)
        this.work.items(rest.length)
        this.items = rest.values()
        this.#length = rest.length + this.#index + 1 + (this.#ahead === undefined ? 0 : 1)
      }
    }
    return this.#length
  }

  override text(): string {
    return `<LoopContext ${this.#index + 1}/${this.length()}>`
  }

  override attribute(name: string): Value | undefined {
    const index = this.#index
    switch (name) {
      case 'index0':
        return BigInt(index)
      case 'index':
        return BigInt(index + 1)
      case 'revindex0':
        return BigInt(this.length() - index - 1)
      case 'revindex':
        return BigInt(this.length() - index)
      case 'length':
        return BigInt(this.length())
      case 'first':
        return index === 0
      case 'last':
        return this.#peek() === undefined
      case 'depth':
        return BigInt(this.depth + 1)
      case 'depth0':
        return BigInt(this.depth)
      case 'previtem':
        return index === 0 ? new Undefined('there is no previous item') : this.#before
      case 'nextitem':
        return defined(this.#peek(), () => new Undefined('there is no next item'))
      case 'cycle':
        return new Callable('<bound method LoopContext.cycle>', ({ args }) => {
          if (args.length === 0) throw typeError('no items for cycling given')
          return args[index % args.length]!
        })
      case 'changed':
        return new Callable('<bound method LoopContext.changed>', ({ args }) => {
          const value = new Tuple(args)
          if (this.#changed !== undefined && equal(this.#changed, value, this.work)) return false
          this.#changed = value
          return true
        })
      default:
        return undefined
    }
  }

  override call({ args }: CallArguments): Value {
    if (this.recurse === undefined) {
      throw typeError("The loop must have the 'recursive' marker to be called recursively.")
    }
    if (args.length !== 1) throw typeError('loop() takes one argument')
    return this.recurse(args[0]!, this.depth + 1)
  }
}

const isIterator = (value: Value): boolean => typeName(value) === 'generator' || typeName(value).endsWith('iterator')

/** jinja2's variable `self`, whose items are the blocks. */
class Self extends Instance {
  override readonly typeName = 'TemplateReference'

  constructor(readonly interpreter: Interpreter) {
    super()
  }

  override text(): string {
    return '<TemplateReference None>'
  }

  override attribute(name: string): Value | undefined {
    if (!this.interpreter.template.blocks.has(name)) return undefined
    return new Callable('<jinja2.runtime.BlockReference object>', () => this.interpreter.block(name)!)
  }
}
