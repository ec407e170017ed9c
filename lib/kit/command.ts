import { Command } from 'commander'
import {
  commanderOptions,
  type IgnoredOption,
  type OptionsOf,
  type OptionTable,
  type OriginalOptions,
  readOptions,
  refuseFiles,
} from './options.js'

/** A subcommand of `voxtorch`. Its option table defines the command line, `--help` and the page of the documentation. */
export interface CommandRule<T extends OptionTable = OptionTable> {
  readonly name: string
  /** Alternative names. Every system has the verb `train`, as its name or as an alias of the original's. */
  readonly aliases?: readonly string[]
  /** One line in the imperative. */
  readonly summary: string
  /** Text of `--help` between summary and options: examples, file formats. */
  readonly details?: string
  /** Arguments that are not options, such as `IN.jsonl OUT.json`. Undefined if the command takes none. */
  readonly files?: string
  readonly options: T
  /** Return the options that `--help` shows for a command line. Default: all. */
  readonly helpOptions?: (argv: readonly string[]) => OptionTable
  readonly originalOptions?: OriginalOptions
  /** Run the command and return its exit code; undefined means 0. Import modules here, so that `--help` does not load libtorch. */
  run(options: OptionsOf<T>, files: string[], ignored: readonly IgnoredOption[]): Promise<number | undefined>
}

/** Return a command with the types of its option table. */
export const commandRule = <const T extends OptionTable>(rule: CommandRule<T>): CommandRule => rule as never

/** Parse the arguments of a command, warn about options without effect, and run it. */
export async function runCommand(subject: string, rule: CommandRule, argv: readonly string[]): Promise<number> {
  if (argv.some((word) => word === '--help' || word === '-h')) {
    process.stdout.write(helpOf(subject, { ...rule, options: rule.helpOptions?.(argv) ?? rule.options }))
    return 0
  }
  const { options, files, ignored } = readOptions(subject, rule.options, argv, rule.originalOptions)
  if (rule.files === undefined) refuseFiles(subject, files)
  for (const { flag, reason } of ignored) console.error(`${flag} has no effect: ${reason}`)
  return (await rule.run(options, files, ignored)) ?? 0
}

/** Columns of `--help` in a wide terminal, or in a file. */
const MAX_WIDTH = 130

/** Return the text of `--help`. */
export function helpOf(subject: string, { summary, details, files, options }: CommandRule): string {
  const command = new Command(subject).description(details === undefined ? summary : `${summary}\n\n${filled(details)}`)
  for (const option of commanderOptions(options)) command.addOption(option)
  command.usage(`[options]${files === undefined ? '' : ` ${files}`}`).helpOption('-h, --help', 'show this help')
  const helpWidth = Math.min(Math.max(process.stdout.columns ?? MAX_WIDTH, 80), MAX_WIDTH)
  return command.configureHelp({ helpWidth }).helpInformation()
}

/** Join the lines of each paragraph, which `helpInformation` wraps again. Indented lines, such as examples, stay as they are. */
const filled = (text: string): string => text.replace(/(\S)\n(?=\S)/g, '$1 ')
