// commander parses; values are checked here and not by zod 4.6.7, which takes five times as long to load: --help would wait for it.
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { ConfigError } from '../base/errors.js'
import { requireForm } from '../base/form.js'
import { nearest } from '../base/words.js'

/**
 * What an option takes: `number` and `whole` are at least 0, a `share` is below 1, a `list` is `a,b,c`, `texts` are several
 * words behind the option or behind each of it, a list of words is one of them. A `flag` takes nothing, and `--no-…` denies it.
 */
export type OptionKind = 'text' | 'number' | 'whole' | 'share' | 'flag' | 'list' | 'texts' | readonly string[]

export interface OptionRule {
  readonly kind: OptionKind
  /** A line for `--help` and the documentation. */
  readonly help: string
  /** What the value is called there. Default by its kind. */
  readonly value?: string
  /** What holds where it is left out, in words or as it is. */
  readonly preset?: string | number
  /** Other spellings, such as the original's. Hyphen and underscore are alike. `-c` is a short one. */
  readonly aliases?: readonly string[]
  /** Of `texts`: one behind each option, since what follows may be no option. */
  readonly oneEach?: boolean
  /** Left out of `--help` and the documentation. */
  readonly hidden?: boolean
  /** A value that has nothing to say here, with the reason. */
  readonly without?: Readonly<Record<string, string>>
}

/** The options of a command by their names in camelCase; on the command line they are in kebab-case. */
export type OptionTable = Readonly<Record<string, OptionRule>>

/**
 * Options of the original that are no other names: `reason` says why one has no effect here (one that takes `'several'` values takes
 * all words up to the next option), `read` gives the option that it stands for, or nothing.
 */
export type ForeignOptions = Readonly<
  Record<
    string,
    | { readonly takesValue: boolean | 'several'; readonly reason: string }
    | { readonly read: (text: string, flag: string) => readonly [name: string, text: string] | undefined }
  >
>

type ValueOf<K extends OptionKind> = K extends 'flag'
  ? boolean
  : K extends 'number' | 'whole' | 'share'
    ? number
    : K extends 'list' | 'texts'
      ? string[]
      : K extends readonly (infer Word)[]
        ? Word
        : string

/** What a table's options are once they are read; all may be missing. */
export type OptionsOf<T extends OptionTable> = { -readonly [Name in keyof T]?: ValueOf<T[Name]['kind']> }

/** Says that a word is no option, where nothing but options is taken. */
export function refuseFiles(subject: string, [file]: readonly string[]): void {
  if (file === undefined) return
  throw wrong(file, `${subject}: ${JSON.stringify(file)} is no option: they begin with --`)
}

/** What was given and has no effect, with the reason: tell the user. */
export interface IgnoredOption {
  flag: string
  reason: string
}

export interface ReadOptions<T extends OptionTable> {
  options: OptionsOf<T>
  /** What is no option. */
  files: string[]
  ignored: IgnoredOption[]
}

/** `--max-steps` of `maxSteps`. */
export const flagOf = (name: string): string => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

/** Return the error for a missing option, such as "--data: expected a folder, got nothing. Add --data DIR." */
export const missingOption = (name: string, expected: string, value: string): ConfigError =>
  new ConfigError(`${flagOf(name)}: expected ${expected}, got nothing. Add ${flagOf(name)} ${value}.`, {
    argument: name,
  })

/** An option as commander knows it, for reading and for `--help`. */
export function commanderOptions(table: OptionTable): Option[] {
  return Object.entries(table).flatMap(([name, rule]) => {
    const { kind, help, preset, aliases = [], hidden = false } = rule
    const notes = [
      ...(preset === undefined ? [] : [`default: ${preset}`]),
      ...(aliases.length === 0
        ? []
        : [`also ${aliases.map((alias) => (alias.startsWith('-') ? alias : `--${alias}`)).join(', ')}`]),
    ]
    const text = notes.length === 0 ? help : `${help} (${notes.join('; ')})`
    if (kind === 'flag') {
      return [new Option(flagOf(name), text).hideHelp(hidden), new Option(`--no-${flagOf(name).slice(2)}`).hideHelp()]
    }
    const option = new Option(`${flagOf(name)} <${valueName(rule)}>`, text).hideHelp(hidden)
    return [option.argParser((value, before) => checked(flagOf(name), kind, value, before as string[] | undefined))]
  })
}

function valueName({ kind, value }: OptionRule): string {
  if (value !== undefined) return value
  if (typeof kind !== 'string') return kind.join('|')
  return { text: 'text', number: 'number', whole: 'n', share: 'share', flag: '', list: 'a,b', texts: 'key=value' }[kind]
}

/**
 * Reads a command line by a table: `--batch-size 24`, `--batch_size=24` or another spelling of the table's.
 * @param subject whose options they are, for messages
 * @throws ConfigError for an unknown option, naming the nearest; for a value that is missing or wrong; for an option given
 * twice
 */
