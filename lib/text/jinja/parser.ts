import { JinjaError, LIMITS } from './errors.js'
import { constants, ExpressionParser, type Known } from './expressions.js'
import { tokenize } from './lexer.js'
import type { Expression, MacroNode, Name, Place, Statement, Template } from './nodes.js'

/**
 * Parse a template as jinja2 does, with transformers' tags `break`, `continue` and `generation`.
 * @throws JinjaError TemplateSyntaxError, or TemplateAssertionError for an unknown filter or test
 */
export function parse(template: string, known: { filters: Known; tests: Known }): Template {
  return new Parser(tokenize(template), known).run()
}

/** Tags that need other templates, which a chat template does not have. Executing one is an error. */
const absent = new Set(['include', 'import', 'from', 'extends', 'autoescape'])
const MAX_ARGUMENTS = 255
const tags = new Set('if for set with macro call generation filter block print break continue'.split(' '))

/** Parser of a template's statements. */
class Parser extends ExpressionParser {
  readonly #tags: string[] = []
  readonly #ends: string[][] = []
  readonly #blocks = new Map<string, Statement[]>()
  /** Whether the current statement is inside a loop, for `break` and `continue`. */
  #inLoop = false
  #visits = 0

  run(): Template {
    const body = this.#body([])
    const [unknown] = this.unknown
    if (unknown !== undefined) this.fail(unknown.message, unknown.token, 'Assertion')
    return { body, blocks: this.#blocks }
  }
  #body(ends: string[]): Statement[] {
    return this.nested(() => {
      const body: Statement[] = []
      if (ends.length > 0) this.#ends.push(ends)
      for (;;) {
        const token = this.token
        if (token.type === 'eof') break
        this.at++
        const place = { line: token.line, column: token.column }
        if (token.type === 'data') body.push({ type: 'data', text: token.value, ...place })
        else if (token.type === 'variable_begin') {
          body.push({ type: 'output', values: [this.tuple()], ...place })
          this.expect('variable_end')
        } else {
          if (this.is('name') && ends.includes(this.token.value)) break
          body.push(this.#statement())
          this.expect('block_end')
        }
      }
      if (ends.length > 0) this.#ends.pop()
      return body
    })
  }

  /** Parse statements up to one of some tags, whose name is the next token. */
  #statements(...ends: string[]): Statement[] {
    this.skip('operator', ':')
    this.expect('block_end')
    const body = this.#body(ends)
    if (this.token.type === 'eof') this.#unclosed(null, [...this.#ends, ends])
    return body
  }

