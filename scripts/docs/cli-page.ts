import { COMMANDS, SYSTEMS } from '../../lib/cli/commands.js'
import type { CommandRule } from '../../lib/kit/command.js'
import { commanderOptions } from '../../lib/kit/options.js'

const INTRODUCTION = `# Commands

\`npx voxtorch COMMAND --help\` prints the same texts. \`--max-steps 5\`, \`--max_steps 5\` and \`--max-steps=5\` are equal. \`--no-NAME\` turns a
flag off. An unknown option is an error that names the nearest one.
`
const FENCE = '```'

/** The page of all commands, as Markdown. */
export function cliPage(): string {
  const systems = Object.entries(SYSTEMS).flatMap(([system, rules]) =>
    rules.map((rule) => section(`voxtorch ${system} ${rule.name}`, rule)),
  )
  const others = COMMANDS.map((rule) => section(`voxtorch ${rule.name}`, rule))
  return [INTRODUCTION, ...others, ...systems].join('\n')
}

function section(subject: string, { summary, details, files, options }: CommandRule): string {
  const rows = commanderOptions(options)
    .filter(({ hidden }) => !hidden)
    .map(({ flags, description }) => `| \`${flags.replaceAll('|', '\\|')}\` | ${plain(description)} |`)
  const usage = ['npx', subject, ...(rows.length > 0 ? ['[options]'] : []), ...(files === undefined ? [] : [files])]
  return [
    `## ${subject}`,
    plain(summary),
    fenced('sh', usage.join(' ')),
    ...(details === undefined ? [] : [fenced('text', details)]),
    ...(rows.length > 0 ? [['| Option | |', '| --- | --- |', ...rows].join('\n')] : []),
    '',
  ].join('\n\n')
}

const fenced = (language: string, text: string): string => `${FENCE}${language}\n${text}\n${FENCE}`
/** Text in which nothing is Markdown or a tag. */
const plain = (text: string): string => text.replace(/[|*_<>{}[\]`]/g, (sign) => `&#${sign.charCodeAt(0)};`)
