import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { writeAtomicallySync } from '../base/atomic.js'
import { LibtorchError } from '../base/errors.js'

// Search for libtorch. The same order applies to the import of the package, `voxtorch install` and `voxtorch doctor`. An import
// starts no process, with one exception: python3 runs once, and its answer is kept in the user cache.

/** Release that voxtorch is built for and provisions. The ABI is stable within a minor version. */
export const SUPPORTED = { version: '2.13.0', minor: '2.13' } as const

export type LibtorchSource = 'LIBTORCH' | 'provisioned' | 'python3'

export interface Libtorch {
  /** Folder that contains `include/` and `lib/`. */
  home: string
  /** Full version, such as `2.13.0+cpu`. */
  version: string
  /** Minor version, such as `2.13`. */
  minor: string
  /** CUDA version that it was built with (`13.0`, or `unknown`); null for a CPU build. */
  cuda: string | null
  source: LibtorchSource
}

/** One place that was searched, in order, and the result. */
export interface Attempt {
  source: LibtorchSource
  place: string
  found: boolean
  reason: string
}

export interface Search {
  libtorch: Libtorch | null
  attempts: Attempt[]
}

export type Environment = Record<string, string | undefined>

export interface SearchOptions {
  environment?: Environment
  /** Minor version to search for; LIBTORCH may name another one, which the caller rejects. */
  minor?: string
  /** Run python3 even if its last answer is still valid. */
  fresh?: boolean
  /** Never start python3. */
  recordedOnly?: boolean
}

export function cacheDirectory(environment: Environment = process.env): string {
  // XDG base directory rule: a relative path is invalid and is ignored.
  const base = environment.XDG_CACHE_HOME
  const home = environment.HOME || homedir()
  return join(base?.startsWith('/') ? base : join(home, '.cache'), 'voxtorch')
}

export const provisionedDirectory = (environment?: Environment): string =>
  join(cacheDirectory(environment), 'libtorch', `${SUPPORTED.version}-cpu`)

export function findLibtorch(options: SearchOptions = {}): Search {
  const environment = options.environment ?? process.env
  const minor = options.minor ?? SUPPORTED.minor
  const attempts: Attempt[] = []
  const note = (source: LibtorchSource, place: string, found: boolean, reason: string) =>
    attempts.push({ source, place, found, reason })

  // A variable that is set is binding: the folder that it names is used or rejected, never skipped.
  const named = environment.LIBTORCH
  if (named) {
    const read = readLibtorch(named)
    if (typeof read === 'string') {
      note('LIBTORCH', named, false, read)
      return { libtorch: null, attempts }
    }
    note('LIBTORCH', read.home, true, `the variable LIBTORCH names it, version ${read.version}`)
    return { libtorch: { ...read, source: 'LIBTORCH' }, attempts }
  }
  note('LIBTORCH', '', false, 'the variable is not set')

  for (const source of ['provisioned', 'python3'] as const) {
    const { place, reason } = source === 'provisioned' ? provisioned(environment) : pythonTorch(environment, options)
    const read = place === '' ? reason : readLibtorch(place)
    if (typeof read === 'string') note(source, place, false, read)
    else if (read.minor !== minor) note(source, read.home, false, `expected version ${minor}, got ${read.version}`)
    else {
      note(source, read.home, true, `${reason}, version ${read.version}`)
      return { libtorch: { ...read, source }, attempts }
    }
  }
  return { libtorch: null, attempts }
}

/**
 * Read the libtorch in `directory`, a libtorch or a torch package or the parent folder of either; returns the reason if that
 * fails.
 */
export function readLibtorch(directory: string): Omit<Libtorch, 'source'> | string {
  const given = resolve(directory)
  if (!existsSync(given)) return `there is no ${given}`
  const candidates = [given, join(given, 'torch'), join(given, 'libtorch')]
  if (basename(given) === 'lib') candidates.push(dirname(given))
  const home = candidates.find((candidate) => existsSync(join(candidate, 'lib', 'libtorch_cpu.so')))
  if (home === undefined) return `there is no lib/libtorch_cpu.so in ${given}`
  const version = readVersion(home)
  const minor = version && /^\d+\.\d+/.exec(version)?.[0]
  if (!version || !minor) return `nothing in ${home} tells its version (build-version, version.py or version.h)`
  return { home, version, minor, cuda: readCuda(home, version) }
}

