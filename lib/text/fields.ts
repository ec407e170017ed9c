import { shown } from '../base/arguments.js'
import { DataError } from '../base/errors.js'

/** Reader of a JSON object of a tokenizer file, which checks the type of each field on access. */
export class Fields {
  /** @param where path inside the file, such as `model.merges`; @param file name of the file, for errors */
  constructor(
    readonly values: Readonly<Record<string, unknown>>,
    readonly where: string,
    readonly file: string,
  ) {}

  static of(value: unknown, where: string, file: string): Fields {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      const place = where === '' ? file : `${file}: ${where}`
      throw new DataError(`${place}: expected an object, got ${shown(value)}`, { file, entry: where })
    }
    return new Fields(value as Record<string, unknown>, where, file)
  }

  has(name: string): boolean {
    return this.get(name) !== undefined
  }

  /** Return the value of a field; undefined if it is missing or null. */
  get(name: string): unknown {
    return Object.hasOwn(this.values, name) ? (this.values[name] ?? undefined) : undefined
  }

  string(name: string, fallback?: string): string {
    return this.#checked(name, fallback, (value) => typeof value === 'string', 'a string')
  }

  boolean(name: string, fallback?: boolean): boolean {
    return this.#checked(name, fallback, (value) => typeof value === 'boolean', 'true or false')
  }

  number(name: string, fallback?: number): number {
    const value = this.get(name)
    // transformers writes 10³⁰ for "no limit", which is parsed as a bigint.
    if (typeof value === 'bigint') return Number(value)
    return this.#checked(name, fallback, (value) => typeof value === 'number', 'a number')
  }

  whole(name: string, fallback?: number): number {
    return this.#checked(
      name,
      fallback,
      (value) => Number.isSafeInteger(value) && (value as number) >= 0,
      'an integer of at least 0',
    )
  }

  /** Read a string of one code point. */
  character(name: string, fallback?: string): string {
    const text = this.string(name, fallback)
    if ([...text.slice(0, 3)].length !== 1) throw this.error(name, 'one character', text)
    return text
  }

  list(name: string, fallback?: readonly unknown[]): readonly unknown[] {
    return this.#checked(name, fallback, Array.isArray, 'a list')
  }

  object(name: string): Fields {
    return Fields.of(this.get(name), this.path(name), this.file)
  }

  /** Read a list of objects. */
  objects(name: string): Fields[] {
    return this.list(name).map((value, i) => Fields.of(value, `${this.path(name)}[${i}]`, this.file))
  }

  path(name: string): string {
    return this.where === '' ? name : `${this.where}.${name}`
  }

  error(name: string, expected: string, value: unknown): DataError {
    const entry = this.path(name)
    return new DataError(`${this.file}: ${entry}: expected ${expected}, got ${shown(value)}`, {
      file: this.file,
      entry,
    })
  }

  fail(what: string): never {
    throw new DataError(`${this.file}: ${this.where}: ${what}`, { file: this.file, entry: this.where })
  }

  #checked<T>(name: string, fallback: T | undefined, good: (value: unknown) => boolean, expected: string): T {
    const value = this.get(name) ?? fallback
    if (value === undefined || !good(value)) throw this.error(name, expected, value)
    return value as T
  }
}
