// `npm run prebuild`: builds the addon and has prebuildify put it where the published package looks for it
// (prebuilds/README.md). `-- --cuda` builds the CUDA variant, `-- FOLDER` takes the build in that folder as it is.
import { spawnSync } from 'node:child_process'
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { delimiter, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { installPackages } from './bootstrap.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const require = createRequire(import.meta.url)

/** Files of a build that the package needs; the first is the addon. */
export const PARTS = ['voxtorch.node', 'voxtorch_loader.node', 'libvoxtorch_core.so', 'voxtorch-build.json']

/**
 * @param {{ build?: string, cuda?: boolean, prebuilds?: string }} [options]
 * @returns {string} the folder of the variant, prebuilds/torch<minor>-<cpu|cu130>
 */
export function prebuild({ build, cuda = false, prebuilds = join(root, 'prebuilds') } = {}) {
  // Next to the result, then renamed: it is complete or missing.
  const scratch = mkdtempSync(join(dirname(prebuilds), 'build-prebuild-'))
  try {
    copyFileSync(join(root, 'binding.gyp'), join(scratch, 'binding.gyp'))
    const defines = {
      root,
      built: resolve(build ?? join(root, 'build')),
      make: build ? 0 : 1,
      flags: cuda ? '--cuda' : '',
    }
    const program = spawnSync(
      process.execPath,
      [
        ...[require.resolve('prebuildify/bin.js'), '--napi', '--strip', '--name', 'voxtorch', '--cwd', scratch],
        ...['--target', process.versions.node, '--cache', join(scratch, 'cache')],
        ...['--artifacts', join(scratch, 'build/Release/artifacts')],
        ...['--node-gyp', join(root, 'node_modules/.bin/node-gyp')],
      ],
      {
        // Output of node-gyp and make is not a result.
        stdio: ['ignore', process.stderr, process.stderr],
        env: {
          ...process.env,
          PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}`,
          GYP_DEFINES: Object.entries(defines).map(([name, value]) => `${name}="${value}"`).join(' '), // biome-ignore format: one line
          npm_config_nodedir: nodeDirectory(join(scratch, 'node')),
        },
      },
    )
    if (program.error || program.status !== 0) {
      throw new Error(
        `prebuildify made no prebuild, and says why above${program.error ? `: ${program.error.message}` : ''}. ` +
          'It needs python3 and make, for node-gyp.',
      )
    }
    const platform = join('prebuilds', `${process.platform}-${process.arch}`)
    const { libtorch, cuda: version } = JSON.parse(readFileSync(join(scratch, platform, 'voxtorch-build.json'), 'utf8'))
    const device = version ? `cu${version.split('.').slice(0, 2).join('')}` : 'cpu'
    const variant = join(prebuilds, `torch${libtorch}-${device}`)
    const place = join(variant, platform)
    mkdirSync(dirname(place), { recursive: true })
    rmSync(place, { recursive: true, force: true })
    renameSync(join(scratch, platform), place)
    return variant
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** Folder with Node-API's headers for node-gyp, which would download them otherwise. */
function nodeDirectory(/** @type {string} */ directory) {
  const include = join(directory, 'include/node')
  cpSync(require('node-api-headers').include_dir, include, { recursive: true })
  for (const name of ['common.gypi', 'config.gypi']) writeFileSync(join(include, name), '{ "variables": {} }\n')
  return directory
}

/** npm runs a script of this name before `npm run build` too; only the title of its process tells which it was. */
function beforeBuild() {
  if (process.env.npm_lifecycle_event !== 'prebuild') return false
  try {
    const parent = /^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${process.ppid}/status`, 'utf8'))?.[1]
    const titles = [process.ppid, parent].map((pid) =>
      readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' '),
    )
    return titles.some((title) => /^npm \S+ build\b/.test(title))
  } catch {
    return false
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url) && !beforeBuild()) {
  try {
    const words = process.argv.slice(2)
    const build = words.find((word) => !word.startsWith('-'))
    const unknown = words.find((word) => word !== build && word !== '--cuda')
    if (unknown) throw new Error(`There is no option ${unknown}: prebuild takes --cuda, or the folder of a build.`)
    installPackages()
    console.log(prebuild({ cuda: words.includes('--cuda'), ...(build && { build }) }))
  } catch (error) {
    console.error(`[voxtorch] ${/** @type {Error} */ (error).message}`)
    process.exitCode = 1
  }
}
