// One table states each setting once: its type, default, range, help text, alternative names and its name in TrainingArguments.
// The TypeScript type, the checks, the command-line options and the mapping to TrainingArguments are derived from it.
import { optionsOf } from './arguments.js'
import { argumentError, defined, requireFunction, requireObject, requireSignal, shown } from './check.js'
import { withArticle } from './words.js'

/**
 * Check of a value that no named type describes, such as a callback. Throws if the value is wrong. `T` is the value's type.
 * Create one with `checkedBy`.
 */
export interface Check<T = unknown> {
  (where: string, name: string, value: unknown): void
  readonly valueType?: T
}

/**
 * Type of a setting's value. A `fraction` is in [0, 1), `strings` is a list of strings, and `numbers` is a list of
 * numbers. An array lists the allowed values. A function checks any other value.
 */
export type SettingType =
  | 'string'
  | 'number'
  | 'integer'
  | 'fraction'
  | 'boolean'
  | 'strings'
  | 'numbers'
  | readonly (string | number | boolean)[]
  | Check

/** Definition of a setting. */
export interface Setting {
  readonly type: SettingType
  /** Default value. A setting without one may be undefined. */
  readonly default?: unknown
  /** Whether the value must be given. */
  readonly required?: boolean
  /** Minimum of a number, or of each of the `numbers`. Default 0; -Infinity for none. */
  readonly min?: number
  /** Exclusive upper bound. */
  readonly below?: number
  /** Whether a number may be infinite. */
  readonly infinite?: boolean
  /** Number of elements of `numbers`. */
  readonly length?: number
  /** Whether null is allowed. */
  readonly nullable?: boolean
  /** One line for `--help` and the documentation. A setting without it has no command-line option. */
  readonly help?: string
  /** The default as `--help` shows it, if not `default`. */
  readonly defaultText?: string
  /** Placeholder of the value in `--help`. Default: by type. */
  readonly placeholder?: string
  /** Name of the command-line option, if it differs. */
  readonly option?: string
  /** Alternative names of the command-line option. */
  readonly aliases?: readonly string[]
  /** Whether the command-line option of a boolean takes `true` or `false`. */
  readonly takesValue?: boolean
  /** Names of the value in TrainingArguments; one for each element of `numbers`. Default: none. */
  readonly argument?: string | readonly string[]
}

export type SettingTable = Readonly<Record<string, Setting>>

type BaseValue<S extends Setting> =
  S['type'] extends Check<infer T>
    ? T
    : S['type'] extends readonly (infer Word)[]
      ? Word
      : S['type'] extends 'boolean'
        ? boolean
        : S['type'] extends 'number' | 'integer' | 'fraction'
          ? number
          : S['type'] extends 'strings'
            ? string[]
            : S['type'] extends 'numbers'
              ? S extends { length: 2 }
                ? [number, number]
                : number[]
              : string

// A conditional type, so that editors and the reference show `number | null` instead of its name.
/** Type of a setting's value. */
export type ValueOfSetting<S extends Setting> = S extends { nullable: true } ? BaseValue<S> | null : BaseValue<S>

/** The key K if a setting is always defined; `never` otherwise. */
type IfDefined<K, S extends Setting> = S extends { default: unknown } | { required: true } ? K : never
type IfRequired<K, S extends Setting> = S extends { required: true } ? K : never

// `keyof T` keeps the docstrings of the table's settings.
/** Checked values of a table: settings with a default are always defined. */
export type ValuesOf<T extends SettingTable> = {
  -readonly [K in keyof T as IfDefined<K, T[K]>]: ValueOfSetting<T[K]>
} & { -readonly [K in keyof T as Exclude<K, IfDefined<K, T[K]>>]?: ValueOfSetting<T[K]> }

/** Options that a function takes: each may be left out, except required ones. */
export type ChangesOf<T extends SettingTable> = {
  -readonly [K in keyof T as Exclude<K, IfRequired<K, T[K]>>]?: ValueOfSetting<T[K]> | undefined
} & { -readonly [K in keyof T as IfRequired<K, T[K]>]: ValueOfSetting<T[K]> }

