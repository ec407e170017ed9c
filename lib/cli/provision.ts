import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createWriteStream, existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { basename, delimiter, dirname, join } from 'node:path'
import { Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { moveIntoPlace } from '../base/atomic.js'
import { LibtorchError } from '../base/errors.js'
import {
  cacheDirectory,
  type Environment,
  lastLine,
  provisionedDirectory,
  readLibtorch,
  SUPPORTED,
} from '../native/libtorch.js'

// Downloads missing dependencies into the user cache: libtorch, and cmake with ninja.

export interface ProvisionOptions {
  environment?: Environment
  report?: (line: string) => void
  archiveUrl?: string
}

const CPU_INDEX = 'https://download.pytorch.org/whl/cpu'
const ARCHIVE = `https://download.pytorch.org/libtorch/cpu/libtorch-shared-with-deps-${SUPPORTED.version}%2Bcpu.zip`
/** SHA-256 of the official archive by release. Null: not recorded yet; the user sets it in VOXTORCH_LIBTORCH_SHA256. */
const ARCHIVE_SHA256: Record<string, string | null> = { '2.13.0': null }

/** Download the CPU build of the supported libtorch into the user cache, atomically. Return its folder. */
export async function provisionLibtorch(options: ProvisionOptions = {}): Promise<string> {
  const environment = options.environment ?? process.env
  const report = options.report ?? (() => {})
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new LibtorchError(
      `libtorch can be downloaded for linux-x64 only, and this is ${process.platform}-${process.arch}. Set LIBTORCH to a libtorch ${SUPPORTED.minor}.`,
      { wanted: SUPPORTED.version },
    )
  }
  const place = provisionedDirectory(environment)
  const reasons: string[] = []
  await atomically(place, async (temporary) => {
    if (findPip(environment, reasons)) {
      // The version has "+cpu", because the plain Linux wheel of PyPI is a CUDA build of 0.5 GB, which does not load without the
      // CUDA packages. If the configured indexes have no CPU build, pip fails before any download.
      for (const index of [[], ['--index-url', CPU_INDEX]]) {
        const from = index[1] ?? "pip's own indexes"
        report(`fetching libtorch ${SUPPORTED.version}+cpu with pip from ${from}`)
        const failure = pip(environment, temporary, [...ANY_PYTHON, ...index, `torch==${SUPPORTED.version}+cpu`])
        const read = failure ?? readLibtorch(temporary)
        if (typeof read !== 'string') return
        reasons.push(`pip from ${from}: ${read}`)
        rmSync(temporary, { recursive: true, force: true })
      }
    }
    mkdirSync(temporary, { recursive: true })
    report(`fetching libtorch ${SUPPORTED.version}+cpu from ${options.archiveUrl ?? ARCHIVE}`)
    const failure = await fetchArchive(environment, temporary, options.archiveUrl ?? ARCHIVE)
    if (failure === null) return
    reasons.push(failure)
    throw new LibtorchError(
      `Downloading libtorch ${SUPPORTED.version} failed:\n${reasons.map((reason) => `  ${reason}`).join('\n')}\n` +
        'Do one of: install python3 with pip (`sudo apt-get install python3-pip`) and run again; ' +
        `\`pip install torch==${SUPPORTED.version}\` for the python3 in PATH; ` +
        'unpack libtorch by hand and set LIBTORCH to its folder.',
      { wanted: SUPPORTED.version, reasons },
    )
  })
  return place
}

/** Minimum version, as in CMakeLists.txt. */
const OLDEST_CMAKE = '3.22'

/** Return why the cmake in PATH cannot be used, or null. An unknown version is accepted. */
function cmakeProblem(environment: Environment): string | null {
  const path = which('cmake', environment)
  if (path === null) return 'Expected cmake in PATH, found none'
  const { stdout } = run('cmake', ['--version'], environment)
  const version = /cmake version (\d+\.\d+)/.exec(stdout ?? '')?.[1]
  if (version === undefined || version.localeCompare(OLDEST_CMAKE, 'en', { numeric: true }) >= 0) return null
  return `${path}: expected version ${OLDEST_CMAKE} or later, got ${version}`
}

/** Return the PATH with cmake and ninja, which are downloaded with pip if no suitable cmake is found. */
export async function pathWithCMake(options: ProvisionOptions = {}): Promise<string> {
  const environment = options.environment ?? process.env
  const problem = cmakeProblem(environment)
  if (problem === null) return environment.PATH ?? ''
  const place = join(cacheDirectory(environment), 'tools')
  // The programs themselves: the scripts in bin/ need the Python package around them.
  const programs = [join(place, 'cmake/data/bin'), join(place, 'bin')]
  if (!existsSync(join(place, 'cmake/data/bin/cmake'))) {
    const reasons: string[] = []
    await atomically(place, async (temporary) => {
      options.report?.('fetching cmake and ninja with pip')
      const failure = findPip(environment, reasons) ? pip(environment, temporary, ['cmake<5', 'ninja']) : reasons[0]
      if (failure === null) return
      throw new LibtorchError(
        `${problem}, and downloading it failed: ${failure}. Install it: \`sudo apt-get install cmake ninja-build\` ` +
          '(Debian, Ubuntu) or `sudo dnf install cmake ninja-build` (Fedora, RHEL).',
        { reasons },
      )
    })
  }
  return [...programs, environment.PATH].join(delimiter)
}

