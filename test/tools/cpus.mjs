// The numeric tests as other processors would run them: with oneDNN and ATen held to older instruction sets, with more and
// fewer threads, and while others use the cores. `npm run test:cpus` runs every setting; `-- --quick` the two that lie
// furthest apart, over the suites that take seconds; `-- --only NAME` one setting (`--list` names them). `-- --one-worker`
// leaves a core to others. What the processor cannot do is skipped by name. `share` is how much of its tolerance the
// tightest comparison used.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = fileURLToPath(new URL('../..', import.meta.url))

// Folders and files whose results are rounded. The others compare what is exact: text, files, messages, processes.
const KERNELS = readdirSync(join(root, 'test/kernels'))
  // Their processes choose instruction sets and threads themselves, the same in every setting.
  .filter((name) => name.endsWith('.test.ts') && !/^(instruction-sets|threads-environment)\./.test(name))
  .map((name) => `test/kernels/${name}`)
const QUICK = [
  ...KERNELS,
  'test/nn/reference.test.ts',
  'test/models/q-former.test.ts',
  'test/systems/spectra/network/reference.test.ts',
]
const NUMERIC = [
  ...[...KERNELS, 'test/nn', 'test/tensor', 'test/models', 'test/peft', 'test/generation', 'test/train'],
  ...['test/systems', 'test/audio', 'test/data/pack.test.ts', 'test/distributed/training.test.ts'],
]

/**
 * @typedef {{ name: string, env?: Record<string, string>, load?: boolean }} Setting
 * @type {Setting[]}
 */
const SETTINGS = [
  { name: 'own' },
  ...['SSE41', 'AVX2', 'AVX512_CORE', 'AVX512_CORE_BF16'].map((isa) => ({
    name: `oneDNN ${isa}`,
    env: { ONEDNN_MAX_CPU_ISA: isa },
  })),
  ...['default', 'avx2', 'avx512'].map((level) => ({ name: `ATen ${level}`, env: { ATEN_CPU_CAPABILITY: level } })),
  // What an old processor is to both.
  {
    name: 'oldest, 1 thread',
    env: { ONEDNN_MAX_CPU_ISA: 'SSE41', ATEN_CPU_CAPABILITY: 'default', OMP_NUM_THREADS: '1' },
  },
  {
    name: 'AVX2, 4 threads',
    env: { ONEDNN_MAX_CPU_ISA: 'AVX2', ATEN_CPU_CAPABILITY: 'avx2', OMP_NUM_THREADS: '4' },
  },
  ...['1', '2', '4'].map((threads) => ({
    name: threads === '1' ? '1 thread' : `${threads} threads`,
    env: { OMP_NUM_THREADS: threads },
  })),
  { name: 'loaded', load: true },
]
const QUICK_SETTINGS = ['oldest, 1 thread', 'AVX2, 4 threads']

// The flags of /proc/cpuinfo that a setting needs.
/** @type {Record<string, string[]>} */
const NEEDED = {
  SSE41: ['sse4_1'],
  AVX2: ['avx2', 'fma'],
  AVX512_CORE: ['avx512f', 'avx512bw', 'avx512dq', 'avx512vl'],
  AVX512_CORE_BF16: ['avx512_bf16'],
  avx2: ['avx2', 'fma'],
  avx512: ['avx512f', 'avx512bw', 'avx512dq', 'avx512vl'],
  default: [],
}

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: 'boolean', default: false },
    'one-worker': { type: 'boolean', default: false },
    only: { type: 'string', multiple: true },
    list: { type: 'boolean', default: false },
  },
})
const chosen = options.only ?? (options.quick ? QUICK_SETTINGS : SETTINGS.map(({ name }) => name))
const unknown = chosen.filter((name) => !SETTINGS.some((setting) => setting.name === name))
if (options.list || unknown.length > 0) {
  for (const name of unknown) console.error(`there is no setting '${name}'`)
  console.log(SETTINGS.map(({ name }) => name).join('\n'))
  process.exit(unknown.length > 0 ? 2 : 0)
}
const files = positionals.length > 0 ? positionals : options.quick ? QUICK : NUMERIC

const processor = cpus()[0]?.model ?? 'unknown processor'
console.log(`${processor}, ${availableParallelism()} cores, libtorch on ${capability({}) ?? '?'}`)
const scratch = mkdtempSync(join(tmpdir(), 'voxtorch-cpus-'))
/** @type {string[][]} */
const table = [['setting', 'passed', 'failed', 'skipped', 'seconds', 'share']]
/** @type {string[]} */
const failures = []
let [passed, failed] = [0, 0]
try {
  for (const setting of SETTINGS.filter(({ name }) => chosen.includes(name))) {
    const why = beyond(setting)
    if (why) {
      table.push([setting.name, '-', '-', `all: ${why}`, '', ''])
      continue
    }
    const result = await run(setting)
    passed += result.passed
    failed += result.failures.length
    failures.push(...result.failures.map((failure) => `${setting.name}: ${failure}`))
    const { share, seconds } = result
    table.push([
      setting.name,
      ...[result.passed, result.failures.length, result.skipped, Math.round(seconds)].map(String),
      share ? `${share.share.toFixed(2)} ${share.test}` : '',
    ])
    console.log(
      `  ${setting.name}: ${result.passed} passed, ${result.failures.length} failed in ${Math.round(seconds)} s`,
    )
    for (const failure of result.failures) console.log(`    ${failure}`)
  }
} finally {
  rmSync(scratch, { recursive: true, force: true })
}

