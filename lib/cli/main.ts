#!/usr/bin/env node
import { parseArgs } from 'node:util'
import { VoxtorchError } from '../base/errors.js'
import { SUPPORTED } from '../native/libtorch.js'
import { packageVersion } from '../native/load.js'
import { doctor } from './doctor.js'
import { install } from './install.js'
import { launch } from './launch.js'
import { listRuns } from './runs.js'
import { convertCommand } from './salmonn-convert.js'
import { serveCommand } from './serve.js'

const HELP = `voxtorch ${packageVersion()}: speech and text models on libtorch ${SUPPORTED.minor}

  voxtorch install [--build] [--cuda]   find or fetch libtorch, and build the native addon where no prebuilt one fits
                                        (--build: build it in any case; --cuda: with the CUDA kernels)
  voxtorch doctor                       what was found, where and why; ends with code 1 if voxtorch cannot run
  voxtorch launch --nproc N script.js [arguments]
                                        run a script in N processes that train together (initProcessGroup)
  voxtorch serve MODEL --model DIR      a page and an HTTP API to ask a model about audio; serve --help says more
  voxtorch salmonn-convert IN.jsonl OUT.json
                                        the dialogs of the HumDial challenge as training data; --help says more
  voxtorch runs [DIR]                   the trainings in a folder, what they reached and in what they differ
  voxtorch help, --help                 this text
  voxtorch --version

Variables
  VOXTORCH_API_KEY         serve: what clients must send
  LIBTORCH                 the libtorch, or torch package, to use
  VOXTORCH_ANY_LIBTORCH    1: install builds for the one that LIBTORCH names, whatever its version
  VOXTORCH_ADDON           the folder of a build of the addon
  VOXTORCH_LIBTORCH_SHA256 the checksum of the libtorch archive, which is fetched where there is no pip
  XDG_CACHE_HOME           the user cache, else ~/.cache: voxtorch keeps libtorch there
  CXX, CMAKE_BUILD_PARALLEL_LEVEL   the C++ compiler, and how many run at once`

async function main(): Promise<number> {
  // What stands behind the script's name is the script's.
  if (process.argv[2] === 'launch') return await launch(process.argv.slice(3))
  if (process.argv[2] === 'salmonn-convert') return await convertCommand(process.argv.slice(3))
  if (process.argv[2] === 'serve') return await serveCommand(process.argv.slice(3))
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: {
      build: { type: 'boolean', default: false },
      cuda: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
      version: { type: 'boolean', short: 'v', default: false },
    },
  })
  if (values.version) {
    console.log(packageVersion())
    return 0
  }
  const [command = 'help', ...more] = values.help ? ['help'] : positionals
  if (more.length > (command === 'runs' ? 1 : 0)) throw new TypeError(`Unexpected argument "${more.at(-1)}".`)
  switch (command) {
    case 'install':
      await install({
        build: values.build || values.cuda,
        cuda: values.cuda,
        report: (line) => console.log(`[voxtorch] ${line}`),
      })
      return 0
    case 'doctor': {
      const { lines, healthy } = doctor()
      console.log(lines.join('\n'))
      return healthy ? 0 : 1
    }
    case 'runs':
      console.log(listRuns(more[0] ?? '.').join('\n'))
      return 0
    case 'help':
      console.log(HELP)
      return 0
    default:
      throw new TypeError(`There is no command "${command}".`)
  }
}

// No top-level await: what `require` can load has none, this file included.
main().then(
  (code) => {
    process.exitCode = code
  },
  (error) => {
    const expected = error instanceof VoxtorchError || error instanceof TypeError
    console.error(expected ? `voxtorch: ${error.message}` : error)
    if (error instanceof TypeError) console.error('`voxtorch help` lists the commands.')
    process.exitCode = 1
  },
)