/** Call `make` to fill a temporary folder next to `place`, then rename it, so that an existing `place` is always complete. */
export async function atomically(place: string, make: (temporary: string) => Promise<void>): Promise<void> {
  mkdirSync(dirname(place), { recursive: true })
  removeAbandoned(place)
  const temporary = `${place}.${process.pid}.partial`
  try {
    await make(temporary)
    // An existing folder is replaced: it is unusable, or equal if another process was faster.
    await moveIntoPlace(temporary, place, `${place}.${process.pid}.old.partial`)
  } finally {
    rmSync(temporary, { recursive: true, force: true })
  }
}

function removeAbandoned(place: string): void {
  const prefix = `${basename(place)}.`
  for (const name of readdirSync(dirname(place))) {
    if (!name.startsWith(prefix) || !name.endsWith('.partial')) continue
    const pid = Number.parseInt(name.slice(prefix.length), 10)
    if (!isAlive(pid)) rmSync(join(dirname(place), name), { recursive: true, force: true })
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

// The wheels of all Python versions contain the same libtorch, so this works with any Python.
const ANY_PYTHON =
  '--no-deps --no-compile --ignore-requires-python --only-binary=:all: --implementation cp --python-version 3.11 --platform manylinux_2_28_x86_64'.split(
    ' ',
  )

function findPip(environment: Environment, reasons: string[]): boolean {
  const { error, status } = run('python3', ['-m', 'pip', '--version'], environment)
  if (error) reasons.push('python3 was not found in PATH')
  else if (status !== 0) reasons.push('python3 has no pip (`sudo apt-get install python3-pip`)')
  return status === 0
}

/** Run pip install. Return null on success, else the last error line of pip. */
function pip(environment: Environment, target: string, requirements: string[]): string | null {
  const options = ['--quiet', '--no-input', '--disable-pip-version-check', '--target', target]
  const { status, stderr } = run('python3', ['-m', 'pip', 'install', ...options, ...requirements], environment)
  if (status === 0) return null
  return stderr.match(/^ERROR: .*/gm)?.at(-1) ?? (lastLine(stderr) || `pip ended with ${status}`)
}

/** Download and unpack the libtorch archive. Return null on success, else the reason of the failure. */
async function fetchArchive(environment: Environment, directory: string, url: string): Promise<string | null> {
  const checksum = environment.VOXTORCH_LIBTORCH_SHA256 ?? ARCHIVE_SHA256[SUPPORTED.version]
  if (!checksum) {
    return `${url}: not downloaded, because its checksum is not recorded. Set VOXTORCH_LIBTORCH_SHA256 to it`
  }
  const file = join(directory, 'libtorch.zip')
  const hash = createHash('sha256')
  const tap = new Transform({
    transform(chunk, _encoding, done) {
      hash.update(chunk)
      done(null, chunk)
    },
  })
  try {
    const response = await fetch(url)
    if (!response.ok || !response.body) return `${url}: HTTP ${response.status}`
    await pipeline(
      Readable.fromWeb(response.body as import('node:stream/web').ReadableStream),
      tap,
      createWriteStream(file),
    )
  } catch (error) {
    const { message, cause } = error as Error
    return `${url}: ${cause instanceof Error ? cause.message : message}`
  }
  const digest = hash.digest('hex')
  if (digest !== checksum.toLowerCase()) return `${url}: expected the SHA-256 ${checksum}, got ${digest}`
  // Unpack with cmake, which the build needs anyway.
  const PATH = await pathWithCMake({ environment }).catch(() => environment.PATH)
  const { error, status, stderr } = run('cmake', ['-E', 'tar', 'xf', file], { ...environment, PATH }, directory)
  if (error || status !== 0) return `${url}: cmake could not unpack it: ${error?.message ?? lastLine(stderr)}`
  rmSync(file)
  const read = readLibtorch(directory)
  return typeof read === 'string' ? `${url}: ${read}` : null
}

function run(program: string, values: string[], environment: Environment, cwd?: string) {
  return spawnSync(program, values, {
    encoding: 'utf8',
    env: environment as NodeJS.ProcessEnv,
    cwd,
    maxBuffer: 1 << 26,
  })
}

/** Return the full path of a program in PATH, or null. */
export function which(program: string, environment: Environment = process.env): string | null {
  for (const directory of (environment.PATH ?? '').split(delimiter)) {
    const path = join(directory, program)
    if (directory && existsSync(path)) return path
  }
  return null
}
