import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { LibtorchError } from '../base/errors.js'
import {
  cacheDirectory,
  type Environment,
  explain,
  findLibtorch,
  type Libtorch,
  type LibtorchSource,
  readLibtorch,
  SUPPORTED,
} from '../native/libtorch.js'
import { nativeInfo, packageDirectory, packageVersion } from '../native/load.js'
import { buildAddon, loadInChild } from './build.js'
import { provisionLibtorch } from './provision.js'

export interface InstallOptions {
  environment?: Environment
  /** Whether to build even if a prebuilt addon fits. */
  build?: boolean
  cuda?: boolean
  /** Whether to build with sanitizers, into build-sanitize/ of the repository. The addon then needs them preloaded. */
  sanitize?: boolean
  report?: (line: string) => void
}

const BY: Record<LibtorchSource, string> = {
  LIBTORCH: 'set in LIBTORCH',
  provisioned: 'provisioned by voxtorch',
  python3: 'the torch package of python3',
}

/** Find or download libtorch, and find or build the addon for it. */
export async function install(options: InstallOptions = {}): Promise<void> {
  const environment = options.environment ?? process.env
  const announce = options.report ?? (() => {})
  let last = performance.now()
  const report = (line: string) => {
    const now = performance.now()
    announce(`${line} (${((now - last) / 1000).toFixed(1)} s)`)
    last = now
  }

  const libtorch = await findOrFetch(environment, announce)
  report(`libtorch ${libtorch.version} from ${libtorch.home}, ${BY[libtorch.source]}`)
  if (!options.build) {
    const { addon, problem } = nativeInfo()
    if (addon?.kind === 'prebuilt' && !problem) {
      requireLoading(environment)
      report(`the prebuilt addon in ${addon.directory} fits and loads`)
      return
    }
  }
  const inRepository = existsSync(join(packageDirectory, 'scripts/bootstrap.mjs'))
  const out = join(packageDirectory, options.sanitize ? 'build-sanitize' : 'build')
  const work = inRepository ? out : join(cacheDirectory(environment), 'build', packageVersion())
  const built = await buildAddon({
    ...options,
    environment,
    root: packageDirectory,
    libtorch,
    work,
    out,
    report: announce,
  })
  if (!built) return report('the addon is up to date')
  report(`the addon is built in ${out}`)
  if (options.sanitize) return
  requireLoading(environment)
  report('the addon loads')
}

function requireLoading(environment: Environment): void {
  const problem = loadInChild(environment)
  if (problem !== null) throw new LibtorchError(`The addon exists, but does not load in a new process: ${problem}`)
}

async function findOrFetch(environment: Environment, report: (line: string) => void): Promise<Libtorch> {
  const { libtorch, attempts } = findLibtorch({ environment })
  if (libtorch && (libtorch.minor === SUPPORTED.minor || environment.VOXTORCH_ANY_LIBTORCH)) return libtorch
  if (libtorch) {
    throw new LibtorchError(
      `LIBTORCH: voxtorch ${packageVersion()} expected libtorch ${SUPPORTED.minor}, got ${libtorch.version} in ${libtorch.home}. Do one of:\n` +
        `  1. set LIBTORCH to a libtorch ${SUPPORTED.minor};\n` +
        '  2. unset LIBTORCH, to find or download the supported one;\n' +
        '  3. set VOXTORCH_ANY_LIBTORCH=1, to build for this one, untested.',
      { wanted: SUPPORTED.minor, found: libtorch.version },
    )
  }
  if (environment.LIBTORCH) {
    throw new LibtorchError(
      `LIBTORCH: expected the folder of a libtorch: ${attempts[0]?.reason}. Set it to the folder that contains lib/libtorch_cpu.so, or unset it.`,
      { place: environment.LIBTORCH },
    )
  }
  for (const line of explain(attempts).split('\n')) report(line.trim())
  const place = await provisionLibtorch({ environment, report })
  const read = readLibtorch(place)
  if (typeof read === 'string')
    throw new LibtorchError(`The downloaded libtorch in ${place} cannot be used: ${read}.`, { place })
  return { ...read, source: 'provisioned' }
}
