import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { LibtorchError } from '../base/errors.js'
import type { NativeAddon } from './addon.js'
import { explain, findLibtorch, type Libtorch, type Search, SUPPORTED } from './libtorch.js'

// Load libtorch by its full path, then the addon, whose needed libraries resolve by SONAME to the mapped ones. This runs at
// every import: synchronously, and without slow imports.

/** A build of the addon: the folder of voxtorch.node, voxtorch_loader.node and libvoxtorch_core.so. */
export interface Addon {
  directory: string
  /** Minor version of libtorch that it was built for: `2.13`. */
  libtorch: string
  /** CUDA version that it links against; null for the CPU variant. */
  cuda: string | null
  kind: 'VOXTORCH_ADDON' | 'built here' | 'prebuilt'
}

export interface NativeInfo {
  search: Search
  addon: Addon | null
  /** Reason why the addon cannot load; null if there is none or it is loaded. */
  problem: string | null
  loaded: boolean
}

// Bundlers that emit CommonJS leave no URL.
const here = import.meta.url as string | undefined
if (here === undefined) throw new LibtorchError(bundled('a program in CommonJS'))

/** Folder of this package, wherever the compiled file with this code is in dist/. */
export const packageDirectory = ((): string => {
  let directory = dirname(fileURLToPath(here))
  while (!existsSync(join(directory, 'package.json'))) {
    if (directory === dirname(directory)) throw new LibtorchError(bundled(fileURLToPath(here)))
    directory = dirname(directory)
  }
  return directory
})()
export const packageVersion = (): string =>
  JSON.parse(readFileSync(join(packageDirectory, 'package.json'), 'utf8')).version

const require = createRequire(here)
let native: NativeAddon | null = null

/** Return the native addon, loaded at the first call. @throws LibtorchError that says what to do */
export function loadNative(): NativeAddon {
  native ??= load()
  return native
}

function load(): NativeAddon {
  const { addon, search } = choose()
  const { libtorch } = search
  if (!addon || !libtorch) throw new Error('choose() returns both or throws')
  waitingBriefly(() => openLibtorch(addon, libtorch))
  try {
    return require(join(addon.directory, 'voxtorch.node'))
  } catch (cause) {
    const message = (cause as Error).message
    throw new LibtorchError(
      `${join(addon.directory, 'voxtorch.node')} does not load with libtorch ${libtorch.version} in ${libtorch.home}: ${message}. ` +
        'Run `npx voxtorch install` to build it again, or `npx voxtorch doctor` to see what was found.',
      { addon: addon.directory, libtorch: libtorch.home, cause },
    )
  }
}

/**
 * Set how long libgomp's idle threads spin, which it reads when it is mapped. Its default of 300,000 rounds takes cores from
 * the threads that it waits for whenever other processes use the machine: a token then takes six times as long. An operator of
 * 262,144 elements and its backward pass take 0.6 to 0.9 of the time with 5,000 rounds instead of 2,000, because threads are still
 * awake at the next one; more gain nothing. Two trainings at once take 0.8 of their time one after the other, with 2,000 rounds and
 * with 5,000; a server and a training took 1.2 to 1.4 with 30,000. Where JavaScript's threads and the executor's are more than the
 * cores, the policy means 1,000 rounds instead of 100. Values in the environment take precedence, and child processes do not
 * inherit these.
 */
function waitingBriefly(open: () => void): void {
  const { env } = process
  if (env.GOMP_SPINCOUNT !== undefined || env.OMP_WAIT_POLICY !== undefined) return open()
  env.GOMP_SPINCOUNT = '5000'
  env.OMP_WAIT_POLICY = 'active'
  try {
    open()
  } finally {
    delete env.GOMP_SPINCOUNT
    delete env.OMP_WAIT_POLICY
  }
}

/** Map libtorch into the process. */
export function openLibtorch(addon: Addon, libtorch: Libtorch): void {
  const lib = (name: string) => join(libtorch.home, 'lib', name)
  let path = join(addon.directory, 'voxtorch_loader.node')
  try {
    const loader = require(path) as { open(path: string, shareSymbols?: boolean): void }
    path = lib('libtorch_global_deps.so')
    if (existsSync(path)) loader.open(path, true)
    path = lib('libtorch_cpu.so')
    loader.open(path)
    path = lib('libtorch_cuda.so')
    if (addon.cuda) loader.open(path)
    path = lib('libtorch.so')
    loader.open(path)
  } catch (cause) {
    throw new LibtorchError(
      `${path} does not load: ${(cause as Error).message}. Run \`npx voxtorch doctor\` to see what is missing, ` +
        'or set LIBTORCH to another libtorch.',
      { libtorch: libtorch.home, version: libtorch.version, cause },
    )
  }
}

/** Return what would be loaded, or is, and why. Never throws. */
export function nativeInfo(): NativeInfo {
  const loaded = native !== null
  try {
    return { ...choose(), problem: null, loaded }
  } catch (error) {
    if (!(error instanceof LibtorchError)) throw error
    const { addon, search } = error as unknown as { addon?: Addon; search: Search }
    return { search, addon: addon ?? null, problem: error.message, loaded }
  }
}

