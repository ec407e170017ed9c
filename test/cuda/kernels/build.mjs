// Compiles the driver, the emulation and the project's .cu files into build/cuda-emulation/KIND/driver. What is up to
// date is left alone: an object is kept with the hash of all that it was made of.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findLibtorch } from '../../../dist/modules/native/libtorch.js'
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

/** The text of what kernels include of each other, and of what CUDA's headers are here. */
const included = () =>
  [join(native, 'core/kernels'), join(here, 'emulation'), join(here, 'driver')]
    .flatMap((path) => readdirSync(path, { recursive: true, encoding: 'utf8' }).map((name) => join(path, name)))
    .filter((path) => /\.(cuh|h)$/.test(path))
    .sort()
    .map((path) => readFileSync(path, 'utf8'))

/** @param {string} program @param {string[]} values */
const run = (program, values) =>
  new Promise((resolve, reject) => {
    const child = spawn(program, values, { stdio: ['ignore', 'ignore', 'pipe'] })
    let errors = ''
    child.stderr.on('data', (chunk) => {
      errors += chunk
    })
    child.on('error', reject)
    child.on('close', (code) =>
      code === 0
        ? resolve(undefined)
        : reject(new Error(`${program} ${values.join(' ')} ended with ${code}\n${errors}`)),
    )
  })

/**
 * @param {Kind} kind
 * @param {Record<string, string>} [changed] other texts of native/core/kernels, by the name of the file
 * @returns {Promise<string>} the path of the driver
 */
export async function build(kind, changed = {}) {
  const { libtorch } = findLibtorch()
  if (!libtorch) throw new Error('there is no libtorch, whose headers have the half precisions')
  const name = Object.keys(changed).length === 0 ? kind : `${kind}-changed`
  const out = join(folder, name)
  for (const each of [kind, name]) mkdirSync(join(folder, each), { recursive: true })
  const { sanitize, define } = KINDS[kind]
  const flags = ['-std=c++20', '-O1', '-g1', '-w', '-I', out, '-I', join(here, 'emulation'), '-I', join(here, 'driver')]
  flags.push('-I', native, '-isystem', join(libtorch.home, 'include'))
  const headers = [...included(), libtorch.home]

  /** @param {string} path @param {string[]} extra */
  const object = async (path, extra) => {
    const source = basename(path)
    const text = readFileSync(path, 'utf8')
    const cuda = path.endsWith('.cu')
    const made = cuda ? translate(changed[source] ?? text, source) : text
    const hash = createHash('sha256')
      .update(JSON.stringify([made, headers, flags, extra]))
      .digest('hex')
    const unchanged = changed[source] === undefined ? join(folder, kind) : out
    const to = join(unchanged, `${source}.o`)
    if (existsSync(`${to}.hash`) && readFileSync(`${to}.hash`, 'utf8') === hash && existsSync(to)) return to
    const from = cuda ? join(unchanged, `${source}.cc`) : path
    if (cuda) writeFileSync(from, made)
    await run('g++', [...flags, ...extra, '-c', from, '-o', to])
    writeFileSync(`${to}.hash`, hash)
    return to
  }

  const drivers = readdirSync(join(here, 'driver')).filter((file) => file.endsWith('.cc'))
  /** @type {(() => Promise<string>)[]} */
  const jobs = [
    ...kernels.map((path) => () => object(path, sanitize)),
    ...drivers.map((file) => () => object(join(here, 'driver', file), sanitize)),
    () => object(join(here, 'emulation/emulation.cc'), define),
  ]
  /** @type {string[]} */
  const objects = []
  const workers = Array.from({ length: Number(process.env.CMAKE_BUILD_PARALLEL_LEVEL) || availableParallelism() })
  await Promise.all(
    workers.map(async () => {
      for (let job = jobs.shift(); job; job = jobs.shift()) objects.push(await job())
    }),
  )
  const driver = join(out, 'driver')
  await run('g++', [...sanitize, '-o', driver, ...objects.sort()])
  return driver
}
