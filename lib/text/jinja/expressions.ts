import { JinjaError, LIMITS, unsupported } from './errors.js'
import type { Token, TokenType } from './lexer.js'
import type { Arguments, Call, Expression, Filter, Place, Slice } from './nodes.js'

/** Names of the filters or tests that exist. */
export interface Known {
  has(name: string): boolean
}

const comparisons = new Set(['==', '!=', '<', '<=', '>', '>='])
export const constants: Record<string, boolean | null> = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
}

/** Parser of jinja2's expressions over the tokens of a template. */
export abstract class ExpressionParser {
  protected at = 0
  #depth = 0
  /** Whether the parser is inside an `if`. There, an unknown filter or test fails only when it is rendered. */
  protected soft = false
  /** Unknown filters and tests outside of conditions: reported after the whole template is parsed. */
  protected readonly unknown: { message: string; token: Token }[] = []
  /** Assignments to a variable named `loop`. */
  protected readonly loopStores: Place[] = []

  constructor(
    readonly tokens: readonly Token[],
    readonly known: { filters: Known; tests: Known },
  ) {}

  protected get token(): Token {
    return this.tokens[this.at]!
  }

  protected next(): Token {
    return this.tokens[this.token.type === 'eof' ? this.at : this.at++]!
  }

  protected is(type: TokenType, value?: string, ahead = 0): boolean {
    const token = this.tokens[this.at + ahead]
    return token !== undefined && token.type === type && (value === undefined || token.value === value)
  }

  protected skip(type: TokenType, value: string): boolean {
    if (!this.is(type, value)) return false
    this.at++
    return true
  }

  protected expect(type: TokenType, value?: string): Token {
    if (this.is(type, value)) return this.next()
    const wanted = value ?? described({ type, value: type, line: 0, column: 0 })
    const { type: found } = this.token
    if (found === 'eof') this.fail(`unexpected end of template, expected '${wanted}'.`)
    this.fail(`expected token '${wanted}', got '${described(this.token)}'`)
  }

  protected fail(message: string, place: Place = this.token, kind: 'Syntax' | 'Assertion' = 'Syntax'): never {
    throw new JinjaError(`Template${kind}Error`, message, place)
  }

  protected place(): Place {
    const { line, column } = this.token
    return { line, column }
  }

  protected nested<T>(parse: () => T): T {
    if (++this.#depth > LIMITS.nesting) {
      throw new JinjaError('Limit', `nests deeper than ${LIMITS.nesting}`, this.place())
    }
    const parsed = parse()
    this.#depth--
    return parsed
  }

  /** Parse the target of an assignment. */
  protected target({ end, attributes = false }: { end?: string; attributes?: boolean }): Expression {
    const place = this.place()
    const target = this.tuple({ simple: true, end, attributes })
    const store = (one: Expression): void => {
      if (one.type === 'name') {
        one.store = true
        if (one.name === 'loop') this.loopStores.push(one)
      } else if (one.type === 'tuple') one.items.forEach(store)
      else if (one.type !== 'attribute') this.fail(`can't assign to '${one.type}'`, place)
    }
    store(target)
    return target
  }

  protected tuple(
    options: { simple?: boolean; condition?: boolean; end?: string; parentheses?: boolean; attributes?: boolean } = {},
  ): Expression {
    const { simple = false, condition = true, end, parentheses = false, attributes = false } = options
    const place = this.place()
    const items: Expression[] = []
    let isTuple = false
    for (;;) {
      if (items.length > 0) this.expect('operator', ',')
      if (this.is('variable_end') || this.is('block_end') || this.is('operator', ')')) break
      if (end !== undefined && this.is('name', end)) break
      items.push(simple ? this.#primary(attributes) : condition ? this.expression() : this.nested(() => this.#or()))
      if (!this.is('operator', ',')) break
      isTuple = true
    }
    if (!isTuple) {
      if (items.length > 0) return items[0]!
      if (!parentheses) this.fail(`Expected an expression, got '${described(this.token)}'`)
    }
    return { type: 'tuple', items, ...place }
  }

  protected expression(): Expression {
    return this.nested(() => {
      const place = this.place()
      const unknown = this.unknown.length
      let first = this.#or()
      for (let length = 0; this.skip('name', 'if'); length++) {
        this.#bounded(length)
        const test = this.#or()
        const otherwise = this.skip('name', 'else') ? this.expression() : undefined
        first = { type: 'condition', test, value: first, otherwise, ...place }
        // As in an `if` statement, unknown filters are errors only when executed.
        this.unknown.length = unknown
      }
      return first
    })
  }

  #or(): Expression {
    return this.#chain(() => this.#chain(() => this.#not(), 'name', 'and'), 'name', 'or')
  }

