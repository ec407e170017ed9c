/** The Python exceptions that a template can end with, by the name of their class. */
export type ErrorKind =
  | 'TemplateSyntaxError'
  | 'TemplateAssertionError'
  | 'TemplateRuntimeError'
  | 'TemplateError'
  | 'UndefinedError'
  | 'SecurityError'
  | 'FilterArgumentError'
  | 'TypeError'
  | 'ValueError'
  | 'KeyError'
  | 'IndexError'
  | 'AttributeError'
  | 'ZeroDivisionError'
  | 'OverflowError'
  | 'RuntimeError'
  | 'AssertionError'
  /** Jinja has it, this interpreter does not. */
  | 'Unsupported'
  /** A limit of this interpreter. */
  | 'Limit'

/** An error of a template, with the place in its source. */
export class JinjaError extends Error {
  line: number | undefined
  column: number | undefined

  constructor(
    readonly kind: ErrorKind,
    message: string,
    place?: { line: number; column: number },
    /** The argument of `raise_exception`. */
    readonly reason?: unknown,
  ) {
    super(message)
    this.name = kind
    this.line = place?.line
    this.column = place?.column
  }
}

export const typeError = (message: string): JinjaError => new JinjaError('TypeError', message)
export const valueError = (message: string): JinjaError => new JinjaError('ValueError', message)
export const unsupported = (what: string): JinjaError =>
  new JinjaError('Unsupported', `${what} is not supported in a chat template`)

/** Bounds on the work of one template. A published template takes some hundred steps for each message. */
export const LIMITS = {
  /** Characters of the template. */
  template: 1 << 18,
  /** Evaluated nodes, visited items, and characters divided by eight. */
  steps: 4_000_000,
  /** Characters of one text, in UTF-16 units. */
  text: 1 << 24,
  /** Items of one list. */
  items: 1 << 20,
  /** Calls and statements inside of each other, and values inside of each other. */
  depth: 200,
  /** Tags, brackets and operators inside of each other. */
  nesting: 100,
  /** Items of a range: the limit of Jinja's sandbox. */
  range: 100_000,
  /** Bits of an integer. */
  bits: 1 << 17,
  /** Characters of a format for dates. */
  date: 1000,
  /** Width and precision of formatted values, and columns of padding. */
  width: 1 << 20,
}

/** Counts the work of one rendering, and ends it at {@link LIMITS}. */
export class Work {
  steps = 0
  depth = 0

  spend(steps: number): void {
    this.steps += steps
    if (this.steps > LIMITS.steps) throw limit(`runs for more than ${LIMITS.steps} steps`)
  }

  /** Accounts for a text of so many UTF-16 units that is about to be made. */
  text(length: number): void {
    if (length > LIMITS.text) throw limit(`makes a text of more than ${LIMITS.text} characters`)
    this.spend(1 + length / 8)
  }

  /** Accounts for a text that is joined of others: the longest is not copied, so that a text can grow piece by piece. */
  joined(length: number, longest: number): void {
    if (length > LIMITS.text) throw limit(`makes a text of more than ${LIMITS.text} characters`)
    this.spend(1 + (length - longest) / 8)
  }

  /** Accounts for a list of so many items that is about to be made. */
  items(length: number): void {
    if (length > LIMITS.items) throw limit(`makes a list of more than ${LIMITS.items} items`)
    this.spend(1 + length)
  }

  enter(): void {
    if (++this.depth > LIMITS.depth) throw limit(`nests deeper than ${LIMITS.depth}`)
  }

  leave(): void {
    this.depth--
  }
}

export const limit = (what: string): JinjaError => new JinjaError('Limit', what)