function choose(): { addon: Addon; search: Search } {
  const named = process.env.VOXTORCH_ADDON
  const built = named ? addonIn(named, 'VOXTORCH_ADDON') : addonIn(join(packageDirectory, 'build'), 'built here')
  if (named && !built) {
    const search = { libtorch: null, attempts: [] }
    throw new LibtorchError(`VOXTORCH_ADDON names ${named}, where there is no voxtorch.node.`, { search })
  }
  if (!built && packageName() !== 'voxtorch') {
    const search = { libtorch: null, attempts: [] }
    throw new LibtorchError(bundled(fileURLToPath(here as string)), { search })
  }
  const search = findLibtorch({ minor: built?.libtorch ?? SUPPORTED.minor })
  if (!search.libtorch) {
    const wanted = built?.libtorch ?? SUPPORTED.minor
    throw new LibtorchError(
      `No libtorch ${wanted} was found. Run \`npx voxtorch install\`, which fetches it, or set LIBTORCH to its folder.\n${explain(search.attempts)}`,
      { wanted, search, addon: built },
    )
  }
  const prebuilt = built ? [] : prebuilds()
  const addon = built ?? choosePrebuild(prebuilt, search.libtorch)
  if (addon?.libtorch === search.libtorch.minor) return { addon, search }
  const others = (addon ? [addon] : prebuilt).filter((other) => other.libtorch !== search.libtorch?.minor)
  if (others.length === 0) throw new LibtorchError(noAddon(), { search })
  throw new LibtorchError(refusal(others, search.libtorch), {
    search,
    addon: others[0],
    found: search.libtorch.version,
  })
}

/** Return the message for an addon that was built for another minor version of libtorch. */
function refusal(addons: Addon[], { version, minor, home, source }: Libtorch): string {
  const wanted = [...new Set(addons.map((addon) => addon.libtorch))].join(' or ')
  return (
    `voxtorch ${packageVersion()} is built for libtorch ${wanted}, and ${source === 'LIBTORCH' ? 'LIBTORCH names' : 'there is'} ` +
    `libtorch ${version} in ${home}; the binary interface differs. Three ways out:\n` +
    `  1. set LIBTORCH to a libtorch ${wanted};\n` +
    `  2. unset LIBTORCH and run \`npx voxtorch install\`, which finds or fetches libtorch ${SUPPORTED.minor} and builds for it;\n` +
    `  3. build for this one: \`VOXTORCH_ANY_LIBTORCH=1 LIBTORCH=${home} npx voxtorch install\` ` +
    `(libtorch ${minor} is not tested), or install the version of voxtorch that supports it.`
  )
}

const packageName = (): unknown => JSON.parse(readFileSync(join(packageDirectory, 'package.json'), 'utf8')).name

/**
 * Return the message for bundled code, which finds neither the addon nor the files of its threads, and which no install can
 * fix.
 */
function bundled(into: string): string {
  return (
    `voxtorch was bundled into ${into}, away from its native addon and its other files. Leave it out of the bundle and ` +
    "in node_modules: esbuild `--external:voxtorch`, Rollup and rolldown `external: ['voxtorch']`, webpack " +
    "`externals: { voxtorch: 'module voxtorch' }`, Vite `ssr: { external: ['voxtorch'] }`, Next.js `serverExternalPackages: ['voxtorch']`."
  )
}

function noAddon(): string {
  const machine = `${process.platform}-${process.arch}`
  return `voxtorch has no native addon for ${machine} here. Run \`npx voxtorch install\`, which builds it (needs cmake and a C++20 compiler).`
}

function choosePrebuild(addons: Addon[], libtorch: Libtorch): Addon | null {
  const matching = addons.filter((addon) => addon.libtorch === libtorch.minor)
  // A CPU addon works with a CUDA libtorch, without CUDA. The reverse does not work.
  const major = libtorch.cuda?.split('.')[0]
  const cuda = matching.find((addon) => addon.cuda !== null && addon.cuda.split('.')[0] === major)
  return cuda ?? matching.find((addon) => addon.cuda === null) ?? null
}

/** prebuilds/torch<minor>-<cpu|cu130>/prebuilds/<platform>-<arch>/ */
function prebuilds(): Addon[] {
  const directory = join(packageDirectory, 'prebuilds')
  const variants = existsSync(directory) ? readdirSync(directory).filter((name) => name.startsWith('torch')) : []
  if (variants.length === 0) return []
  const { resolve } = require('node-gyp-build') as { resolve(directory: string): string }
  return variants.flatMap((variant) => {
    try {
      return addonIn(dirname(resolve(join(directory, variant))), 'prebuilt') ?? []
    } catch {
      return [] // no prebuilds for this platform
    }
  })
}

function addonIn(directory: string, kind: Addon['kind']): Addon | null {
  if (!existsSync(join(directory, 'voxtorch.node'))) return null
  try {
    const { libtorch, cuda } = JSON.parse(readFileSync(join(directory, 'voxtorch-build.json'), 'utf8'))
    return { directory, libtorch, cuda, kind }
  } catch {
    return null // an incomplete build
  }
}
