import { JinjaError, LIMITS, unsupported } from './errors.js'
import { type Token, type TokenType, tokenize } from './lexer.js'

interface Place {
  line: number
  column: number
}

export interface Arguments {
  args: Expression[]
  kwargs: [string, Expression][]
  dynArgs?: Expression
  dynKwargs?: Expression
}

export type Name = Place & { type: 'name'; name: string; store: boolean }
export type Call = Place & { type: 'call'; callee: Expression } & Arguments
export type Filter = Place & { type: 'filter'; value: Expression | null; name: string } & Arguments
export type Slice = Place & { type: 'slice'; start?: Expression; stop?: Expression; step?: Expression }

export type Expression =
  | (Place & { type: 'const'; value: null | boolean | bigint | number | string })
  | Name
  | (Place & { type: 'attribute'; namespace: string; name: string })
  | (Place & { type: 'tuple' | 'list' | 'concat'; items: Expression[] })
  | (Place & { type: 'dict'; items: [Expression, Expression][] })
  | (Place & { type: 'condition'; test: Expression; value: Expression; otherwise: Expression | undefined })
  | (Place & { type: 'binary'; operator: string; left: Expression; right: Expression })
  | (Place & { type: 'unary'; operator: string; value: Expression })
  | (Place & { type: 'compare'; first: Expression; rest: [string, Expression][] })
  | (Place & { type: 'getattr'; value: Expression; name: string })
  | (Place & { type: 'getitem'; value: Expression; index: Expression })
  | Slice
  | Call
  | Filter
  | (Place & { type: 'test'; value: Expression; name: string } & Arguments)

export interface MacroNode extends Place {
  type: 'macro'
  name: string | null
  parameters: string[]
  /** Defaults of the last parameters. */
  defaults: Expression[]
  body: Statement[]
  /** Special names that the body reads without defining them. */
  takes: { caller: boolean; kwargs: boolean; varargs: boolean }
}

export type For = Place & {
  type: 'for'
  target: Expression
  items: Expression
  body: Statement[]
  otherwise: Statement[]
  test: Expression | undefined
  recursive: boolean
}

export type Statement =
  | (Place & { type: 'data'; text: string })
  | (Place & { type: 'output'; values: Expression[] })
  | (Place & { type: 'if'; branches: [Expression, Statement[]][]; otherwise: Statement[] })
  | For
  | (Place & { type: 'set'; target: Expression; value: Expression })
  | (Place & { type: 'setblock'; target: Expression; filter: Filter | null; body: Statement[] })
  | (Place & { type: 'with'; targets: Expression[]; values: Expression[]; body: Statement[] })
  | MacroNode
  | (Place & { type: 'callblock'; call: Call; caller: MacroNode })
  | (Place & { type: 'generation'; body: MacroNode })
  | (Place & { type: 'filterblock'; filter: Filter; body: Statement[] })
  | (Place & { type: 'block'; name: string; scoped: boolean; required: boolean; body: Statement[] })
  | (Place & { type: 'break' | 'continue' })
  | (Place & { type: 'absent'; tag: string })

export interface Template {
  body: Statement[]
  blocks: Map<string, Statement[]>
}

/**
 * Parse a template as jinja2 does, with transformers' tags `break`, `continue` and `generation`.
 * @throws JinjaError TemplateSyntaxError, or TemplateAssertionError for an unknown filter or test
 */
export function parse(template: string, known: { filters: Known; tests: Known }): Template {
  return new Parser(tokenize(template), known).run()
}

interface Known {
  has(name: string): boolean
}

/** Tags that need other templates, which a chat template does not have. Executing one is an error. */
const absent = new Set(['include', 'import', 'from', 'extends', 'autoescape'])
const comparisons = new Set(['==', '!=', '<', '<=', '>', '>='])
const constants: Record<string, boolean | null> = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
}

class Parser {
  #at = 0
  #depth = 0
  readonly #tags: string[] = []
  readonly #ends: string[][] = []
  readonly #blocks = new Map<string, Statement[]>()
  /** Whether the current statement is inside a loop, for `break` and `continue`. */
  #inLoop = false
  /** Whether the parser is inside an `if`, where an unknown filter or test is an error only when it is executed. */
  #soft = false
  /** Unknown filters and tests outside of conditions: reported after the whole template is parsed. */
  readonly #unknown: { message: string; token: Token }[] = []
  /** Assignments to a variable named `loop`. */
  readonly #loopStores: Place[] = []
  #visits = 0

