// The commands of `voxtorch`. Their tables make the page of the documentation too.
import { ConfigError } from '../base/errors.js'
import { type CommandRule, commandRule } from '../kit/command.js'
import { ecfScore } from '../systems/languagebind-emotion/commands/ecf-score.js'
import { emotionCommands } from '../systems/languagebind-emotion/commands/index.js'
import { emoverseCommands } from '../systems/m2se/commands/index.js'
import { salmonnCommands } from '../systems/salmonn/commands/index.js'
import { spectraCommands } from '../systems/spectra/commands/index.js'
import { usdmCommands } from '../systems/usdm/commands/index.js'
import { doctor } from './doctor.js'
import { install } from './install.js'
import { launch } from './launch.js'
import { listRuns } from './runs.js'
import { serveRule } from './serve.js'
import { transcribeRule } from './transcribe.js'
import { weightsRule } from './weights.js'

const installRule = commandRule({
  name: 'install',
  summary: 'Finds or fetches libtorch, and builds the native addon where no prebuilt one fits.',
  options: {
    build: { kind: 'flag', help: 'builds it in any case' },
    cuda: { kind: 'flag', help: 'builds it with the CUDA kernels' },
  },
  async run({ build = false, cuda = false }) {
    await install({ build: build || cuda, cuda, report: (line) => console.log(`[voxtorch] ${line}`) })
    return 0
  },
})

const doctorRule = commandRule({
  name: 'doctor',
  summary: 'Says what was found, where and why; ends with code 1 if voxtorch cannot run.',
  options: {},
  async run() {
    const { lines, healthy } = await doctor()
    console.log(lines.join('\n'))
    return healthy ? 0 : 1
  },
})

const runsRule = commandRule({
  name: 'runs',
  summary: 'Lists the trainings in a folder, what they reached and in what they differ.',
  files: '[DIR]',
  options: {},
  async run(_, [folder = '.', more]) {
    if (more !== undefined) throw new ConfigError(`Unexpected argument "${more}"`, { argument: more })
    console.log(listRuns(folder).join('\n'))
    return 0
  },
})

/** Its script has arguments of its own. */
export const launchRule = commandRule({
  name: 'launch',
  summary: 'Runs a script in N processes that train together (initProcessGroup).',
  details: 'What stands behind the script is handed to it.',
  files: 'SCRIPT [ARGUMENTS]',
  options: { nproc: { kind: 'whole', help: 'how many processes; needed' } },
  run: (_, words) => launch(words),
})

export const COMMANDS: readonly CommandRule[] = [
  installRule,
  doctorRule,
  weightsRule,
  transcribeRule,
  serveRule(),
  runsRule,
  launchRule,
  ecfScore,
]
/** The verbs of each system. */
export const SYSTEMS: Readonly<Record<string, readonly CommandRule[]>> = {
  spectra: spectraCommands,
  salmonn: salmonnCommands,
  usdm: usdmCommands,
  emotion: emotionCommands,
  emoverse: emoverseCommands,
}
/** The verb of a system that is meant where a file stands in its place. */
export const FILE_VERBS: Readonly<Record<string, string>> = { emotion: 'label' }
