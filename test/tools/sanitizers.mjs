// The tests against native code built with AddressSanitizer and UndefinedBehaviorSanitizer, in build-sanitize/:
// `npm run test:sanitizers`, or with files after `--`. Fails on any report, on any leak of our own code and on any test.
// vitest kills its own processes, so leaks are looked for in those that tests start and that end by themselves: scenarios of
// the executor, ranks, commands, examples. Linux and g++ only, and several times as slow as `npm test`.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const build = join(root, 'build-sanitize')

// What a sanitizer cannot keep, most of it memory: its shadow memory and quarantine of freed blocks count as the
// process's memory, and nothing is given back. Other bounds on memory are wider there (`MEMORY_SLACK` of
// test/patience.ts). By the beginning of a name.
const EXCLUDED_TESTS = {
  'takes 50 requests of 5 MB at once': 'gives memory back',
  'an hour streams in bounded memory': 'constant memory',
  'holds less memory between forward and backward': 'compares what two ways hold',
  'pressure makes V8 collect': 'memory while it collects',
  'all of it together took less than 200 MB': 'the peak of the process',
  'a JSONL file of 600 MB is read within 100 MB': 'constant memory',
  'a worker’s memory is freed': 'gives memory back',
  'a mapped file that is cut short ends the process': 'the signal is taken by the sanitizer',
}
const EXCLUDED_FILES = {
  'test/setup/**': 'builds, packs and loads other addons',
  'test/models/*memory*.test.ts': 'bounds on memory, in processes of their own',
  'test/tensor/cpu-cache*.test.ts': 'the pooled heap, which is off',
  'test/files/big-files.slow.test.ts': 'bounds on memory, in processes of their own',
}

// A leak is ours when one of the calls nearest to its allocation is. What Node, V8, libtorch and OpenMP allocate once and
// keep has none near.
const NEAR = 16
const OURS = /\/native\/(?:core|binding|loader)\/|libvoxtorch_core\.so|voxtorch(?:_loader)?\.node/

const files = process.argv.slice(2)
const { install } = await import('../../dist/cli/install.js')
await install({ build: true, sanitize: true, report: console.log })
const scratch = mkdtempSync(join(tmpdir(), 'voxtorch-sanitize-'))
try {
  const { passed, failed, skipped } = run()
  const reports = found()
  for (const report of reports) console.log(`\n${report}`)
  console.log(`\n${'passed'.padEnd(10)}${'failed'.padEnd(10)}${'skipped'.padEnd(10)}reports`)
  console.log([passed, failed, skipped].map((count) => String(count).padEnd(10)).join('') + reports.length)
  for (const [what, why] of Object.entries({ ...EXCLUDED_TESTS, ...EXCLUDED_FILES }))
    console.log(`  left out: ${what} (${why})`)
  process.exitCode = failed === 0 && reports.length === 0 ? 0 : 1
} finally {
  rmSync(scratch, { recursive: true, force: true })
}

/** @param {string} name */
function library(name) {
  const { stdout } = spawnSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' })
  const path = stdout?.trim()
  if (!path?.startsWith('/')) throw new Error(`g++ has no ${name}`)
  return path
}

function run() {
  const log = join(scratch, 'report')
  const env = {
    ...process.env,
    VOXTORCH_TESTS: 'all',
    VOXTORCH_ADDON: build,
    VOXTORCH_SANITIZED: '1',
    // The pooled heap would hide what lies beyond a block.
    VOXTORCH_NO_CPU_CACHE: '1',
    // Before Node: its own operator new must be the sanitizer's too.
    LD_PRELOAD: ['libasan.so', 'libubsan.so', 'libstdc++.so.6'].map(library).join(' '),
    // Tests ask for more memory than there is, and expect an error.
    ASAN_OPTIONS: `log_path=${log}:allocator_may_return_null=1:detect_leaks=1:quarantine_size_mb=64:detect_odr_violation=0:detect_stack_use_after_return=0`,
    UBSAN_OPTIONS: `log_path=${log}:print_stacktrace=1:halt_on_error=0`,
    // Leaks are read from the reports; children of tests keep their exit codes.
    LSAN_OPTIONS: 'exitcode=0',
  }
  const output = join(scratch, 'tests.json')
  const leftOut = `^(?!.*(?:${Object.keys(EXCLUDED_TESTS).join('|')}))`
  spawnSync(
    process.execPath,
    [
      ...['node_modules/vitest/vitest.mjs', 'run', ...files, '--reporter=dot', '--reporter=json'],
      ...[`--outputFile.json=${output}`, '--maxWorkers=1', '--testNamePattern', leftOut],
      ...Object.keys(EXCLUDED_FILES).map((pattern) => `--exclude=${pattern}`),
    ],
    { cwd: root, env, stdio: ['ignore', 'inherit', 'inherit'] },
  )
  if (!existsSync(output)) throw new Error('vitest wrote no report')
  const report = JSON.parse(readFileSync(output, 'utf8'))
  const broken = report.testResults.filter(
    (/** @type {{ status: string, assertionResults: { status: string }[] }} */ file) =>
      file.status === 'failed' && !file.assertionResults.some(({ status }) => status === 'failed'),
  ).length
  return { passed: report.numPassedTests, failed: report.numFailedTests + broken, skipped: report.numPendingTests }
}

/** Every report but leaks of others. */
function found() {
  return readdirSync(scratch)
    .filter((name) => name.startsWith('report'))
    .flatMap((name) => {
      // What tests ask for beyond all memory is not found, and no fault.
      const written = readFileSync(join(scratch, name), 'utf8')
      const text = written.replace(/^==\d+==WARNING: AddressSanitizer failed to allocate .*$/gm, '')
      if (!/LeakSanitizer/.test(text)) return text.trim() ? [text] : []
      const blocks = text.split(/\n\n/).filter((block) => /^(?:Direct|Indirect) leak of/m.test(block))
      return blocks.filter((block) => OURS.test(block.split('\n').slice(0, NEAR).join('\n')))
    })
}
