// Compiles the driver, the emulation and the project's .cu files into build/cuda-emulation/KIND/driver. What is up to
// date is left alone: an object is kept with the hash of all that it was made of.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findLibtorch } from '../../../dist/modules/native/libtorch.js'
import { inParallel, made, run } from '../made.mjs'
import { translate } from './translate.mjs'

const here = fileURLToPath(new URL('.', import.meta.url))
const native = fileURLToPath(new URL('../../../native/', import.meta.url))
const folder = fileURLToPath(new URL('../../../build/cuda-emulation/', import.meta.url))

/** @typedef {'plain' | 'asan' | 'tsan'} Kind */
/** @type {Record<Kind, { sanitize: string[], define: string[] }>} */
const KINDS = {
  plain: { sanitize: [], define: [] },
  asan: {
    sanitize: ['-fsanitize=address,undefined', '-fno-sanitize=vptr', '-fno-sanitize-recover=undefined'],
    define: ['-DEMULATION_ASAN'],
  },
  tsan: { sanitize: ['-fsanitize=thread'], define: ['-DEMULATION_TSAN'] },
}

/** The kernels: the folders of native/core/kernels that hold a .cu file. */
export const kernels = readdirSync(join(native, 'core/kernels'), { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.cu'))
  .map((path) => join(native, 'core/kernels', path))
  .sort()

/** Headers of kernels with PTX, which g++ cannot take as they stand, as the includes name them. */
const withPtx = readdirSync(join(native, 'core/kernels'), { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.cuh'))
  .map((path) => join('core/kernels', path))
  .filter((path) => /\basm\b/.test(readFileSync(join(native, path), 'utf8')))

/** Puts a header as C++ where it is found in place of itself. @param {string} folder @param {string} path @returns {string} its text */
function put(folder, path) {
  const [to, text] = [join(folder, path), translate(readFileSync(join(native, path), 'utf8'), basename(path))]
  if (existsSync(to) && readFileSync(to, 'utf8') === text) return text
  mkdirSync(dirname(to), { recursive: true })
  writeFileSync(`${to}.${process.pid}`, text)
  renameSync(`${to}.${process.pid}`, to) // others may be reading it
  return text
}

/** The text of what kernels include of each other, and of what CUDA's headers are here. */
const included = () =>
  [join(native, 'core/kernels'), join(here, 'emulation'), join(here, 'driver')]
    .flatMap((path) => readdirSync(path, { recursive: true, encoding: 'utf8' }).map((name) => join(path, name)))
    .filter((path) => /\.(cuh|h)$/.test(path))
    .sort()
    .map((path) => readFileSync(path, 'utf8'))

/**
 * What compiles a file unless that has been done, to an object whose path it returns.
 * @param {Kind} kind
 * @param {Record<string, string>} changed other texts of native/core/kernels, by the name of the file
 */
function compiler(kind, changed) {
  const { libtorch } = findLibtorch()
  if (!libtorch) throw new Error('there is no libtorch, whose headers have the half precisions')
  const name = Object.keys(changed).length === 0 ? kind : `${kind}-changed`
  const out = join(folder, name)
  for (const each of [kind, name]) mkdirSync(join(folder, each), { recursive: true })
  const translated = join(folder, 'headers')
  const flags = ['-std=c++20', '-O1', '-g1', '-w', '-fPIC', '-I', translated, '-I', join(here, 'emulation')]
  flags.push('-I', join(here, 'driver'), '-I', native, '-isystem', join(libtorch.home, 'include'))
  const headers = [...included(), ...withPtx.map((path) => put(translated, path)), libtorch.home]

  /** @param {string} path @param {string[]} extra @returns {Promise<string>} */
  return async (path, extra) => {
    const source = basename(path)
    const text = readFileSync(path, 'utf8')
    const cuda = path.endsWith('.cu')
    const code = cuda ? translate(changed[source] ?? text, source) : text
    const hash = createHash('sha256')
      .update(JSON.stringify([code, headers, flags, extra]))
      .digest('hex')
    const unchanged = changed[source] === undefined ? join(folder, kind) : out
    return made(join(unchanged, `${source}.o`), hash, async (to) => {
      const from = cuda ? join(unchanged, `${source}.cc`) : path
      if (cuda) writeFileSync(from, code)
      await run('g++', [...flags, ...extra, '-c', from, '-o', to])
    })
  }
}

const machine = join(here, 'emulation/emulation.cc')
const tensorCores = join(here, 'emulation/mma.cc')

/** The kernels and the emulation, for whoever launches them: the paths of objects. */
export function emulated() {
  const object = compiler('plain', {})
  return inParallel([...kernels, tensorCores].map((path) => () => object(path, [])).concat(() => object(machine, [])))
}

/**
 * @param {Kind} kind
 * @param {Record<string, string>} [changed] other texts of native/core/kernels, by the name of the file
 * @returns {Promise<string>} the path of the driver
 */
export async function build(kind, changed = {}) {
  const { sanitize, define } = KINDS[kind]
  const object = compiler(kind, changed)
  // What launches kernels is under test itself only where threads race: the buffers it takes have ASan's borders without it.
  const driverObject = kind === 'asan' ? compiler('plain', {}) : object
  const drivers = readdirSync(join(here, 'driver')).filter((file) => file.endsWith('.cc'))
  const objects = await inParallel([
    ...[...kernels, tensorCores].map((path) => () => object(path, sanitize)),
    ...drivers.map((file) => () => driverObject(join(here, 'driver', file), kind === 'asan' ? [] : sanitize)),
    () => object(machine, define),
  ])
  const driver = join(folder, Object.keys(changed).length === 0 ? kind : `${kind}-changed`, 'driver')
  await run('g++', [...sanitize, '-o', driver, ...objects.sort()])
  return driver
}
