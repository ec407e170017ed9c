// commander parses the command line, and this module checks the values.
import { Command, CommanderError, Option } from 'commander'
import { ConfigError } from '../base/errors.js'
import { requireForm } from '../base/form.js'
import { type Check, mismatch, type Setting, type SettingType } from '../base/settings.js'
import { nearest } from '../base/words.js'
import { requireDevice } from '../tensor/dtype.js'

/** Type of an option's value: that of a setting, or a `list`, `a,b,c`. A `boolean` takes no value; `--no-…` sets it to false. */
export type OptionType = Exclude<SettingType, 'numbers' | Check> | 'list'

/** Definition of an option. Those of a table of settings are definitions of options too: `settings({ … }).options`. */
export interface OptionDefinition
  extends Pick<Setting, 'min' | 'below' | 'defaultText' | 'placeholder' | 'aliases' | 'takesValue' | 'nullable'> {
  readonly type: OptionType
  /** One line for `--help` and the documentation. */
  readonly help: string
  /** Default value. Only `--help` shows it; the function that takes the option applies it. */
  readonly default?: string | number | boolean | null
  /** For `strings`: take one argument per occurrence, because the next argument may not be an option. */
  readonly oneEach?: boolean
  /** Whether to leave the option out of `--help` and the documentation. */
  readonly hidden?: boolean
  /** Values that have no effect, with the reason. */
  readonly ignoredValues?: Readonly<Record<string, string>>
}

/** Options of a command by name in camelCase; the command line uses kebab-case. */
export type OptionTable = Readonly<Record<string, OptionDefinition>>

/**
 * Options of the original that have no equivalent name. `reason` says why an option has no effect (`takesValue: 'several'` takes
 * all arguments up to the next option); `instead` is the advice in the error about an option that other programs have; `read` returns the equivalent option and value, or undefined.
 */
export type OriginalOptions = Readonly<
  Record<
    string,
    | { readonly takesValue: boolean | 'several'; readonly reason: string }
    | { readonly instead: string }
    | { readonly read: (text: string, flag: string) => readonly [name: string, text: string] | undefined }
  >
>

type ValueOf<K extends OptionType> = K extends 'boolean'
  ? boolean
  : K extends 'number' | 'integer' | 'fraction'
    ? number
    : K extends 'list' | 'strings'
      ? string[]
      : K extends readonly (infer Word)[]
        ? Word
        : string

/** Parsed options of a table; each may be missing. */
export type OptionsOf<T extends OptionTable> = { -readonly [Name in keyof T]?: ValueOf<T[Name]['type']> }

/** Throw a ConfigError if there is an argument that is not an option, for commands that take options only. */
export function refuseFiles(subject: string, [file]: readonly string[]): void {
  if (file === undefined) return
  throw wrong(
    file,
    `${subject}: expected only options, which begin with --, got ${JSON.stringify(file)}. Run ${subject} --help.`,
  )
}

/** An option without effect, with the reason, for a warning. */
export interface IgnoredOption {
  flag: string
  reason: string
}

export interface ReadOptions<T extends OptionTable> {
  options: OptionsOf<T>
  /** Arguments that are not options. */
  files: string[]
  ignored: IgnoredOption[]
}

/** Return the flag of an option name: `--max-steps` for `maxSteps`. */
export const flagOf = (name: string): string => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

/** Return the error for a missing option, such as "--data: expected a folder, got nothing. Add --data DIR." */
export const missingOption = (name: string, expected: string, value: string): ConfigError =>
  new ConfigError(`${flagOf(name)}: expected ${expected}, got nothing. Add ${flagOf(name)} ${value}.`, {
    argument: name,
  })

