// The pretended device, and the project's own kernels for it, as shared libraries that are compiled when their sources
// have changed. See README.md.
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { emulated } from '../kernels/build.mjs'
import { inParallel, made, run } from '../made.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const root = join(here, '../../..')
const output = join(root, 'build/pretended-cuda')

/** Where CMake found the libtorch that the addon was built for. */
export function libtorch() {
  const line = /^VOXTORCH_LIBTORCH:PATH=(.+)$/m.exec(readFileSync(join(root, 'build/CMakeCache.txt'), 'utf8'))
  if (!line) throw new Error('build/CMakeCache.txt names no libtorch: run `npm run build` first')
  return line[1]
}

const FLAGS = ['-std=c++20', '-O1', '-fPIC', '-Wall', '-Wextra', '-Wno-unused-parameter', '-DAT_PER_OPERATOR_HEADERS']

/** Files below a folder. @param {string} folder @param {RegExp} pattern of their paths */
const below = (folder, pattern) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((path) => pattern.test(path))
    .map((path) => join(folder, path))
    .sort()

/**
 * Compiles `sources` and links them with `objects`.
 * @param {string} name of the library
 * @param {string[]} sources
 * @param {{ headers: string[], flags?: string[], objects?: string[], libraries: string[] }} options headers: of whose text
 *   an object is made besides
 * @returns {Promise<string>} the library's path
 */
async function library(name, sources, { headers, flags = [], objects = [], libraries }) {
  mkdirSync(output, { recursive: true })
  const torch = libtorch()
  const includes = [`${torch}/include`, `${torch}/include/torch/csrc/api/include`].flatMap((path) => ['-isystem', path])
  const compiler = process.env.CXX || 'g++'
  const hash = (/** @type {string[]} */ values, /** @type {string[]} */ paths) => {
    const sum = createHash('sha256').update(values.join(' '))
    for (const path of paths) sum.update(readFileSync(path))
    return sum.digest('hex')
  }
  // What most sources include takes longer to read than they do.
  const header = join(output, 'headers.h')
  const precompile = [...FLAGS, ...includes, '-x', 'c++-header', header]
  await made(`${header}.gch`, hash([compiler, ...precompile], []), (to) => {
    writeFileSync(header, '#include <ATen/core/Tensor.h>\n#include <torch/library.h>\n')
    return run(compiler, [...precompile, '-o', to])
  })
  const compile = [...FLAGS, ...flags, ...includes, '-include', header]
  const own = await inParallel(
    sources.map((source) => () => {
      const object = join(output, `${basename(dirname(source))}-${basename(source)}.o`)
      return made(object, hash(compile, [source, ...headers]), (to) =>
        run(compiler, [...compile, '-c', source, '-o', to]),
      )
    }),
  )
  const linked = [...own, ...objects].sort()
  // By SONAME, as the addon finds libtorch: nothing is looked for that is not open.
  const link = ['-shared', `-Wl,-soname,${name}`, ...linked, `-L${torch}/lib`, '-Wl,--no-as-needed', ...libraries]
  return made(
    join(output, name),
    hash(
      link,
      linked.map((path) => `${path}.hash`),
    ),
    (to) => run(compiler, [...link, '-o', to]),
  )
}

/** The device. @returns {Promise<string>} the library's path */
export const buildDevice = () =>
  library('libpretended_cuda.so', below(here, /^[^/]+\.cc$/), {
    headers: below(here, /^[^/]+\.h$/),
    libraries: ['-ltorch_cpu', '-lc10'],
  })

/**
 * The project's launchers (`cuda.cc`) as they stand, with the emulated kernels (../kernels): what a CUDA build has beside the
 * CPU's core.
 * @returns {Promise<string>} the library's path
 */
export async function buildKernels() {
  const native = join(root, 'native')
  const emulation = join(here, '../kernels/emulation')
  return library(
    'libvoxtorch_cuda_kernels.so',
    [...below(join(native, 'core/kernels'), /(^|\/)cuda\.cc$/), join(here, 'kernels/launches.cc')],
    {
      headers: [
        ...below(join(native, 'core'), /\.h$/),
        ...below(join(here, 'kernels'), /\.h$/),
        ...below(emulation, /\.h$/),
      ],
      flags: [join(here, 'kernels'), native, emulation].flatMap((path) => ['-I', path]),
      objects: await emulated(),
      libraries: ['-ltorch_cpu', '-lc10', `-L${join(root, 'build')}`, '-lvoxtorch_core', await buildDevice()],
    },
  )
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(await buildDevice(), await buildKernels())