  /** Parse statements as {@link #statements}, and the tag that ends them. */
  #until(end: string): Statement[] {
    const body = this.#statements(end)
    this.at++
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
    this.fail(message)
  }

  #statement(): Statement {
    if (!this.is('name')) this.fail('tag name expected')
    const place = this.place()
    const tag = this.token.value
    if (!tags.has(tag) && !absent.has(tag)) this.#unclosed(tag, this.#ends)
    this.at++
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
        return this.#macro(this.expect('name').value, true, 'endmacro', place)
      case 'call': {
        const caller = this.#signature(this.is('operator', '('))
        const call = this.expression()
        if (call.type !== 'call') this.fail('expected call', place)
        return { type: 'callblock', call, caller: this.#macroBody(null, caller, 'endcall', place), ...place }
      }
      case 'generation':
        return { type: 'generation', body: this.#macro(null, false, 'endgeneration', place), ...place }
      case 'filter': {
        return this.#inner(() => {
          const filter = this.filter(null, true)!
          return { type: 'filterblock', filter, body: this.#until('endfilter'), ...place }
        })
      }
      case 'block':
        return this.#block(place)
      case 'print': {
        const values: Expression[] = []
        while (!this.is('block_end')) {
          if (values.length > 0) this.expect('operator', ',')
          values.push(this.expression())
        }
        return { type: 'output', values, ...place }
      }
      case 'break':
      case 'continue':
        if (!this.#inLoop) this.fail(`'${tag}' outside loop`, place)
        return { type: tag, ...place }
      default:
        return this.#absent(tag, place)
    }
  }

  #absent(tag: string, place: Place): Statement {
    // Unsupported tags are parsed, because they are only an error when executed.
    if (tag === 'autoescape') {
      this.expression()
      this.#until('endautoescape')
    } else while (!this.is('block_end') && !this.is('eof')) this.at++
    return { type: 'absent', tag, ...place }
  }

  #if(place: Place): Statement {
    const soft = this.soft
    this.soft = true
    const branches: [Expression, Statement[]][] = []
    let otherwise: Statement[] = []
    for (;;) {
      const test = this.tuple({ condition: false })
      branches.push([test, this.#statements('elif', 'else', 'endif')])
      const { value } = this.next()
      if (value === 'elif') continue
      if (value === 'else') otherwise = this.#until('endif')
      break
    }
    this.soft = soft
    return { type: 'if', branches, otherwise, ...place }
  }

  /** Parse a separate scope, in which unknown filters are errors again. */
  #inner<T>(parse: () => T, inLoop = this.#inLoop): T {
    const [soft, outer] = [this.soft, this.#inLoop]
    this.soft = false
    this.#inLoop = inLoop
    const parsed = parse()
    this.soft = soft
    this.#inLoop = outer
    return parsed
  }

  #for(place: Place): Statement {
    const stores = this.loopStores.length
    const target = this.target({ end: 'in' })
    this.expect('name', 'in')
    const items = this.tuple({ condition: false, end: 'recursive' })
    const test = this.skip('name', 'if') ? this.#inner(() => this.expression()) : undefined
    const recursive = this.skip('name', 'recursive')
    const body = this.#inner(() => this.#statements('endfor', 'else'), true)
    const hasElse = this.next().value === 'else'
    const otherwise = hasElse ? this.#inner(() => this.#until('endfor')) : []
    const stored = this.loopStores[stores]
    if (stored) this.fail("Can't assign to special loop variable in for-loop target", stored, 'Assertion')
    return { type: 'for', target, items, body, otherwise, test, recursive, ...place }
  }

  #set(place: Place): Statement {
    const target = this.target({ attributes: true })
    if (this.skip('operator', '=')) return { type: 'set', target, value: this.tuple(), ...place }
    return this.#inner(() => {
      const filter = this.filter(null, false)
      return { type: 'setblock', target, filter, body: this.#until('endset'), ...place }
    })
  }

  #with(place: Place): Statement {
    const targets: Expression[] = []
    const values: Expression[] = []
    while (!this.is('block_end')) {
      if (targets.length > 0) this.expect('operator', ',')
      const stores = this.loopStores.length
      targets.push(this.target({}))
      // In jinja2 this is a parameter, which may be named `loop`.
      this.loopStores.length = stores
      this.expect('operator', '=')
      values.push(this.expression())
    }
    return { type: 'with', targets, values, body: this.#inner(() => this.#until('endwith')), ...place }
  }

  #block(place: Place): Statement {
    const { value: name } = this.expect('name')
    const scoped = this.skip('name', 'scoped')
    const required = this.skip('name', 'required')
    if (this.is('operator', '-')) {
      this.fail(
        'Block names in Jinja have to be valid Python identifiers and may not contain hyphens, use an underscore instead.',
      )
    }
    if (this.#blocks.has(name)) this.fail(`block '${name}' defined twice`, place, 'Assertion')
    this.#blocks.set(name, [])
    const body = this.#inner(() => this.#until('endblock'), false)
    if (required && !body.every((one) => one.type === 'data' && one.text.trim() === '')) {
      this.fail('Required blocks can only contain comments or whitespace')
    }
    this.skip('name', name)
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
    this.expect('operator', '(')
    while (!this.is('operator', ')')) {
      if (parameters.length > 0) this.expect('operator', ',')
      const token = this.expect('name')
      if (token.value in constants) this.fail("can't assign to 'name'", token)
      if (parameters.includes(token.value)) this.fail(`duplicate argument '${token.value}'`, token)
      if (parameters.length >= MAX_ARGUMENTS) this.fail('too many arguments', token)
      parameters.push(token.value)
      if (this.skip('operator', '=')) defaults.push(this.#inner(() => this.expression()))
      else if (defaults.length > 0) this.fail('non-default argument follows default argument')
    }
    this.at++
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
      this.fail(
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
}