console.log(`\n${processor}`)
const widths = table[0]?.map((_, i) => Math.max(...table.map((row) => row[i]?.length ?? 0))) ?? []
for (const row of table)
  console.log(
    row
      .map((cell, i) => cell.padEnd(i < 5 ? (widths[i] ?? 0) : 0))
      .join('  ')
      .trimEnd(),
  )
for (const failure of failures) console.log(`FAILED ${failure}`)
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1

/**
 * Why the processor cannot run a setting as meant.
 * @param {Setting} setting
 */
function beyond({ env = {} }) {
  const sets = [env.ONEDNN_MAX_CPU_ISA, env.ATEN_CPU_CAPABILITY].filter((one) => one !== undefined)
  if (sets.length === 0) return null
  if (process.arch !== 'x64') return `${process.arch} has no such instruction sets`
  const info = existsSync('/proc/cpuinfo') ? readFileSync('/proc/cpuinfo', 'utf8') : ''
  const flags = new Set((/^flags\s*:(.*)$/m.exec(info)?.[1] ?? '').trim().split(/\s+/))
  const missing = sets.flatMap((set) => (NEEDED[set] ?? []).filter((flag) => !flags.has(flag)))
  if (missing.length > 0) return `the processor lacks ${[...new Set(missing)].join(', ')}`
  // Also that libtorch, and with it our kernels, which ask it, did as told.
  const wanted = env.ATEN_CPU_CAPABILITY
  const got = wanted && capability(env)
  return got && got.toLowerCase() !== (wanted === 'default' ? 'default' : wanted) ? `libtorch runs ${got}` : null
}

/**
 * Return the CPU capability that libtorch reports: DEFAULT, AVX2 or AVX512.
 * @param {Record<string, string>} env
 */
function capability(env) {
  const code = "import { versions } from './dist/modules/native/runtime.js'; console.log(versions().cpu)"
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    cwd: root,
    env: environment(env),
    encoding: 'utf8',
  })
  return stdout.trim().replace('NO AVX', 'DEFAULT') || null
}

/** @param {Record<string, string>} extra */
function environment(extra) {
  const { ONEDNN_MAX_CPU_ISA, ATEN_CPU_CAPABILITY, OMP_NUM_THREADS, MKL_NUM_THREADS, ...rest } = process.env
  return { ...rest, ...extra }
}

/** @param {Setting} setting */
async function run({ name, env = {}, load = false }) {
  const [report, margins] = [join(scratch, 'tests.json'), join(scratch, 'margins.jsonl')]
  for (const path of [report, margins]) rmSync(path, { force: true })
  // As many busy processes as cores, twice.
  const busy = Array.from({ length: load ? 2 * availableParallelism() : 0 }, () =>
    spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }),
  )
  const started = performance.now()
  const child = spawn(
    process.execPath,
    [
      ...['node_modules/vitest/vitest.mjs', 'run', ...files, '--reporter=json', `--outputFile=${report}`],
      ...(options['one-worker'] ? ['--no-file-parallelism'] : []),
    ],
    {
      cwd: root,
      env: { ...environment(env), VOXTORCH_TEST_MARGINS: margins, VOXTORCH_TESTS: options.quick ? 'fast' : 'all' },
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  )
  let said = ''
  child.stderr.on('data', (text) => (said = (said + text).slice(-10_000)))
  const stop = () => {
    for (const one of busy) one.kill('SIGKILL')
  }
  process.once('exit', stop)
  const code = await new Promise((resolve) => child.once('close', resolve))
  stop()
  process.removeListener('exit', stop)
  const seconds = (performance.now() - started) / 1000
  if (!existsSync(report)) throw new Error(`${name}: vitest ended with ${code} and no report\n${said}`)
  return { ...read(report), seconds, share: tightest(margins) }
}

/** @param {string} path */
function read(path) {
  const report = JSON.parse(readFileSync(path, 'utf8'))
  /** @type {string[]} */
  const failures = []
  for (const { name, status, message, assertionResults } of report.testResults) {
    const bad = assertionResults.filter((/** @type {{ status: string }} */ test) => test.status === 'failed')
    const file = name.slice(root.length)
    for (const test of bad) {
      failures.push(`${file} > ${test.fullName}: ${String(test.failureMessages[0]).split('\n')[0]}`)
    }
    // A file that fails before its first test has no failed test of its own.
    if (status === 'failed' && bad.length === 0) failures.push(`${file}: ${String(message).split('\n')[0]}`)
  }
  return { passed: report.numPassedTests, skipped: report.numPendingTests, failures }
}

/**
 * The comparison that came nearest to its tolerance.
 * @param {string} path
 * @returns {{ share: number, test: string } | null}
 */
function tightest(path) {
  if (!existsSync(path)) return null
  let most = null
  for (const line of readFileSync(path, 'utf8').split('\n')) {
    if (!line) continue
    const one = JSON.parse(line)
    if (!most || one.share > most.share) most = one
  }
  return most
}
