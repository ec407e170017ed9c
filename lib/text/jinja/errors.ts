/** Python exceptions of templates, by class name. */
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
  /** A feature of Jinja that this interpreter does not support. */
  | 'Unsupported'
  /** A limit of this interpreter. */
  | 'Limit'

/** An error of a template, with its position in the source. */
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

/** Limits on one rendering. A published template takes some hundred steps per message. */
export const LIMITS = {
  /** Characters of the template. */
  template: 1 << 18,
  /** Evaluated nodes, visited items, and characters divided by eight. */
  steps: 4_000_000,
  /** UTF-16 units of one text. */
  text: 1 << 24,
  /** Items of one list. */
  items: 1 << 20,
  /** Nesting of calls and statements, and of values. */
  depth: 200,
  /** Nesting of tags, brackets and operators. */
  nesting: 100,
  /** Items of a range, as in Jinja's sandbox. */
  range: 100_000,
  /** Bits of an integer. */
  bits: 1 << 17,
  /** Characters of a date format. */
  date: 1000,
  /** Width and precision of formatted values, and columns of padding. */
  width: 1 << 20,
}

/** Counter of the work of one rendering, which enforces {@link LIMITS}. */
export class Work {
  steps = 0
  depth = 0

  spend(steps: number): void {
    this.steps += steps
    if (this.steps > LIMITS.steps) throw limit(`runs for more than ${LIMITS.steps} steps`)
  }

  /** Count a text of that many UTF-16 units, before it is created. */
  text(length: number): void {
    if (length > LIMITS.text) throw limit(`makes a text of more than ${LIMITS.text} characters`)
    this.spend(1 + length / 8)
  }

  /** Count a concatenation. The longest part is free, because V8 does not copy it, so a text can grow step by step. */
  joined(length: number, longest: number): void {
    if (length > LIMITS.text) throw limit(`makes a text of more than ${LIMITS.text} characters`)
    this.spend(1 + (length - longest) / 8)
  }

  /** Count a list of that many items, before it is created. */
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