  constructor(
    readonly tokens: readonly Token[],
    readonly known: { filters: Known; tests: Known },
  ) {}

  run(): Template {
    const body = this.#body([])
    const [unknown] = this.#unknown
    if (unknown !== undefined) this.#fail(unknown.message, unknown.token, 'Assertion')
    return { body, blocks: this.#blocks }
  }

  // Tokens

  get #token(): Token {
    return this.tokens[this.#at]!
  }

  #next(): Token {
    return this.tokens[this.#token.type === 'eof' ? this.#at : this.#at++]!
  }

  #is(type: TokenType, value?: string, ahead = 0): boolean {
    const token = this.tokens[this.#at + ahead]
    return token !== undefined && token.type === type && (value === undefined || token.value === value)
  }

  #skip(type: TokenType, value: string): boolean {
    if (!this.#is(type, value)) return false
    this.#at++
    return true
  }

  #expect(type: TokenType, value?: string): Token {
    if (this.#is(type, value)) return this.#next()
    const wanted = value ?? described({ type, value: type, line: 0, column: 0 })
    const { type: found } = this.#token
    if (found === 'eof') this.#fail(`unexpected end of template, expected '${wanted}'.`)
    this.#fail(`expected token '${wanted}', got '${described(this.#token)}'`)
  }

  #fail(message: string, place: Place = this.#token, kind: 'Syntax' | 'Assertion' = 'Syntax'): never {
    throw new JinjaError(`Template${kind}Error`, message, place)
  }