/** Command-line options of a table: settings with a help text. */
export type OptionsOfSettings<T extends SettingTable> = {
  readonly [K in keyof T as T[K] extends { help: string }
    ? T[K] extends { option: infer Name extends string }
      ? Name
      : K
    : never]: T[K] & { readonly help: string }
}

/** Names in TrainingArguments of a table's settings, with their types. */
export type ArgumentsOf<T extends SettingTable> = {
  -readonly [K in keyof T as T[K] extends { argument: infer Name extends string }
    ? Name
    : T[K] extends { argument: readonly (infer Name extends string)[] }
      ? Name
      : never]?: T[K] extends { argument: string } ? ValueOfSetting<T[K]> : number
}

/** A table of settings and what is derived from it. Created by {@link settings}. */
export class Settings<T extends SettingTable> {
  readonly table: T
  readonly names: readonly (string & keyof T)[]
  /** The defaults. */
  readonly defaults: Readonly<ValuesOf<T>>
  /** Command-line options, for `readOptions` and `--help`. */
  readonly options: OptionsOfSettings<T>

  constructor(table: T) {
    const entries = Object.entries(table)
    this.table = table
    this.names = Object.keys(table)
    this.defaults = Object.fromEntries(
      entries.filter(([, setting]) => 'default' in setting).map(([name, setting]) => [name, setting.default]),
    ) as never
    this.options = Object.fromEntries(
      entries.filter(([, { help }]) => help !== undefined).map(([name, setting]) => [setting.option ?? name, setting]),
    ) as never
  }

  /**
   * Check options and fill in the defaults.
   * @param where name of the function or file, for messages
   * @param base defaults, if others than those of the table
   * @throws ConfigError for an unknown name, with the nearest one, and for a value of the wrong type or out of range
   */
  read(
    where: string,
    options: ChangesOf<T> = {} as ChangesOf<T>,
    base: Readonly<ValuesOf<T>> = this.defaults,
  ): ValuesOf<T> {
    const values = { ...base, ...optionsOf(options, where, this.names) } as ValuesOf<T>
    for (const [name, setting] of Object.entries(this.table)) {
      const value: unknown = values[name as keyof ValuesOf<T>]
      if (value !== undefined || setting.required) checkSetting(where, name, value, setting)
    }
    return values
  }

  /** Return those of the values that are settings of this table, without undefined ones. */
  changesIn(values: Readonly<Record<string, unknown>>, nameOf = (name: string): string => name): Partial<ValuesOf<T>> {
    const found = this.names.map((name) => [name, values[nameOf(name)]] as const)
    return Object.fromEntries(found.filter(([, value]) => value !== undefined)) as Partial<ValuesOf<T>>
  }

  /** Return those settings of this table that a command line changes, such as a recipe. */
  fromOptions(values: Readonly<Record<string, unknown>>): Partial<ValuesOf<T>> {
    return this.changesIn(values, (name) => this.table[name]?.option ?? name)
  }

  /** Return the values under their names in TrainingArguments. */
  trainingArguments(values: Readonly<Partial<ValuesOf<T>>>): ArgumentsOf<T> {
    const found: [string, unknown][] = []
    for (const [name, { argument }] of Object.entries(this.table)) {
      const value: unknown = values[name as keyof ValuesOf<T>]
      if (typeof argument === 'string') found.push([argument, value])
      else if (argument !== undefined)
        for (const [i, one] of argument.entries()) found.push([one, (value as unknown[] | undefined)?.[i]])
    }
    return Object.fromEntries(found.filter(([, value]) => value !== undefined)) as ArgumentsOf<T>
  }

  /** Return the table of only these settings. */
  pick<K extends string & keyof T>(...names: readonly K[]): Settings<Pick<T, K>> {
    return new Settings(Object.fromEntries(names.map((name) => [name, this.table[name]])) as Pick<T, K>)
  }