/** Convert a table to commander's options, for parsing and for `--help`. */
export function commanderOptions(table: OptionTable): Option[] {
  return Object.entries(table).flatMap(([name, definition]) => {
    const { help, aliases = [], hidden = false } = definition
    const { default: value, defaultText = value || value === 0 ? String(value) : undefined } = definition
    const notes = [
      ...(defaultText === undefined ? [] : [`default: ${defaultText}`]),
      ...(aliases.length === 0
        ? []
        : [`also ${aliases.map((alias) => (alias.startsWith('-') ? alias : `--${alias}`)).join(', ')}`]),
    ]
    const text = notes.length === 0 ? help : `${help} (${notes.join('; ')})`
    if (isFlag(definition)) {
      return [new Option(flagOf(name), text).hideHelp(hidden), new Option(`--no-${flagOf(name).slice(2)}`).hideHelp()]
    }
    const option = new Option(`${flagOf(name)} <${placeholderOf(definition)}>`, text).hideHelp(hidden)
    return [option.argParser((text, before) => checked(flagOf(name), definition, text, before as string[] | undefined))]
  })
}

const PLACEHOLDERS = {
  ...{ string: 'text', number: 'number', integer: 'n', fraction: 'fraction', boolean: 'true|false' },
  ...{ list: 'a,b', strings: 'key=value' },
}

/** Return whether an option takes no value. */
const isFlag = ({ type, takesValue = false }: OptionDefinition): boolean => type === 'boolean' && !takesValue

function placeholderOf({ type, placeholder }: OptionDefinition): string {
  return placeholder ?? (typeof type === 'string' ? PLACEHOLDERS[type] : type.join('|'))
}

/**
 * Parse a command line: `--batch-size 24`, `--batch_size=24`, or an alias of the table.
 * @param subject command name, for messages
 * @throws ConfigError for an unknown option, with the nearest name; for a missing or invalid value; for a repeated option
 */
export function readOptions<const T extends OptionTable>(
  subject: string,
  table: T,
  argv: readonly string[],
  originalOptions: OriginalOptions = {},
): ReadOptions<T> {
  requireForm(subject, 'argv', argv, ['string'])
  const { words, ignored } = spelled(subject, table, argv, originalOptions)
  const command = new Command(subject)
    .exitOverride()
    .configureOutput({ writeErr: () => {} })
    .helpOption(false)
  for (const option of commanderOptions(table)) command.addOption(option)
  try {
    command.argument('[files...]').parse(words, { from: 'user' })
  } catch (cause) {
    if (!(cause instanceof CommanderError)) throw cause
    throw new ConfigError(cause.message.replace(/^error: /, ''), { cause })
  }
  return { options: { ...command.opts() } as OptionsOf<T>, files: command.args, ignored }
}

