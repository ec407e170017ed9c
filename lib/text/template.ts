import { ConfigError, DataError, VoxtorchError } from '../base/errors.js'
import { Environment, Interpreter, type JinjaStatement, type JinjaValue, parse, tokenize } from './packages.js'
import { withinTime } from './time-limit.js'

// A template is a program from a file. It can reach nothing but its variables; these limits end it.
const MAX_TEMPLATE = 1 << 20
const TIME_LIMIT = 800
const MAX_DEPTH = 500
const MAX_TEXT = 1 << 24
// A value of the package takes a few hundred bytes.
const MAX_LIST = 100_000

/**
 * Renders a Jinja template with the environment that transformers gives to chat templates.
 * @throws ConfigError with the template's own words when it calls `raise_exception`; DataError when it is no template,
 *   fails, or asks for more than a second or too much memory
 */
export function renderTemplate(template: string, variables: Readonly<Record<string, unknown>>): string {
  if (template.length > MAX_TEMPLATE) {
    throw new DataError(`the chat template has ${template.length} characters, more than ${MAX_TEMPLATE}`)
  }
  const environment = new Environment()
  const globals: Record<string, unknown> = {
    false: false,
    true: true,
    none: null,
    False: false,
    True: true,
    None: null,
    range,
    raise_exception(message: unknown) {
      throw new ConfigError(`the chat template refuses these messages: ${String(message)}`, { reason: message })
    },
    strftime_now: (format: string) => strftime(new Date(), format),
  }
  try {
    return withinTime(TIME_LIMIT, () => {
      for (const [name, value] of Object.entries({ ...globals, ...variables })) environment.set(name, value)
      const program = parse(tokenize(template, { lstrip_blocks: true, trim_blocks: true }))
      return new BoundedInterpreter(environment).run(program).value as string
    })
  } catch (cause) {
    if (cause instanceof VoxtorchError) throw cause
    throw new DataError(`the chat template fails: ${(cause as Error).message}`, { cause })
  }
}

/** Statements that may give null to say that they print nothing, which is not `{{ none }}`. */
const silent = new Set([
  'Set',
  'If',
  'For',
  'Macro',
  'Comment',
  'Break',
  'Continue',
  'CallStatement',
  'FilterStatement',
])

/** The package's interpreter, with limits, and with values printed as Python prints them. */
class BoundedInterpreter extends Interpreter {
  #depth = 0
  /** What a `continue` or `break` has thrown, and the text that its loop's turn had printed before it. */
  #jump: { error: unknown; ends: boolean; text: string } | undefined
  readonly #loops = new Map<readonly JinjaStatement[], { error: unknown } | null>()