  /** Return the table with more settings, or with other definitions of the same names. */
  extend<const U extends SettingTable>(more: U): Settings<Omit<T, keyof U> & U> {
    return new Settings({ ...this.table, ...more } as Omit<T, keyof U> & U)
  }
}

/** Return a table of settings. */
export const settings = <const T extends SettingTable>(table: T): Settings<T> => new Settings(table)

/** Return a check as the type of a setting, such as `checkedBy<AbortSignal>((where, name, value) => requireSignal(where, value))`. */
export const checkedBy = <T>(check: (where: string, name: string, value: unknown) => void): Check<T> => check

/** An abort signal. */
export const SIGNAL = checkedBy<AbortSignal>((where, _, value) => requireSignal(where, value))

/** Return the type of a function. */
export const functionOf = <F>(): Check<F> => checkedBy<F>(requireFunction)

/** Return the type of the instances of a class. */
export const instanceOf = <T>(Class: { readonly prototype: T; readonly name: string }): Check<T> =>
  checkedBy<T>((where, name, value) => {
    if (!(value instanceof (Class as new () => T))) throw argumentError(where, name, withArticle(Class.name), value)
  })

/** Return the type of a value that the function which gets it checks. */
export const unchecked = <T>(): Check<T> => checkedBy<T>(() => {})

/** Check one value. @throws ConfigError as `<where>: expected <name> to be <expected>, got <value>` */
export function checkSetting(where: string, name: string, value: unknown, setting: Setting): void {
  const { type, min, below, length, nullable = false } = setting
  if (value === null && nullable) return
  if (typeof type === 'function') return type(where, name, value)
  if (type === 'numbers' && Array.isArray(value) && value.length === (length ?? value.length)) {
    for (const [i, one] of value.entries())
      checkSetting(where, `${name}[${i}]`, one, { type: 'number', ...defined({ min, below }) })
    return
  }
  const expected = mismatch(value, setting)
  if (expected !== undefined) throw argumentError(where, name, expected, value)
}

/** Return what was expected if a value is wrong. Used for options of functions, keys of files and the command line. */
export function mismatch(value: unknown, setting: Omit<Setting, 'help'>): string | undefined {
  const { type, min = 0, below = Infinity, length, infinite = false } = setting
  const unless = (good: boolean, expected: string) => (good ? undefined : expected)
  if (typeof type === 'function') return undefined
  if (typeof type !== 'string') {
    const isText = type.every((word) => typeof word === 'string')
    return unless(
      type.includes(value as string),
      isText ? type.map((word) => `'${word}'`).join(', ') : type.map(shown).join(' or '),
    )
  }
  const isNumber = typeof value === 'number' && value >= min && value < below
  const bounds = [...(min > -Infinity ? [`of at least ${min}`] : []), ...(below < Infinity ? [`below ${below}`] : [])]
  switch (type) {
    case 'number':
      if (infinite && value === Infinity) return undefined
      return unless(
        isNumber && value > -Infinity,
        [value === Infinity || value === -Infinity ? 'a finite number' : 'a number', bounds.join(' and ')]
          .join(' ')
          .trim(),
      )
    case 'integer':
      return unless(isNumber && Number.isSafeInteger(value), `an integer ${bounds.join(' and ')}`)
    case 'fraction':
      return unless(isNumber && value < 1, 'a fraction in [0, 1)')
    case 'numbers':
      return length === undefined ? 'a list of numbers' : `${length} numbers`
    case 'strings':
      return unless(Array.isArray(value) && value.every((one) => typeof one === 'string'), 'a list of strings')
    default:
      return unless(typeof value === type, `a ${type}`)
  }
}

/** Return the type of an object. The code that uses its fields checks them. */
export const objectOf = <T>(): Check<T> => checkedBy<T>(requireObject)

/** A list of strings that is only read. */
export const READONLY_STRINGS = checkedBy<readonly string[]>((where, name, value) =>
  checkSetting(where, name, value, { type: 'strings' }),
)