  #place(): Place {
    const { line, column } = this.#token
    return { line, column }
  }

  #nested<T>(parse: () => T): T {
    if (++this.#depth > LIMITS.nesting) {
      throw new JinjaError('Limit', `nests deeper than ${LIMITS.nesting}`, this.#place())
    }
    const parsed = parse()
    this.#depth--
    return parsed
  }

  // Statements

  #body(ends: string[]): Statement[] {
    return this.#nested(() => {
      const body: Statement[] = []
      if (ends.length > 0) this.#ends.push(ends)
      for (;;) {
        const token = this.#token
        if (token.type === 'eof') break
        this.#at++
        const place = { line: token.line, column: token.column }
        if (token.type === 'data') body.push({ type: 'data', text: token.value, ...place })
        else if (token.type === 'variable_begin') {
          body.push({ type: 'output', values: [this.#tuple()], ...place })
          this.#expect('variable_end')
        } else {
          if (this.#is('name') && ends.includes(this.#token.value)) break
          body.push(this.#statement())
          this.#expect('block_end')
        }
      }
      if (ends.length > 0) this.#ends.pop()
      return body
    })
  }

  /** Parse statements up to one of some tags, whose name is the next token. */
  #statements(...ends: string[]): Statement[] {
    this.#skip('operator', ':')
    this.#expect('block_end')
    const body = this.#body(ends)
    if (this.#token.type === 'eof') this.#unclosed(null, [...this.#ends, ends])
    return body
  }

  /** Parse statements as {@link #statements}, and the tag that ends them. */
  #until(end: string): Statement[] {
    const body = this.#statements(end)
    this.#at++
    return body
  }

  #unclosed(tag: string | null, ends: string[][]): never {
    const last = ends.at(-1)?.map((end) => `'${end}'`).join(' or ') // biome-ignore format: one line
    let message = tag === null ? 'Unexpected end of template.' : `Encountered unknown tag '${tag}'.`
    if (last !== undefined) {
      message +=
        tag !== null && ends.some((names) => names.includes(tag))
          ? ` You probably made a nesting mistake. Jinja is expecting this tag, but currently looking for ${last}.`
          : ` Jinja was looking for the following tags: ${last}.`
    }
    const open = this.#tags.at(-1)
    if (open !== undefined) message += ` The innermost block that needs to be closed is '${open}'.`
    this.#fail(message)
  }

  #statement(): Statement {
    if (!this.#is('name')) this.#fail('tag name expected')
    const place = this.#place()
    const tag = this.#token.value
    if (!tags.has(tag) && !absent.has(tag)) this.#unclosed(tag, this.#ends)
    this.#at++
    this.#tags.push(tag)
    const statement = this.#tagged(tag, place)
    this.#tags.pop()
    return statement
  }

  #tagged(tag: string, place: Place): Statement {
    switch (tag) {
      case 'if':
        return this.#if(place)
      case 'for':
        return this.#for(place)
      case 'set':
        return this.#set(place)
      case 'with':
        return this.#with(place)
      case 'macro':
        return this.#macro(this.#expect('name').value, true, 'endmacro', place)
      case 'call': {
        const caller = this.#signature(this.#is('operator', '('))
        const call = this.#expression()
        if (call.type !== 'call') this.#fail('expected call', place)
        return { type: 'callblock', call, caller: this.#macroBody(null, caller, 'endcall', place), ...place }
      }
      case 'generation':
        return { type: 'generation', body: this.#macro(null, false, 'endgeneration', place), ...place }
      case 'filter': {
        return this.#inner(() => {
          const filter = this.#filter(null, true)!
          return { type: 'filterblock', filter, body: this.#until('endfilter'), ...place }
        })
      }
      case 'block':
        return this.#block(place)
      case 'print': {
        const values: Expression[] = []
        while (!this.#is('block_end')) {
          if (values.length > 0) this.#expect('operator', ',')
          values.push(this.#expression())
        }
        return { type: 'output', values, ...place }
      }
      case 'break':
      case 'continue':
        if (!this.#inLoop) this.#fail(`'${tag}' outside loop`, place)
        return { type: tag, ...place }
      default:
        return this.#absent(tag, place)
    }
  }

  #absent(tag: string, place: Place): Statement {
    // Unsupported tags are parsed, because they are only an error when executed.
    if (tag === 'autoescape') {
      this.#expression()
      this.#until('endautoescape')
    } else while (!this.#is('block_end') && !this.#is('eof')) this.#at++
    return { type: 'absent', tag, ...place }
  }

  #if(place: Place): Statement {
    const soft = this.#soft
    this.#soft = true
    const branches: [Expression, Statement[]][] = []
    let otherwise: Statement[] = []
    for (;;) {
      const test = this.#tuple({ condition: false })
      branches.push([test, this.#statements('elif', 'else', 'endif')])
      const { value } = this.#next()
      if (value === 'elif') continue
      if (value === 'else') otherwise = this.#until('endif')
      break
    }
    this.#soft = soft
    return { type: 'if', branches, otherwise, ...place }
  }

  /** Parse a separate scope, in which unknown filters are errors again. */
  #inner<T>(parse: () => T, inLoop = this.#inLoop): T {
    const [soft, outer] = [this.#soft, this.#inLoop]
    this.#soft = false
    this.#inLoop = inLoop
    const parsed = parse()
    this.#soft = soft
    this.#inLoop = outer
    return parsed
  }

  #for(place: Place): Statement {
    const stores = this.#loopStores.length
    const target = this.#target({ end: 'in' })
    this.#expect('name', 'in')
    const items = this.#tuple({ condition: false, end: 'recursive' })
    const test = this.#skip('name', 'if') ? this.#inner(() => this.#expression()) : undefined
    const recursive = this.#skip('name', 'recursive')
    const body = this.#inner(() => this.#statements('endfor', 'else'), true)
    const hasElse = this.#next().value === 'else'
    const otherwise = hasElse ? this.#inner(() => this.#until('endfor')) : []
    const stored = this.#loopStores[stores]
    if (stored) this.#fail("Can't assign to special loop variable in for-loop target", stored, 'Assertion')
    return { type: 'for', target, items, body, otherwise, test, recursive, ...place }
  }

  #set(place: Place): Statement {
    const target = this.#target({ attributes: true })
    if (this.#skip('operator', '=')) return { type: 'set', target, value: this.#tuple(), ...place }
    return this.#inner(() => {
      const filter = this.#filter(null, false)
      return { type: 'setblock', target, filter, body: this.#until('endset'), ...place }
    })
  }

  #with(place: Place): Statement {
    const targets: Expression[] = []
    const values: Expression[] = []
    while (!this.#is('block_end')) {
      if (targets.length > 0) this.#expect('operator', ',')
      const stores = this.#loopStores.length
      targets.push(this.#target({}))
      // In jinja2 this is a parameter, which may be named `loop`.
      this.#loopStores.length = stores
      this.#expect('operator', '=')
      values.push(this.#expression())
    }
    return { type: 'with', targets, values, body: this.#inner(() => this.#until('endwith')), ...place }
  }

  #block(place: Place): Statement {
    const { value: name } = this.#expect('name')
    const scoped = this.#skip('name', 'scoped')
    const required = this.#skip('name', 'required')
    if (this.#is('operator', '-')) {
      this.#fail(
        'Block names in Jinja have to be valid Python identifiers and may not contain hyphens, use an underscore instead.',
      )
    }
    if (this.#blocks.has(name)) this.#fail(`block '${name}' defined twice`, place, 'Assertion')
    this.#blocks.set(name, [])
    const body = this.#inner(() => this.#until('endblock'), false)
    if (required && !body.every((one) => one.type === 'data' && one.text.trim() === '')) {
      this.#fail('Required blocks can only contain comments or whitespace')
    }
    this.#skip('name', name)
    this.#blocks.set(name, body)
    return { type: 'block', name, scoped, required, body, ...place }
  }

  #macro(name: string | null, signed: boolean, end: string, place: Place): MacroNode {
    return this.#macroBody(name, this.#signature(signed), end, place)
  }

  #signature(signed: boolean): { parameters: string[]; defaults: Expression[] } {
    const parameters: string[] = []
    const defaults: Expression[] = []
    if (!signed) return { parameters, defaults }
    this.#expect('operator', '(')
    while (!this.#is('operator', ')')) {
      if (parameters.length > 0) this.#expect('operator', ',')
      const token = this.#expect('name')
      if (token.value in constants) this.#fail("can't assign to 'name'", token)
      if (parameters.includes(token.value)) this.#fail(`duplicate argument '${token.value}'`, token)
      if (parameters.length >= MAX_ARGUMENTS) this.#fail('too many arguments', token)
      parameters.push(token.value)
      if (this.#skip('operator', '=')) defaults.push(this.#inner(() => this.#expression()))
      else if (defaults.length > 0) this.#fail('non-default argument follows default argument')
    }
    this.#at++
    return { parameters, defaults }
  }

  #macroBody(
    name: string | null,
    { parameters, defaults }: { parameters: string[]; defaults: Expression[] },
    end: string,
    place: Place,
  ): MacroNode {
    const body = this.#inner(() => this.#until(end), false)
    const undeclared = this.#undeclared(body)
    const caller = undeclared.has('caller')
    const at = parameters.indexOf('caller')
    if (caller && at !== -1 && at < parameters.length - defaults.length) {
      this.#fail(
        'When defining macros or call blocks the special "caller" argument must be omitted or be given a default.',
        place,
        'Assertion',
      )
    }
    const takes = {
      caller,
      kwargs: undeclared.has('kwargs') && !parameters.includes('kwargs'),
      varargs: undeclared.has('varargs') && !parameters.includes('varargs'),
    }
    return { type: 'macro', name, parameters, defaults, body, takes, ...place }
  }

  /** Return the special names of a macro that its body reads before assigning them, in jinja2's order. */
  #undeclared(body: readonly Statement[]): Set<string> {
    const open = new Set(['caller', 'kwargs', 'varargs'])
    const found = new Set<string>()
    const visit = (node: unknown): boolean => {
      // Nested macros are visited once per enclosing macro.
      if (++this.#visits > LIMITS.template) throw new JinjaError('Limit', 'has too many macros inside of each other')
      if (Array.isArray(node)) return node.some(visit)
      if (typeof node !== 'object' || node === null) return false
      const { type } = node as { type?: string }
      if (type === 'name') {
        const { name, store } = node as Name
        if (!store && open.has(name)) found.add(name)
        else open.delete(name)
        return found.size === 3
      }
      if (type === 'block') return false
      if (type === 'macro') for (const parameter of (node as MacroNode).parameters) open.delete(parameter)
      return Object.values(node).some(visit)
    }
    visit(body)
    return found
  }

  // Expressions

  /** Parse the target of an assignment. */
  #target({ end, attributes = false }: { end?: string; attributes?: boolean }): Expression {
    const place = this.#place()
    const target = this.#tuple({ simple: true, end, attributes })
    const store = (one: Expression): void => {
      if (one.type === 'name') {
        one.store = true
        if (one.name === 'loop') this.#loopStores.push(one)
      } else if (one.type === 'tuple') one.items.forEach(store)
      else if (one.type !== 'attribute') this.#fail(`can't assign to '${one.type}'`, place)
    }
    store(target)
    return target
  }

  #tuple(
    options: { simple?: boolean; condition?: boolean; end?: string; parentheses?: boolean; attributes?: boolean } = {},
  ): Expression {
    const { simple = false, condition = true, end, parentheses = false, attributes = false } = options
    const place = this.#place()
    const items: Expression[] = []
    let isTuple = false
    for (;;) {
      if (items.length > 0) this.#expect('operator', ',')
      if (this.#is('variable_end') || this.#is('block_end') || this.#is('operator', ')')) break
      if (end !== undefined && this.#is('name', end)) break
      items.push(simple ? this.#primary(attributes) : condition ? this.#expression() : this.#nested(() => this.#or()))
      if (!this.#is('operator', ',')) break
      isTuple = true
    }
    if (!isTuple) {
      if (items.length > 0) return items[0]!
      if (!parentheses) this.#fail(`Expected an expression, got '${described(this.#token)}'`)
    }
    return { type: 'tuple', items, ...place }
  }

  #expression(): Expression {
    return this.#nested(() => {
      const place = this.#place()
      const unknown = this.#unknown.length
      let first = this.#or()
      for (let length = 0; this.#skip('name', 'if'); length++) {
        this.#bounded(length)
        const test = this.#or()
        const otherwise = this.#skip('name', 'else') ? this.#expression() : undefined
        first = { type: 'condition', test, value: first, otherwise, ...place }
        // As in an `if` statement, unknown filters are errors only when executed.
        this.#unknown.length = unknown
      }
      return first
    })
  }

  #or(): Expression {
    return this.#chain(() => this.#chain(() => this.#not(), 'name', 'and'), 'name', 'or')
  }

  /** Parse left-associative operators of one precedence. */
  #chain(operand: () => Expression, type: TokenType, ...operators: string[]): Expression {
    const place = this.#place()
    let left = operand()
    let length = 0
    while (this.#token.type === type && operators.includes(this.#token.value)) {
      // The depth of the tree is the length of the chain.
      this.#bounded(++length)
      const operator = this.#next().value
      left = { type: 'binary', operator, left, right: operand(), ...place }
    }
    return left
  }

  #not(): Expression {
    const place = this.#place()
    if (!this.#skip('name', 'not')) return this.#compare()
    return { type: 'unary', operator: 'not', value: this.#nested(() => this.#not()), ...place }
  }

  #compare(): Expression {
    const place = this.#place()
    const first = this.#sum()
    const rest: [string, Expression][] = []
    for (;;) {
      if (this.#token.type === 'operator' && comparisons.has(this.#token.value)) {
        rest.push([this.#next().value, this.#sum()])
      } else if (this.#skip('name', 'in')) rest.push(['in', this.#sum()])
      else if (this.#is('name', 'not') && this.#is('name', 'in', 1)) {
        this.#at += 2
        rest.push(['not in', this.#sum()])
      } else break
    }
    return rest.length === 0 ? first : { type: 'compare', first, rest, ...place }
  }

  #sum(): Expression {
    return this.#chain(() => this.#concat(), 'operator', '+', '-')
  }

  #concat(): Expression {
    const place = this.#place()
    const items = [this.#product()]
    while (this.#skip('operator', '~')) items.push(this.#product())
    return items.length === 1 ? items[0]! : { type: 'concat', items, ...place }
  }

  #product(): Expression {
    const power = (): Expression => this.#chain(() => this.#unary(true), 'operator', '**')
    return this.#chain(power, 'operator', '*', '/', '//', '%')
  }

  #unary(filters: boolean): Expression {
    const place = this.#place()
    let node: Expression
    if (this.#is('operator', '-') || this.#is('operator', '+')) {
      const operator = this.#next().value
      node = { type: 'unary', operator, value: this.#nested(() => this.#unary(false)), ...place }
    } else node = this.#primary(false)
    node = this.#postfix(node)
    return filters ? this.#filters(node) : node
  }

  #primary(attributes: boolean): Expression {
    const token = this.#token
    const place = this.#place()
    const { value } = token
    if (token.type === 'name') {
      this.#at++
      if (value in constants) return { type: 'const', value: constants[value]!, ...place }
      if (attributes && this.#skip('operator', '.')) {
        return { type: 'attribute', namespace: value, name: this.#expect('name').value, ...place }
      }
      return { type: 'name', name: value, store: false, ...place }
    }
    if (token.type === 'string') {
      let text = ''
      while (this.#is('string')) text += this.#next().value
      return { type: 'const', value: text, ...place }
    }
    if (token.type === 'integer' || token.type === 'float') {
      this.#at++
      return { type: 'const', value: numberOf(token), ...place }
    }
    if (this.#skip('operator', '(')) {
      const inside = this.#tuple({ parentheses: true })
      this.#expect('operator', ')')
      return inside
    }
    if (this.#skip('operator', '[')) {
      const items: Expression[] = []
      this.#list(']', () => items.push(this.#expression()))
      return { type: 'list', items, ...place }
    }
    if (this.#skip('operator', '{')) {
      const items: [Expression, Expression][] = []
      this.#list('}', () => {
        const key = this.#expression()
        this.#expect('operator', ':')
        items.push([key, this.#expression()])
      })
      return { type: 'dict', items, ...place }
    }
    this.#fail(`unexpected '${described(token)}'`)
  }

  #list(end: string, item: () => void): void {
    for (let first = true; !this.#is('operator', end); first = false) {
      if (!first) this.#expect('operator', ',')
      if (this.#is('operator', end)) break
      item()
    }
    this.#at++
  }

  #postfix(start: Expression): Expression {
    let node = start
    for (let length = 0; ; length++) {
      this.#bounded(length)
      if (this.#is('operator', '.') || this.#is('operator', '[')) node = this.#subscript(node)
      else if (this.#is('operator', '(')) node = this.#call(node)
      else return node
    }
  }

  #filters(start: Expression): Expression {
    let node = start
    for (let length = 0; ; length++) {
      this.#bounded(length)
      if (this.#is('operator', '|')) node = this.#filter(node, false)!
      else if (this.#is('name', 'is')) node = this.#test(node)
      else if (this.#is('operator', '(')) node = this.#call(node)
      else return node
    }
  }

  #bounded(length: number): void {
    if (length > LIMITS.nesting) throw new JinjaError('Limit', `nests deeper than ${LIMITS.nesting}`, this.#place())
  }

  #subscript(value: Expression): Expression {
    const place = this.#place()
    if (this.#next().value === '.') {
      const token = this.#next()
      if (token.type === 'name') return { type: 'getattr', value, name: token.value, ...place }
      if (token.type !== 'integer') this.#fail('expected name or number', token)
      return { type: 'getitem', value, index: { type: 'const', value: numberOf(token), ...place }, ...place }
    }
    const items: Expression[] = []
    while (!this.#is('operator', ']')) {
      if (items.length > 0) this.#expect('operator', ',')
      items.push(this.#subscribed())
    }
    this.#at++
    const index: Expression = items.length === 1 ? items[0]! : { type: 'tuple', items, ...place }
    return { type: 'getitem', value, index, ...place }
  }

  #subscribed(): Expression {
    const place = this.#place()
    const ends = (): boolean => this.#is('operator', ']') || this.#is('operator', ',')
    const slice: Slice = { type: 'slice', ...place }
    if (!this.#skip('operator', ':')) {
      const start = this.#expression()
      if (!this.#skip('operator', ':')) return start
      slice.start = start
    }
    if (!this.#is('operator', ':') && !ends()) slice.stop = this.#expression()
    if (this.#skip('operator', ':') && !ends()) slice.step = this.#expression()
    return slice
  }

  #call(callee: Expression): Call {
    const place = this.#place()
    return { type: 'call', callee, ...this.#arguments(), ...place }
  }

  #arguments(): Arguments {
    const place = this.#expect('operator', '(')
    const result: Arguments = { args: [], kwargs: [] }
    const ensure = (good: boolean): void => {
      if (!good) this.#fail('invalid syntax for function call expression', place)
    }
    const names = new Set<string>()
    for (let first = true; !this.#is('operator', ')'); first = false) {
      if (!first) {
        this.#expect('operator', ',')
        if (this.#is('operator', ')')) break
      }
      if (this.#skip('operator', '*')) {
        ensure(!result.dynArgs && !result.dynKwargs)
        result.dynArgs = this.#expression()
      } else if (this.#skip('operator', '**')) {
        ensure(!result.dynKwargs)
        result.dynKwargs = this.#expression()
      } else if (this.#is('name') && this.#is('operator', '=', 1)) {
        ensure(!result.dynKwargs)
        const key = this.#next().value
        if (names.has(key)) this.#fail(`keyword argument repeated: ${key}`)
        names.add(key)
        this.#at++
        result.kwargs.push([key, this.#expression()])
      } else {
        ensure(!result.dynArgs && !result.dynKwargs && result.kwargs.length === 0)
        result.args.push(this.#expression())
      }
    }
    this.#at++
    return result
  }

  #dotted(): Token {
    const token = { ...this.#expect('name') }
    while (this.#skip('operator', '.')) token.value += `.${this.#expect('name').value}`
    return token
  }

  #filter(start: Expression | null, inline: boolean): Filter | null {
    let node = start
    for (let first = inline; first || this.#is('operator', '|'); first = false) {
      if (!first) this.#at++
      const token = this.#dotted()
      const callArgs = this.#is('operator', '(') ? this.#arguments() : { args: [], kwargs: [] }
      this.#require('filter', token)
      node = { type: 'filter', value: node, name: token.value, ...callArgs, line: token.line, column: token.column }
      // The caller counts the filters of an expression.
      if (start !== null) break
    }
    return node as Filter | null
  }

  #test(value: Expression): Expression {
    const place = this.#place()
    this.#at++
    const negated = this.#skip('name', 'not')
    const token = this.#dotted()
    let callArgs: Arguments = { args: [], kwargs: [] }
    if (this.#is('operator', '(')) callArgs = this.#arguments()
    else if (
      ['name', 'string', 'integer', 'float'].includes(this.#token.type)
        ? !['else', 'or', 'and'].includes(this.#token.value) || this.#token.type !== 'name'
        : this.#is('operator', '[') || this.#is('operator', '{')
    ) {
      if (this.#is('name', 'is')) this.#fail('You cannot chain multiple tests with is')
      callArgs.args.push(this.#postfix(this.#primary(false)))
    }
    this.#require('test', token)
    const test: Expression = { type: 'test', value, name: token.value, ...callArgs, ...place }
    return negated ? { type: 'unary', operator: 'not', value: test, ...place } : test
  }

  #require(kind: 'filter' | 'test', token: Token): void {
    if (this.#soft || this.known[`${kind}s`].has(token.value)) return
    this.#unknown.push({ message: `No ${kind} named '${token.value}'.`, token })
  }
}

const MAX_ARGUMENTS = 255
const tags = new Set('if for set with macro call generation filter block print break continue'.split(' '))

const descriptions: Partial<Record<TokenType, string>> = {
  data: 'template data / text',
  block_begin: 'begin of statement block',
  block_end: 'end of statement block',
  variable_begin: 'begin of print statement',
  variable_end: 'end of print statement',
  eof: 'end of template',
}

/** Return jinja2's description of a token in errors. */
const described = ({ type, value }: Token): string =>
  type === 'name' || type === 'operator' ? value : (descriptions[type] ?? type)

function numberOf({ type, value }: Token): bigint | number {
  const plain = value.replaceAll('_', '')
  if (type === 'float') return Number(plain)
  if (plain.length > MAX_DIGITS) throw unsupported(`an integer of ${plain.length} digits`)
  return BigInt(/^0+$/.test(plain) ? '0' : plain)
}

// Python's limit on the digits of integers.
const MAX_DIGITS = 4300
