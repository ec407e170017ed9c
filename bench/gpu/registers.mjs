// What ptxas makes of the CUDA kernels, by sm: registers a thread, spills, stack (both of local memory, which is as slow
// as the GPU's own) and static shared memory a block. Needs nvcc, no GPU.
//
//   node bench/gpu/registers.mjs            the table; ends with 1 where a kernel is beyond its bound
//   node bench/gpu/registers.mjs attention  of the files that have the word in their name
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const native = fileURLToPath(new URL('../../native/', import.meta.url))

/** GPU architectures that CMakeLists.txt compiles for. */
const ARCHITECTURES = ['80', '90']

/**
 * Kernels that may have spills or a stack, by file and a part of the name, with what they have at most, in bytes, and why. All others have none of
 * either. One that has become better must leave the list, or its numbers go down.
 * @type {{ file: string, kernel: RegExp, spills?: number, stack?: number, why: string }[]}
 */
const ALLOWED = [
  {
    ...{
      file: 'gated_position_attention',
      kernel: /^backward_queries_kernel<Kernel<float, 64, 64>>/,
      spills: 8,
      stack: 8,
    },
    why: 'two blocks an SM leave 128 registers a thread; one float32 of two is kept in memory across the loop over tiles',
  },
]

/** @typedef {{ file: string, kernel: string, sm: string, registers: number, spillStores: number, spillLoads: number, stack: number, shared: number }} Row */

/** nvcc's path, or null. @returns {string | null} */
export function findNvcc() {
  for (const program of [process.env.CUDACXX, 'nvcc', '/usr/local/cuda/bin/nvcc']) {
    if (!program) continue
    try {
      execFileSync(program, ['--version'], { stdio: 'ignore' })
      return program
    } catch {}
  }
  return null
}

/** @param {string} name as c++filt writes it, with its parameters */
function shorten(name) {
  const plain = name.replace(/voxtorch::kernels::|\(anonymous namespace\)::|^void /g, '')
  let depth = 0
  for (const [at, letter] of [...plain].entries()) {
    depth += letter === '<' ? 1 : letter === '>' ? -1 : 0
    if (letter === '(' && depth === 0) return plain.slice(0, at).replaceAll(' >', '>')
  }
  return plain
}

/** @param {string} text what ptxas -v says, demangled @param {string} file @returns {Row[]} */
export function parse(text, file) {
  const rows = /** @type {Row[]} */ ([])
  for (const part of text.split(/Compiling entry function /).slice(1)) {
    const [, name, sm] = /^'(.+)' for 'sm_(\w+)'/.exec(part) ?? []
    const memory = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(part)
    const registers = /Used (\d+) registers/.exec(part)
    if (!name || !sm || !memory || !registers)
      throw new Error(`ptxas speaks of ${file} in other words:\n${part.slice(0, 500)}`)
    const shared = Number(/, (\d+) bytes smem/.exec(part)?.[1] ?? 0)
    const [stack, spillStores, spillLoads] = memory.slice(1).map(Number)
    rows.push({
      file,
      kernel: shorten(name),
      sm,
      registers: Number(registers[1]),
      spillStores,
      spillLoads,
      stack,
      shared,
    })
  }
  return rows
}

/** @param {string} nvcc @param {string} path @param {string} out @returns {Promise<Row[]>} */
async function compile(nvcc, path, out) {
  const to = join(out, `${basename(path)}.fatbin`)
  const targets = ARCHITECTURES.map((sm) => `-gencode=arch=compute_${sm},code=sm_${sm}`)
  const child = spawn(nvcc, [
    '-std=c++17',
    '-O3',
    '-I',
    native,
    '-Xptxas',
    '-v',
    '--fatbin',
    '-o',
    to,
    ...targets,
    path,
  ])
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      said += chunk
    })
  }
  const code = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve))
  if (code !== 0) throw new Error(`nvcc ended with ${code} at ${path}:\n${said}`)
  return parse(execFileSync('c++filt', { input: said, encoding: 'utf8', maxBuffer: 2 ** 28 }), basename(path, '.cu'))
}

/** Return the rows of every .cu file whose name contains `word`. @param {string} nvcc @returns {Promise<Row[]>} */
export async function measure(nvcc, word = '') {
  const folder = join(native, 'core/kernels')
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.cu') && basename(path).includes(word))
    .sort()
  const out = mkdtempSync(join(tmpdir(), 'voxtorch-registers-'))
  try {
    const rows = []
    for (const path of files) rows.push(...(await compile(nvcc, join(folder, path), out)))
    return rows.sort((a, b) => `${a.file} ${a.kernel} ${a.sm}`.localeCompare(`${b.file} ${b.kernel} ${b.sm}`))
  } finally {
    rmSync(out, { recursive: true })
  }
}

/** Return kernels beyond their bounds, and unnecessary exceptions, in sentences. @param {Row[]} rows @returns {string[]} */
export function complaints(rows) {
  const said = []
  const needed = new Set()
  for (const { file, kernel, sm, spillStores, spillLoads, stack } of rows) {
    const allowed = ALLOWED.find((one) => one.file === file && one.kernel.test(kernel))
    if (allowed && (stack > 0 || spillStores + spillLoads > 0)) needed.add(allowed)
    if (Math.max(spillStores, spillLoads) > (allowed?.spills ?? 0))
      said.push(
        `${file}: ${kernel} for sm_${sm} spills ${spillStores} bytes and loads ${spillLoads}; ${allowed?.spills ?? 0} are allowed`,
      )
    if (stack > (allowed?.stack ?? 0))
      said.push(`${file}: ${kernel} for sm_${sm} has a stack of ${stack} bytes; ${allowed?.stack ?? 0} are allowed`)
  }
  for (const one of ALLOWED) {
    if (rows.some(({ file }) => file === one.file) && !needed.has(one))
      said.push(`no ${one.kernel} of ${one.file} needs its exception any more`)
  }
  return said
}

/** @param {Row[]} rows */
export function table(rows) {
  const lines = rows.map(({ file, kernel, sm, registers, spillStores, spillLoads, stack, shared }) =>
    [file, kernel, `sm_${sm}`, registers, `${spillStores}/${spillLoads}`, stack, shared].join(' | '),
  )
  return ['file | kernel | sm | registers | spills | stack | static shared', ...lines].join('\n')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const nvcc = findNvcc()
  if (!nvcc) {
    console.error('there is no nvcc: put it on PATH, or set CUDACXX to it')
    process.exit(2)
  }
  const rows = await measure(nvcc, process.argv[2])
  console.log(table(rows))
  const said = complaints(rows)
  for (const sentence of said) console.error(sentence)
  process.exitCode = said.length > 0 ? 1 : 0
}
