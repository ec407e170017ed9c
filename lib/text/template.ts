import { ConfigError, DataError, VoxtorchError } from '../native/errors.js'
import { Environment, Interpreter, type JinjaValue, parse, tokenize } from './packages.js'

// A template is a program from a file. It can reach nothing but its variables; these limits end it.
const MAX_TEMPLATE = 1 << 20
const MAX_STEPS = 2_000_000
const MAX_DEPTH = 200
const MAX_TEXT = 1 << 26
const MAX_LIST = 1 << 20

/**
 * Renders a Jinja template with the environment that transformers gives to chat templates.
 * @throws ConfigError with the template's own words when it calls `raise_exception`; DataError when it is no template,
 *   fails, or asks for too many steps or too much memory
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
    for (const [name, value] of Object.entries({ ...globals, ...variables })) environment.set(name, value)
    const program = parse(tokenize(template, { lstrip_blocks: true, trim_blocks: true }))
    return new BoundedInterpreter(environment).run(program).value as string
  } catch (cause) {
    if (cause instanceof VoxtorchError) throw cause
    throw new DataError(`the chat template fails: ${(cause as Error).message}`, { cause })
  }
}

class BoundedInterpreter extends Interpreter {
  #steps = 0
  #depth = 0

  override evaluate(statement: unknown, environment: Environment): JinjaValue {
    if (++this.#steps > MAX_STEPS) throw new DataError(`the chat template takes more than ${MAX_STEPS} steps`)
    if (++this.#depth > MAX_DEPTH) throw new DataError(`the chat template nests deeper than ${MAX_DEPTH}`)
    const made = super.evaluate(statement, environment)
    this.#depth--
    const { value } = made
    if (typeof value === 'string' ? value.length > MAX_TEXT : Array.isArray(value) && value.length > MAX_LIST) {
      throw new DataError('the chat template makes a text or a list that is too long')
    }
    return made
  }
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
