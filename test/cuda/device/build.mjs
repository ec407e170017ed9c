// The pretended device as a shared library, compiled when its sources have changed. See README.md.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const root = join(here, '../../..')
const output = join(root, 'build/pretended-cuda')

/** Where CMake found the libtorch that the addon was built for. */
export function libtorch() {
  const line = /^VOXTORCH_LIBTORCH:PATH=(.+)$/m.exec(readFileSync(join(root, 'build/CMakeCache.txt'), 'utf8'))
  if (!line) throw new Error('build/CMakeCache.txt names no libtorch: run `npm run build` first')
  return line[1]
}

/** Compiles what has changed. @returns {string} the library's path */
export function buildDevice() {
  const torch = libtorch()
  const includes = [`${torch}/include`, `${torch}/include/torch/csrc/api/include`].flatMap((path) => ['-isystem', path])
  const compile = ['-std=c++20', '-O1', '-fPIC', '-Wall', '-Wextra', '-Wno-unused-parameter', ...includes]
  const named = (/** @type {RegExp} */ pattern) => readdirSync(here).filter((name) => pattern.test(name))
  mkdirSync(output, { recursive: true })
  const objects = named(/\.cc$/).map((name) => {
    const object = join(output, name.replace(/\.cc$/, '.o'))
    make(object, [name, ...named(/\.h$/)], [...compile, '-c', join(here, name), '-o', object])
    return object
  })
  const library = join(output, 'libpretended_cuda.so')
  const libraries = [`-L${torch}/lib`, '-Wl,--no-as-needed', '-ltorch_cpu', '-lc10']
  make(library, named(/\.(cc|h)$/), ['-shared', '-o', library, ...objects, ...libraries])
  return library
}

/**
 * Runs the compiler unless `made` is of the same sources and options.
 * @param {string} made @param {string[]} sources @param {string[]} values
 */
function make(made, sources, values) {
  const hash = createHash('sha256').update(values.join(' '))
  for (const name of sources) hash.update(readFileSync(join(here, name)))
  const [stamp, wanted] = [`${made}.stamp`, hash.digest('hex')]
  if (existsSync(made) && existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return
  run(values)
  writeFileSync(stamp, wanted)
}

/** @param {string[]} values */
function run(values) {
  const { error, status, stderr } = spawnSync(process.env.CXX || 'g++', values, { encoding: 'utf8' })
  if (error) throw error
  if (status !== 0) throw new Error(`the pretended CUDA device does not compile:\n${stderr}`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(buildDevice())