  override evaluate(statement: JinjaStatement | undefined, environment: Environment): JinjaValue {
    if (++this.#depth > MAX_DEPTH) throw new DataError(`the chat template nests deeper than ${MAX_DEPTH}`)
    const depth = this.#depth
    const made = this.#evaluate(statement, environment)
    this.#depth = depth - 1
    const { value } = made
    if (typeof value === 'string' ? value.length > MAX_TEXT : Array.isArray(value) && value.length > MAX_LIST) {
      throw new DataError('the chat template makes a text or a list that is too long')
    }
    return made
  }

  override evaluateBlock(statements: readonly JinjaStatement[], environment: Environment): JinjaValue {
    const broken = this.#loops.get(statements)
    if (broken) throw broken.error
    let text = ''
    try {
      for (const statement of statements) {
        const value = this.evaluate(statement, environment)
        if (value.type === 'NullValue' && silent.has(statement.type)) continue
        text += printed(value)
        if (text.length > MAX_TEXT) throw new DataError('the chat template makes a text that is too long')
      }
      return stringValue(text)
    } catch (error) {
      if (error !== this.#jump?.error) throw error
      this.#jump!.text = text + this.#jump!.text
      if (!this.#loops.has(statements)) throw error
      // The package would forget the text. So the turn ends as if by itself, and a `break` follows with the next one.
      if (this.#jump!.ends) this.#loops.set(statements, { error })
      return stringValue(this.#jump!.text)
    }
  }

  override applyFilter(operand: JinjaValue, filter: JinjaStatement, environment: Environment): JinjaValue {
    // What it makes is looked at only when it is there: a list that holds one text often would fill memory before.
    if ((filter.value ?? filter.callee?.value) === 'join' && Array.isArray(operand.value)) {
      let length = 0
      for (const { value } of operand.value as JinjaValue[]) length += typeof value === 'string' ? value.length : 1
      if (length > MAX_TEXT) throw new DataError('the chat template makes a text that is too long')
    }
    return super.applyFilter(operand, filter, environment)
  }

  override evaluateFor(loop: JinjaStatement, environment: Environment): JinjaValue {
    const outer = this.#loops.get(loop.body!)
    this.#loops.set(loop.body!, null)
    const made = super.evaluateFor(loop, environment)
    if (outer === undefined) this.#loops.delete(loop.body!)
    else this.#loops.set(loop.body!, outer)
    return made
  }

  #evaluate(statement: JinjaStatement | undefined, environment: Environment): JinjaValue {
    if (statement?.type === 'BinaryExpression' && statement.operator!.value === '~') {
      const [left, right] = [statement.left!, statement.right!]
      return stringValue(printed(this.evaluate(left, environment)) + printed(this.evaluate(right, environment)))
    }
    try {
      return super.evaluate(statement, environment)
    } catch (error) {
      const ends = statement?.type === 'Break'
      if (ends || statement?.type === 'Continue') this.#jump = { error, ends, text: '' }
      throw error
    }
  }
}

function stringValue(text: string): JinjaValue {
  return new Environment().set('text', text)
}

/** Python's `str`. */
function printed(value: JinjaValue): string {
  return value.type === 'UndefinedValue' ? '' : value.type === 'StringValue' ? (value.value as string) : spelled(value)
}

/** Python's `repr`. */
function spelled(value: JinjaValue): string {
  switch (value.type) {
    case 'BooleanValue':
      return value.value ? 'True' : 'False'
    case 'NullValue':
      return 'None'
    case 'StringValue':
      return quoted(value.value as string)
    case 'ArrayValue':
      return `[${(value.value as JinjaValue[]).map(spelled).join(', ')}]`
    case 'TupleValue': {
      const items = (value.value as JinjaValue[]).map(spelled)
      return `(${items.join(', ')}${items.length === 1 ? ',' : ''})`
    }
    case 'ObjectValue': {
      const entries = [...(value.value as Map<string, JinjaValue>)]
      return `{${entries.map(([key, entry]) => `${quoted(key)}: ${spelled(entry)}`).join(', ')}}`
    }
    default:
      return value.toString()
  }
}

const escapes: Record<string, string> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\\': '\\\\' }

function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'"
  const escaped = text.replace(/[\n\r\t\\]/g, (character) => escapes[character]!)
  return `${quote}${quote === "'" ? escaped.replaceAll("'", "\\'") : escaped}${quote}`
}

/** Python's range, with an end to how long it may be. */
function range(start: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined || stop === null ? [0, start] : [start, stop]
  if (step === 0) throw new DataError('the chat template calls range() with a step of 0')
  const length = Math.max(0, Math.ceil((to - from) / step))
  if (!(length <= MAX_LIST)) throw new DataError(`the chat template asks for a list of ${length} numbers`)
  return Array.from({ length }, (_, i) => from + i * step)
}

/** The directives that date-writing templates use. */
function strftime(date: Date, format: string): string {
  const two = (value: number): string => String(value).padStart(2, '0')
  const name = (options: Intl.DateTimeFormatOptions): string => new Intl.DateTimeFormat('en', options).format(date)
  const parts: Record<string, () => string> = {
    Y: () => String(date.getFullYear()),
    y: () => two(date.getFullYear() % 100),
    m: () => two(date.getMonth() + 1),
    d: () => two(date.getDate()),
    H: () => two(date.getHours()),
    I: () => two(date.getHours() % 12 || 12),
    M: () => two(date.getMinutes()),
    S: () => two(date.getSeconds()),
    p: () => (date.getHours() < 12 ? 'AM' : 'PM'),
    A: () => name({ weekday: 'long' }),
    a: () => name({ weekday: 'short' }),
    B: () => name({ month: 'long' }),
    b: () => name({ month: 'short' }),
    '%': () => '%',
  }
  return format.replace(/%([A-Za-z%])/g, (whole, letter: string) => parts[letter]?.() ?? whole)
}
