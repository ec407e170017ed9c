// The commands of `voxtorch`. The command-line page of the documentation is generated from their tables.
import { ConfigError } from '../base/errors.js'
import { type CommandRule, commandRule } from '../kit/command.js'
import { ecfScore } from '../systems/emotion/commands/ecf-score.js'
import { emotionCommands } from '../systems/emotion/commands/index.js'
import { emoverseCommands } from '../systems/emoverse/commands/index.js'
import { salmonnCommands } from '../systems/salmonn/commands/index.js'
import { spectraCommands } from '../systems/spectra/commands/index.js'
import { usdmCommands } from '../systems/usdm/commands/index.js'
import { doctor } from './doctor.js'
import { dpoRule } from './dpo.js'
import { grpoRule } from './grpo.js'
import { install } from './install.js'
import { launch } from './launch.js'
import { listRuns } from './runs.js'
import { serveRule } from './serve.js'
import { sftRule } from './sft.js'
import { transcribeRule } from './transcribe.js'
import { weightsRule } from './weights.js'

const installRule = commandRule({
  name: 'install',
  summary: 'Find or download libtorch, and build the native addon if no prebuilt one fits.',
  details: `  voxtorch install

Looks for libtorch in the folder LIBTORCH, in the cache and in the torch package of python3, and downloads it otherwise. Run
\`voxtorch doctor\` if it fails.`,
  options: {
    build: { type: 'boolean', help: 'build the addon even if a prebuilt one fits' },
    cuda: { type: 'boolean', help: 'build the addon with the CUDA kernels' },
  },
  async run({ build = false, cuda = false }) {
    await install({ build: build || cuda, cuda, report: (line) => console.log(`[voxtorch] ${line}`) })
    return 0
  },
})

const doctorRule = commandRule({
  name: 'doctor',
  summary: 'Report the installation and its problems; the exit code is 1 if voxtorch cannot run.',
  options: {},
  async run() {
    const { lines, healthy } = await doctor()
    console.log(lines.join('\n'))
    return healthy ? 0 : 1
  },
})

const runsRule = commandRule({
  name: 'runs',
  summary: 'List the training runs in a folder, with their metrics and differing arguments.',
  details: `  voxtorch runs runs

DIR is searched with its subfolders; the default is the current folder. A run is a folder in which a Trainer wrote run.json.`,
  files: '[DIR]',
  options: {},
  async run(_, [folder = '.', more]) {
    if (more !== undefined)
      throw new ConfigError(`runs: expected at most one folder, got a second argument "${more}".`, { argument: more })
    console.log(listRuns(folder).join('\n'))
    return 0
  },
})

/** The launch command. Arguments after the script belong to the script. */
export const launchRule = commandRule({
  name: 'launch',
  summary: 'Run a script in N processes for distributed training (initProcessGroup).',
  details: `  voxtorch launch --nproc 2 train.mjs --epochs 3

Arguments after the script are passed to it. If one process fails, the others are stopped.`,
  files: 'SCRIPT [ARGUMENTS]',
  options: { nproc: { type: 'integer', help: 'number of processes; required' } },
  run: (_, words) => launch(words),
})

export const COMMANDS: readonly CommandRule[] = [
  transcribeRule,
  serveRule(),
  sftRule,
  dpoRule,
  grpoRule,
  weightsRule,
  doctorRule,
  installRule,
  runsRule,
  launchRule,
  ecfScore,
]
/** The subcommands of each system. */
export const SYSTEMS: Readonly<Record<string, readonly CommandRule[]>> = {
  spectra: spectraCommands,
  salmonn: salmonnCommands,
  usdm: usdmCommands,
  emotion: emotionCommands,
  emoverse: emoverseCommands,
}
/** The default subcommand of a system when a file is given instead. */
export const FILE_VERBS: Readonly<Record<string, string>> = { emotion: 'label' }