function readVersion(home: string): string | null {
  const plain = readText(join(home, 'build-version'))?.trim()
  if (plain) return plain
  const python = readText(join(home, 'version.py'))?.match(/^__version__\s*=\s*['"]([^'"]+)['"]/m)?.[1]
  if (python) return python
  for (const header of ['torch/headeronly/version.h', 'torch/csrc/api/include/torch/version.h', 'torch/version.h']) {
    const text = readText(join(home, 'include', header))
    const numbers = ['MAJOR', 'MINOR', 'PATCH'].map(
      (part) => text?.match(new RegExp(`^#define TORCH_VERSION_${part}\\s+(\\d+)`, 'm'))?.[1],
    )
    if (numbers.every((number) => number !== undefined)) return numbers.join('.')
  }
  return null
}

function readCuda(home: string, version: string): string | null {
  if (!existsSync(join(home, 'lib', 'libtorch_cuda.so'))) return null
  const python = readText(join(home, 'version.py'))?.match(/^cuda\b[^=\n]*=\s*['"](\d+\.\d+)/m)?.[1]
  return (
    python ??
    version
      .match(/\+cu(\d+)(\d)$/)
      ?.slice(1)
      .join('.') ??
    'unknown'
  )
}

function provisioned(environment: Environment): { place: string; reason: string } {
  const place = provisionedDirectory(environment)
  return existsSync(place)
    ? { place, reason: 'provisioned earlier by voxtorch' }
    : { place: '', reason: `nothing was provisioned in ${place}` }
}

const ASK_PYTHON = `
import importlib.util as util, os, sys
spec = util.find_spec("torch")
print(os.path.dirname(spec.origin) if spec and spec.origin else "")
print(sys.executable)`

function pythonTorch(environment: Environment, options: SearchOptions): { place: string; reason: string } {
  const record = join(cacheDirectory(environment), 'python-torch.json')
  if (!options.fresh) {
    try {
      const { place, python } = JSON.parse(readFileSync(record, 'utf8'))
      const read = readLibtorch(place)
      if (typeof read !== 'string' && read.minor === (options.minor ?? SUPPORTED.minor)) {
        return { place, reason: `imported by ${python} (recorded in ${record})` }
      }
    } catch {}
  }
  if (options.recordedOnly) return { place: '', reason: `no answer of python3 that still holds is in ${record}` }

  const { spawnSync } = process.getBuiltinModule('node:child_process')
  const env = environment as NodeJS.ProcessEnv
  const answer = spawnSync('python3', ['-c', ASK_PYTHON], { encoding: 'utf8', timeout: 20_000, env })
  if (answer.error) {
    const missing = (answer.error as NodeJS.ErrnoException).code === 'ENOENT'
    return { place: '', reason: missing ? 'there is no python3 in PATH' : `python3: ${answer.error.message}` }
  }
  if (answer.status !== 0) return { place: '', reason: `python3 failed: ${lastLine(answer.stderr)}` }
  const [place = '', python = 'python3'] = answer.stdout.split('\n')
  if (place === '') return { place, reason: `${python} has no package "torch"` }
  try {
    mkdirSync(dirname(record), { recursive: true })
    writeAtomicallySync(record, LibtorchError, `${JSON.stringify({ place, python })}\n`)
  } catch {
    // A cache that cannot be written only means that python3 runs again at the next start.
  }
  return { place, reason: `imported by ${python}` }
}

/** Return every searched place and why it was rejected, one per line, for an error or for `doctor`. */
export function explain(attempts: Attempt[]): string {
  return attempts
    .map(({ source, place, found, reason }) => `  ${source}: ${place && found ? `${place}: ` : ''}${reason}`)
    .join('\n')
}

export const lastLine = (text: string): string => text.trim().split('\n').at(-1) ?? ''

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}
