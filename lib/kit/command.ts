import { Command } from 'commander'
import {
  commanderOptions,
  type ForeignOptions,
  type IgnoredOption,
  type OptionsOf,
  type OptionTable,
  readOptions,
  refuseFiles,
} from './options.js'

/** A verb of the `voxtorch` command. Its table makes the command line, `--help` and the page of the documentation. */
export interface CommandRule<T extends OptionTable = OptionTable> {
  readonly name: string
  /** One line. */
  readonly summary: string
  /** What `--help` says beyond the options: examples, forms of files. */
  readonly details?: string
  /** What is no option, in words: `IN.jsonl OUT.json`. Left out where there is nothing of that kind. */
  readonly files?: string
  readonly options: T
  readonly foreign?: ForeignOptions
  /** Does it; loads what it needs itself, so that `--help` and other commands do not load libtorch. Gives the exit code, or 0. */
  run(options: OptionsOf<T>, files: string[], ignored: readonly IgnoredOption[]): Promise<number | undefined>
}

/** A command with its table's types. */
export const commandRule = <const T extends OptionTable>(rule: CommandRule<T>): CommandRule => rule as never

/** Reads what stands behind the command's name, tells what has no effect, and runs it. */
export async function runCommand(subject: string, rule: CommandRule, argv: readonly string[]): Promise<number> {
  if (argv.some((word) => word === '--help' || word === '-h')) {
    process.stdout.write(helpOf(subject, rule))
    return 0
  }
  const { options, files, ignored } = readOptions(subject, rule.options, argv, rule.foreign)
  if (rule.files === undefined) refuseFiles(subject, files)
  for (const { flag, reason } of ignored) console.error(`${flag} has no effect: ${reason}`)
  return (await rule.run(options, files, ignored)) ?? 0
}

/** The text of `--help`. */
export function helpOf(subject: string, { summary, details, files, options }: CommandRule): string {
  const command = new Command(subject).description(details === undefined ? summary : `${summary}\n\n${details}`)
  for (const option of commanderOptions(options)) command.addOption(option)
  command.usage(`[options]${files === undefined ? '' : ` ${files}`}`).helpOption('-h, --help', 'this text')
  return command.configureHelp({ helpWidth: 130 }).helpInformation()
}