  /** Parse left-associative operators of one precedence. */
  #chain(operand: () => Expression, type: TokenType, ...operators: string[]): Expression {
    const place = this.place()
    let left = operand()
    let length = 0
    while (this.token.type === type && operators.includes(this.token.value)) {
      // The depth of the tree is the length of the chain.
      this.#bounded(++length)
      const operator = this.next().value
      left = { type: 'binary', operator, left, right: operand(), ...place }
    }
    return left
  }

  #not(): Expression {
    const place = this.place()
    if (!this.skip('name', 'not')) return this.#compare()
    return { type: 'unary', operator: 'not', value: this.nested(() => this.#not()), ...place }
  }

  #compare(): Expression {
    const place = this.place()
    const first = this.#sum()
    const rest: [string, Expression][] = []
    for (;;) {
      if (this.token.type === 'operator' && comparisons.has(this.token.value)) {
        rest.push([this.next().value, this.#sum()])
      } else if (this.skip('name', 'in')) rest.push(['in', this.#sum()])
      else if (this.is('name', 'not') && this.is('name', 'in', 1)) {
        this.at += 2
        rest.push(['not in', this.#sum()])
      } else break
    }
    return rest.length === 0 ? first : { type: 'compare', first, rest, ...place }
  }

  #sum(): Expression {
    return this.#chain(() => this.#concat(), 'operator', '+', '-')
  }

  #concat(): Expression {
    const place = this.place()
    const items = [this.#product()]
    while (this.skip('operator', '~')) items.push(this.#product())
    return items.length === 1 ? items[0]! : { type: 'concat', items, ...place }
  }

  #product(): Expression {
    const power = (): Expression => this.#chain(() => this.#unary(true), 'operator', '**')
    return this.#chain(power, 'operator', '*', '/', '//', '%')
  }

  #unary(filters: boolean): Expression {
    const place = this.place()
    let node: Expression
    if (this.is('operator', '-') || this.is('operator', '+')) {
      const operator = this.next().value
      node = { type: 'unary', operator, value: this.nested(() => this.#unary(false)), ...place }
    } else node = this.#primary(false)
    node = this.#postfix(node)
    return filters ? this.#filters(node) : node
  }

  #primary(attributes: boolean): Expression {
    const token = this.token
    const place = this.place()
    const { value } = token
    if (token.type === 'name') {
      this.at++
      if (value in constants) return { type: 'const', value: constants[value]!, ...place }
      if (attributes && this.skip('operator', '.')) {
        return { type: 'attribute', namespace: value, name: this.expect('name').value, ...place }
      }
      return { type: 'name', name: value, store: false, ...place }
    }
    if (token.type === 'string') {
      let text = ''
      while (this.is('string')) text += this.next().value
      return { type: 'const', value: text, ...place }
    }
    if (token.type === 'integer' || token.type === 'float') {
      this.at++
      return { type: 'const', value: numberOf(token), ...place }
    }
    if (this.skip('operator', '(')) {
      const inside = this.tuple({ parentheses: true })
      this.expect('operator', ')')
      return inside
    }
    if (this.skip('operator', '[')) {
      const items: Expression[] = []
      this.#list(']', () => items.push(this.expression()))
      return { type: 'list', items, ...place }
    }
    if (this.skip('operator', '{')) {
      const items: [Expression, Expression][] = []
      this.#list('}', () => {
        const key = this.expression()
        this.expect('operator', ':')
        items.push([key, this.expression()])
      })
      return { type: 'dict', items, ...place }
    }
    this.fail(`unexpected '${described(token)}'`)
  }

  #list(end: string, item: () => void): void {
    for (let first = true; !this.is('operator', end); first = false) {
      if (!first) this.expect('operator', ',')
      if (this.is('operator', end)) break
      item()
    }
    this.at++
  }

  #postfix(start: Expression): Expression {
    let node = start
    for (let length = 0; ; length++) {
      this.#bounded(length)
      if (this.is('operator', '.') || this.is('operator', '[')) node = this.#subscript(node)
      else if (this.is('operator', '(')) node = this.#call(node)
      else return node
    }
  }

  #filters(start: Expression): Expression {
    let node = start
    for (let length = 0; ; length++) {
      this.#bounded(length)
      if (this.is('operator', '|')) node = this.filter(node, false)!
      else if (this.is('name', 'is')) node = this.#test(node)
      else if (this.is('operator', '(')) node = this.#call(node)
      else return node
    }
  }

  #bounded(length: number): void {
    if (length > LIMITS.nesting) throw new JinjaError('Limit', `nests deeper than ${LIMITS.nesting}`, this.place())
  }

  #subscript(value: Expression): Expression {
    const place = this.place()
    if (this.next().value === '.') {
      const token = this.next()
      if (token.type === 'name') return { type: 'getattr', value, name: token.value, ...place }
      if (token.type !== 'integer') this.fail('expected name or number', token)
      return { type: 'getitem', value, index: { type: 'const', value: numberOf(token), ...place }, ...place }
    }
    const items: Expression[] = []
    while (!this.is('operator', ']')) {
      if (items.length > 0) this.expect('operator', ',')
      items.push(this.#subscribed())
    }
    this.at++
    const index: Expression = items.length === 1 ? items[0]! : { type: 'tuple', items, ...place }
    return { type: 'getitem', value, index, ...place }
  }

  #subscribed(): Expression {
    const place = this.place()
    const ends = (): boolean => this.is('operator', ']') || this.is('operator', ',')
    const slice: Slice = { type: 'slice', ...place }
    if (!this.skip('operator', ':')) {
      const start = this.expression()
      if (!this.skip('operator', ':')) return start
      slice.start = start
    }
    if (!this.is('operator', ':') && !ends()) slice.stop = this.expression()
    if (this.skip('operator', ':') && !ends()) slice.step = this.expression()
    return slice
  }

  #call(callee: Expression): Call {
    const place = this.place()
    return { type: 'call', callee, ...this.#arguments(), ...place }
  }

  #arguments(): Arguments {
    const place = this.expect('operator', '(')
    const result: Arguments = { args: [], kwargs: [] }
    const ensure = (good: boolean): void => {
      if (!good) this.fail('invalid syntax for function call expression', place)
    }
    const names = new Set<string>()
    for (let first = true; !this.is('operator', ')'); first = false) {
      if (!first) {
        this.expect('operator', ',')
        if (this.is('operator', ')')) break
      }
      if (this.skip('operator', '*')) {
        ensure(!result.dynArgs && !result.dynKwargs)
        result.dynArgs = this.expression()
      } else if (this.skip('operator', '**')) {
        ensure(!result.dynKwargs)
        result.dynKwargs = this.expression()
      } else if (this.is('name') && this.is('operator', '=', 1)) {
        ensure(!result.dynKwargs)
        const key = this.next().value
        if (names.has(key)) this.fail(`keyword argument repeated: ${key}`)
        names.add(key)
        this.at++
        result.kwargs.push([key, this.expression()])
      } else {
        ensure(!result.dynArgs && !result.dynKwargs && result.kwargs.length === 0)
        result.args.push(this.expression())
      }
    }
    this.at++
    return result
  }

  #dotted(): Token {
    const token = { ...this.expect('name') }
    while (this.skip('operator', '.')) token.value += `.${this.expect('name').value}`
    return token
  }

  protected filter(start: Expression | null, inline: boolean): Filter | null {
    let node = start
    for (let first = inline; first || this.is('operator', '|'); first = false) {
      if (!first) this.at++
      const token = this.#dotted()
      const callArgs = this.is('operator', '(') ? this.#arguments() : { args: [], kwargs: [] }
      this.#require('filter', token)
      node = { type: 'filter', value: node, name: token.value, ...callArgs, line: token.line, column: token.column }
      // The caller counts the filters of an expression.
      if (start !== null) break
    }
    return node as Filter | null
  }

  #test(value: Expression): Expression {
    const place = this.place()
    this.at++
    const negated = this.skip('name', 'not')
    const token = this.#dotted()
    let callArgs: Arguments = { args: [], kwargs: [] }
    if (this.is('operator', '(')) callArgs = this.#arguments()
    else if (
      ['name', 'string', 'integer', 'float'].includes(this.token.type)
        ? !['else', 'or', 'and'].includes(this.token.value) || this.token.type !== 'name'
        : this.is('operator', '[') || this.is('operator', '{')
    ) {
      if (this.is('name', 'is')) this.fail('You cannot chain multiple tests with is')
      callArgs.args.push(this.#postfix(this.#primary(false)))
    }
    this.#require('test', token)
    const test: Expression = { type: 'test', value, name: token.value, ...callArgs, ...place }
    return negated ? { type: 'unary', operator: 'not', value: test, ...place } : test
  }

  #require(kind: 'filter' | 'test', token: Token): void {
    if (this.soft || this.known[`${kind}s`].has(token.value)) return
    this.unknown.push({ message: `No ${kind} named '${token.value}'.`, token })
  }
}

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
