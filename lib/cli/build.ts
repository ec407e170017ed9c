// Configure and compile the addon with the cmake-js program. Its JavaScript API has no options for the environment and the
// compiler's output.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism, totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { LibtorchError } from '../base/errors.js'
import { type Environment, type Libtorch, lastLine } from '../native/libtorch.js'
import { packageDirectory } from '../native/load.js'
import { pathWithCMake, which } from './provision.js'

export interface BuildOptions {
  /** Folder of CMakeLists.txt, native/ and cmake/. */
  root: string
  libtorch: Libtorch
  /** Working folder of cmake. */
  work: string
  /** Folder of the result, which may be the same. */
  out: string
  /** Whether to build the CUDA kernels, which needs nvcc and a CUDA libtorch. */
  cuda?: boolean
  /** Whether to build with AddressSanitizer and UndefinedBehaviorSanitizer. */
  sanitize?: boolean
  environment?: Environment
  report?: (line: string) => void
}

const require = createRequire(join(packageDirectory, 'package.json'))
/** First version of g++ with concepts and the three-way comparison. */
const OLDEST_COMPILER = 10
const RESULTS = ['voxtorch.node', 'voxtorch_loader.node', 'libvoxtorch_core.so', 'voxtorch-build.json']

/** Build the native addon, unless `out` contains a build of the same sources. Return whether it was built. */
export async function buildAddon(options: BuildOptions): Promise<boolean> {
  const { root, libtorch, work, out, report = () => {} } = options
  const stamp = join(out, '.voxtorch-stamp')
  const fingerprint = hashFiles(
    ['native', 'cmake', 'CMakeLists.txt'].map((name) => join(root, name)),
    [
      libtorch.home,
      libtorch.version,
      options.cuda ? 'cuda' : 'cpu',
      options.sanitize ? 'sanitize' : '',
      headerVersions(),
    ],
  )
  const complete = RESULTS.every((name) => existsSync(join(out, name)))
  if (complete && readIfThere(stamp) === fingerprint) return false

  requireCompiler(options)
  const PATH = await pathWithCMake(options)
  const environment: Environment = { ...(options.environment ?? process.env), PATH }
  report(`building the addon for libtorch ${libtorch.version} in ${work}, which takes some minutes`)
  rmSync(stamp, { force: true })
  configure(options, environment)
  const jobs = environment.CMAKE_BUILD_PARALLEL_LEVEL ?? String(parallelism())
  const { status } = spawnSync(process.execPath, cmakeJs('build', options, ['--parallel', jobs]), {
    stdio: ['ignore', process.stderr, process.stderr],
    env: environment as NodeJS.ProcessEnv,
  })
  if (status !== 0)
    throw new LibtorchError('Building the native addon failed. See the messages of the compiler above.', { work })
  if (work !== out) {
    mkdirSync(out, { recursive: true })
    for (const name of RESULTS) copyFileSync(join(work, name), join(out, name))
    rmSync(work, { recursive: true, force: true })
  }
  writeFileSync(stamp, fingerprint)
  return true
}

/** Return the arguments of Node that run cmake-js. */
const cmakeJs = (command: 'configure' | 'build', options: BuildOptions, more: string[]): string[] => [
  require.resolve('cmake-js/bin/cmake-js'),
  ...[command, '--log-level', 'warn', '--directory', options.root, '--out', options.work, '--config', 'Release'],
  ...namedCompiler(options.environment ?? process.env),
  ...more,
]

function configure(options: BuildOptions, environment: Environment): void {
  const { work, libtorch, cuda, sanitize } = options
  const onOff = (value: boolean | undefined) => (value ? 'ON' : 'OFF')
  const values = [
    `--CDVOXTORCH_LIBTORCH=${libtorch.home}`,
    `--CDVOXTORCH_NODE_API_INCLUDE=${require('node-api-headers').include_dir}`,
    // The package returns a path relative to the working folder.
    `--CDVOXTORCH_NODE_ADDON_API_INCLUDE=${resolve(require('node-addon-api').include_dir)}`,
    `--CDVOXTORCH_CUDA=${onOff(cuda)}`,
    `--CDVOXTORCH_SANITIZE=${onOff(sanitize)}`,
    // Without this cmake-js replaces CXXFLAGS by its own flags.
    ...['--', '-Wno-dev', '--log-level=NOTICE', `-DCMAKE_CXX_FLAGS=${environment.CXXFLAGS ?? ''}`],
  ]
  const run = () =>
    spawnSync(process.execPath, cmakeJs('configure', options, values), {
      encoding: 'utf8',
      env: environment as NodeJS.ProcessEnv,
      maxBuffer: 1 << 26,
    })
  const cache = join(work, 'CMakeCache.txt')
  const known = readIfThere(cache)
  // CMake caches the libraries that it found, so another libtorch needs a new configuration.
  if (known && !known.includes(`VOXTORCH_LIBTORCH:PATH=${libtorch.home}\n`)) removeCMakeFiles(work)
  let result = run()
  if (result.status !== 0 && existsSync(cache)) {
    removeCMakeFiles(work) // of another generator, another source folder, another compiler
    result = run()
  }
  if (result.status !== 0) {
    const output = `${result.stdout}${result.stderr}`.replace(/^ERROR OMG Process terminated.*\n/m, '')
    throw new LibtorchError(`Configuring the build with cmake failed:\n${output}`, { work })
  }
}