export function readOptions<const T extends OptionTable>(
  subject: string,
  table: T,
  argv: readonly string[],
  foreign: ForeignOptions = {},
): ReadOptions<T> {
  requireForm(subject, 'argv', argv, ['string'])
  const { words, ignored } = spelled(subject, table, argv, foreign)
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

/** The command line in the table's own words, `--name=value` each, so that nothing in it can be taken for something else. */
function spelled(subject: string, table: OptionTable, argv: readonly string[], foreign: ForeignOptions) {
  const names = new Map<string, string>()
  for (const [name, { aliases = [] }] of Object.entries(table))
    for (const flag of [flagOf(name).slice(2), ...aliases]) names.set(flag.replaceAll('_', '-'), name)
  const others = new Map(Object.entries(foreign).map(([flag, rule]) => [flag.replaceAll('_', '-'), rule]))
  const rest = [...argv]
  const [words, files, ignored, said] = [[] as string[], [] as string[], [] as IgnoredOption[], new Set<string>()]
  const say = (flag: string, name: string, text: string) => {
    const rule = table[name] as OptionRule
    const reason = rule.without !== undefined && Object.hasOwn(rule.without, text) ? rule.without[text] : undefined
    if (reason !== undefined) return void ignored.push({ flag: `${flag} ${text}`, reason })
    if (said.has(name) && rule.kind !== 'texts') {
      throw wrong(flag, `${flag} says again what was said before (${flagOf(name)})`)
    }
    said.add(name)
    if (rule.kind !== 'flag') words.push(`${flagOf(name)}=${text}`)
    else words.push(text === 'true' ? flagOf(name) : `--no-${flagOf(name).slice(2)}`)
  }
  while (rest.length > 0) {
    const word = rest.shift() as string
    const isShort = /^-[A-Za-z]/.test(word) && (names.has(word) || others.has(word))
    const match = isShort ? [word, word] : /^--([A-Za-z][\w-]*)(?:=([\s\S]*))?$/.exec(word)
    if (word === '--') files.push(...rest.splice(0))
    else if (!match && /^-./.test(word)) throw wrong(word, `${JSON.stringify(word)} is no option: they begin with --`)
    else if (!match) files.push(word)
    if (!match) continue
    const [, key = '', given] = match
    const flag = isShort ? word : `--${key}`
    const value = (): string => {
      const found = given ?? rest.shift()
      if (found !== undefined && found !== '' && !(given === undefined && /^--[A-Za-z]/.test(found))) return found
      throw wrong(flag, `${flag} needs a value`)
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
    } else if (other !== undefined) {
      const meant = other.read(value(), flag)
      if (meant) say(flag, ...(meant as [string, string]))
    } else if (name !== undefined && table[name]?.kind === 'flag') {
      if (given !== undefined && given !== 'true' && given !== 'false') {
        throw wrong(flag, `${flag} is true or false, not ${JSON.stringify(given)}`)
      }
      say(flag, name, given ?? 'true')
    } else if (name !== undefined && table[name]?.kind === 'texts') {
      if (given !== undefined) say(flag, name, given)
      else {
        say(flag, name, value())
        if (!table[name]?.oneEach) takeMore((text) => say(flag, name, text))
      }
    } else if (name !== undefined) say(flag, name, value())
    else if (denied !== undefined && table[denied]?.kind === 'flag' && given === undefined) say(flag, denied, 'false')
    else {
      const near = nearest(plain, [...names.keys(), ...others.keys()])
      throw wrong(flag, `${subject} has no option ${flag}${near === undefined ? '' : `; did you mean --${near}?`}`)
    }
  }
  return { words: [...words, '--', ...files], ignored }
}

function checked(flag: string, kind: OptionKind, text: string, before: string[] | undefined): unknown {
  const fail = (what: string) => new InvalidArgumentError(`${flag} is ${what}, not ${JSON.stringify(text)}`)
  if (typeof kind !== 'string') {
    if (kind.includes(text)) return text
    throw fail(kind.join(' or '))
  }
  const value = text.trim() === '' ? Number.NaN : Number(text)
  switch (kind) {
    case 'number':
      if (Number.isFinite(value) && value >= 0) return value
      throw fail('a number of at least 0')
    case 'whole':
      if (Number.isSafeInteger(value) && value >= 0) return value
      throw fail('a whole number of at least 0')
    case 'share':
      if (value >= 0 && value < 1) return value
      throw fail('a share from 0 to below 1')
    case 'list':
      return text.split(',').map((item) => item.trim())
    case 'texts':
      return [...(before ?? []), text]
    default:
      return text
  }
}

const wrong = (argument: string, message: string): ConfigError => new ConfigError(message, { argument })
