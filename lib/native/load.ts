import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { LibtorchError } from '../base/errors.js'
import type { NativeAddon } from './addon.js'
import { explain, findLibtorch, type Libtorch, type Search, SUPPORTED } from './libtorch.js'

// Loads libtorch by its full path, then the addon, whose needed libraries resolve by SONAME to what is mapped already.
// This runs at every import: synchronous, and nothing that is slow to load.

/** A build of the addon: the folder of voxtorch.node, voxtorch_loader.node and libvoxtorch_core.so. */
export interface Addon {
  directory: string
  /** The minor version of libtorch that it was built for: `2.13`. */
  libtorch: string
  /** The CUDA version that it links, null for the CPU variant. */
  cuda: string | null
  kind: 'VOXTORCH_ADDON' | 'built here' | 'prebuilt'
}

export interface NativeInfo {
  search: Search
  addon: Addon | null
  /** Why the addon cannot load, null if nothing speaks against it or it is loaded. */
  problem: string | null
  loaded: boolean
}

// Bundlers that write CommonJS leave no URL.
const here = import.meta.url as string | undefined
if (here === undefined) throw new LibtorchError(bundled('a program in CommonJS'))

/** This package, wherever in its dist/ the compiled file is that holds this code. */
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

/** The native addon, loaded at the first call. Throws {@link LibtorchError} with the way out. */
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
 * libgomp reads how long its idle threads turn in a loop when it is mapped. Its own 300,000 rounds take the cores from those
 * that the threads wait for, wherever others use the machine: there a token takes six times as long. Elsewhere a tenth of
 * them is as fast. What the environment says holds, and child processes see nothing of this.
 */
function waitingBriefly(open: () => void): void {
  const { env } = process
  if (env.GOMP_SPINCOUNT !== undefined || env.OMP_WAIT_POLICY !== undefined) return open()
  env.GOMP_SPINCOUNT = '30000'
  try {
    open()
  } finally {
    delete env.GOMP_SPINCOUNT
  }
}

/** Maps libtorch into the process. */
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

/** What would be loaded, or is, and why; throws nothing. */
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

/** Built for one minor version of libtorch, another one was found. */
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

/** Outside its package this code finds neither the addon nor the files of its threads, and no install brings them. */
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
  // A CPU addon works with a CUDA libtorch; asking it for CUDA says that it is the CPU variant. Not the reverse.
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
      return [] // none for this platform
    }
  })
}

function addonIn(directory: string, kind: Addon['kind']): Addon | null {
  if (!existsSync(join(directory, 'voxtorch.node'))) return null
  try {
    const { libtorch, cuda } = JSON.parse(readFileSync(join(directory, 'voxtorch-build.json'), 'utf8'))
    return { directory, libtorch, cuda, kind }
  } catch {
    return null // a build that was cut off before its end
  }
}