function removeCMakeFiles(work: string): void {
  for (const name of ['CMakeCache.txt', 'CMakeFiles', 'build.ninja', 'Makefile']) {
    rmSync(join(work, name), { recursive: true, force: true })
  }
}

function requireCompiler({ environment = process.env, cuda, libtorch }: BuildOptions): void {
  // In the search order of CMake.
  const compiler = environment.CXX || ['c++', 'g++', 'clang++'].find((name) => which(name, environment))
  if (!compiler) {
    throw new LibtorchError(
      'Expected a C++ compiler (g++ or clang++) in PATH or CXX, found none. Install one: `sudo apt-get install g++` (Debian, Ubuntu) ' +
        'or `sudo dnf install gcc-c++` (Fedora, RHEL).',
    )
  }
  const [program = compiler, ...words] = compiler.split(' ')
  const { stdout } = spawnSync(program, [...words, '-dumpversion'], {
    encoding: 'utf8',
    env: environment as NodeJS.ProcessEnv,
  })
  const version = stdout?.trim()
  if (version && Number.parseInt(version, 10) < OLDEST_COMPILER) {
    throw new LibtorchError(
      `C++ compiler ${compiler}: expected version ${OLDEST_COMPILER} or later, for C++20, got ${version}. Install one and set CXX: ` +
        '`sudo apt-get install g++-10` and CXX=g++-10 (Debian, Ubuntu), or `sudo dnf install gcc-toolset-12-gcc-c++` and ' +
        '`scl enable gcc-toolset-12 bash` (RHEL).',
      { compiler, version },
    )
  }
  if (cuda && !libtorch.cuda) {
    throw new LibtorchError(
      `libtorch ${libtorch.version} in ${libtorch.home}: expected a CUDA build, got a CPU build. Set LIBTORCH to a CUDA build, ` +
        'such as the torch package of `pip install torch` on Linux.',
    )
  }
  if (cuda && !environment.CUDACXX && !which('nvcc', environment)) {
    throw new LibtorchError(
      `Expected nvcc in PATH or CUDACXX, found none. Install the CUDA toolkit ${libtorch.cuda}, the version that libtorch was built with.`,
    )
  }
}

/** Return arguments that name the compiler for cmake-js, which only finds g++ and clang++. */
function namedCompiler(environment: Environment): string[] {
  if (which('g++', environment) || which('clang++', environment)) return []
  return ['--cxx', environment.CXX || 'c++', '--cc', environment.CC || 'cc']
}

const headerVersions = () =>
  ['node-api-headers', 'node-addon-api'].map((name) => require(`${name}/package.json`).version).join(' ')

/** Return the number of parallel compilations; each takes up to 1.5 GB of memory. */
const parallelism = (): number => Math.max(1, Math.min(availableParallelism(), Math.floor(totalmem() / 1.5e9)))

/** Return a hash of the names and contents of files and folders, and of `extra`. */
export function hashFiles(paths: string[], extra: string[] = []): string {
  const hash = createHash('sha256')
  for (const text of extra) hash.update(`${text}\0`)
  const visit = (path: string, name: string) => {
    if (!existsSync(path)) return
    if (statSync(path).isDirectory()) {
      for (const child of readdirSync(path).sort()) visit(join(path, child), `${name}/${child}`)
    } else {
      const content = readFileSync(path)
      hash.update(`${name}\0${content.length}\0`).update(content)
    }
  }
  paths.forEach((path, i) => {
    visit(path, String(i))
  })
  return hash.digest('hex')
}

function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}

/** Load libtorch and the addon in a child process, to survive a crash. Return null on success, else the reason of the failure. */
export function loadInChild(environment: Environment = process.env): string | null {
  const load = pathToFileURL(join(packageDirectory, 'dist/native/load.js')).href
  const script = `import('${load}').then((m) => m.loadNative()).catch((e) => { console.error(e.message); process.exitCode = 1 })`
  const { status, signal, stderr } = spawnSync(process.execPath, ['-e', script], {
    encoding: 'utf8',
    env: environment as NodeJS.ProcessEnv,
  })
  if (status === 0) return null
  return signal ? `the child process was ended by ${signal}. ${lastLine(stderr)}`.trim() : stderr.trim()
}