/** Rewrite the command line as `--name=value` with the table's names, so that commander cannot misread a value. */
function spelled(subject: string, table: OptionTable, argv: readonly string[], originalOptions: OriginalOptions) {
  const names = new Map<string, string>()
  for (const [name, { aliases = [] }] of Object.entries(table))
    for (const flag of [flagOf(name).slice(2), ...aliases]) names.set(flag.replaceAll('_', '-'), name)
  const others = new Map(Object.entries(originalOptions).map(([flag, other]) => [flag.replaceAll('_', '-'), other]))
  const rest = [...argv]
  const [words, files, ignored, assigned] = [[] as string[], [] as string[], [] as IgnoredOption[], new Set<string>()]
  const assign = (flag: string, name: string, text: string) => {
    const definition = table[name] as OptionDefinition
    const { type, ignoredValues = {} } = definition
    const reason = Object.hasOwn(ignoredValues, text) ? ignoredValues[text] : undefined
    if (reason !== undefined) return void ignored.push({ flag: `${flag} ${text}`, reason })
    if (assigned.has(name) && type !== 'strings') {
      throw wrong(flag, `${flag}: expected the option once, got it again (as ${flagOf(name)}). Remove one of them.`)
    }
    assigned.add(name)
    if (!isFlag(definition)) words.push(`${flagOf(name)}=${text}`)
    else words.push(text === 'true' ? flagOf(name) : `--no-${flagOf(name).slice(2)}`)
  }
  while (rest.length > 0) {
    const word = rest.shift() as string
    const isShort = /^-[A-Za-z]/.test(word) && (names.has(word) || others.has(word))
    const match = isShort ? [word, word] : /^--([A-Za-z][\w-]*)(?:=([\s\S]*))?$/.exec(word)
    if (word === '--') files.push(...rest.splice(0))
    else if (!match && /^-./.test(word))
      throw wrong(
        word,
        `${subject}: expected an option, such as --name, got ${JSON.stringify(word)}. Run ${subject} --help.`,
      )
    else if (!match) files.push(word)
    if (!match) continue
    const [, key = '', given] = match
    const flag = isShort ? word : `--${key}`
    const value = (): string => {
      const found = given ?? rest.shift()
      if (found !== undefined && found !== '' && !(given === undefined && /^--[A-Za-z]/.test(found))) return found
      throw wrong(flag, `${flag}: expected a value, got none. Write ${flag} VALUE.`)
    }
    const takeMore = (take: (text: string) => void): void => {
      while (rest.length > 0 && !/^--[A-Za-z]/.test(rest[0] as string)) take(rest.shift() as string)
    }
    const plain = key.replaceAll('_', '-')
    const denied = plain.startsWith('no-') ? names.get(plain.slice(3)) : undefined
    const name = names.get(plain)
    const other = others.get(plain)
    if (other !== undefined && 'reason' in other) {
      if (other.takesValue) value()
      if (other.takesValue === 'several' && given === undefined) takeMore(() => {})
      ignored.push({ flag, reason: other.reason })
    } else if (other !== undefined && 'instead' in other) {
      throw wrong(flag, `${subject}: expected a known option, got ${flag}. ${other.instead}`)
    } else if (other !== undefined) {
      const meant = other.read(value(), flag)
      if (meant) assign(flag, ...(meant as [string, string]))
    } else if (name !== undefined && isFlag(table[name] as OptionDefinition)) {
      if (given !== undefined && given !== 'true' && given !== 'false') {
        throw wrong(
          flag,
          `${flag}: expected true or false, got ${JSON.stringify(given)}. Leave the value out for true.`,
        )
      }
      assign(flag, name, given ?? 'true')
    } else if (name !== undefined && table[name]?.type === 'strings') {
      if (given !== undefined) assign(flag, name, given)
      else {
        assign(flag, name, value())
        if (!table[name]?.oneEach) takeMore((text) => assign(flag, name, text))
      }
    } else if (name !== undefined) assign(flag, name, value())
    else if (denied !== undefined && isFlag(table[denied] as OptionDefinition) && given === undefined)
      assign(flag, denied, 'false')
    else {
      const known = [...others].flatMap(([flag, other]) => ('instead' in other ? [] : [flag]))
      const near = nearest(plain, [...names.keys(), ...known])
      const hint = near === undefined ? `Run ${subject} --help.` : `Did you mean --${near}?`
      throw wrong(flag, `${subject}: expected a known option, got ${flag}. ${hint}`)
    }
  }
  return { words: [...words, '--', ...files], ignored }
}

/** Parse the value of an option, and check it as a value of the same setting. */
function checked(flag: string, definition: OptionDefinition, text: string, before: string[] | undefined): unknown {
  const { type } = definition
  // commander passes other errors than its own on as they are.
  const fail = (what: string) => wrong(flag, `${flag}: expected ${what}, got ${JSON.stringify(text)}.`)
  if (typeof type !== 'string') {
    const word = type.find((one) => String(one) === text)
    if (word === undefined) throw fail(type.join(' or '))
    return word
  }
  if (flag === '--device') requireDevice(flag, text)
  if (type === 'string') return text
  if (type === 'list') return text.split(',').map((item) => item.trim())
  if (type === 'strings') return [...(before ?? []), text]
  if (type === 'boolean') {
    if (text !== 'true' && text !== 'false') throw fail('true or false')
    return text === 'true'
  }
  const value = text.trim() === '' ? Number.NaN : Number(text)
  const expected = mismatch(value, { ...definition, type })
  if (expected !== undefined) throw fail(expected)
  return value
}

const wrong = (argument: string, message: string): ConfigError => new ConfigError(message, { argument })
