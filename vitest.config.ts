import { existsSync, readFileSync } from 'node:fs'
import { relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { defineConfig, type Plugin } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

const lib = fileURLToPath(new URL('./lib/', import.meta.url))
const dist = fileURLToPath(new URL('./dist/modules/', import.meta.url))

/** The module of a subpath of package.json's exports. */
const exported = (subpath: string): string => {
  const { exports } = JSON.parse(readFileSync(new URL('./package.json', import.meta.url), 'utf8'))
  return exports[`./${subpath}`].default.replace('./dist/', dist)
}

// Whatever tests import of lib/, or as 'voxtorch', is the compiled module in dist/modules/, loaded by Node itself: one copy
// of each. What users get is those modules bundled; processes and threads that tests start run the bundle.
const compiled: Plugin = {
  name: 'voxtorch-compiled',
  enforce: 'pre',
  resolveId(source, importer) {
    if (source === 'voxtorch') return { id: `${dist}index.js`, external: true }
    if (source.startsWith('voxtorch/')) return { id: exported(source.slice('voxtorch/'.length)), external: true }
    if (!importer || !source.startsWith('.')) return null
    const path = fileURLToPath(new URL(source, `file://${importer}`))
    if (!path.startsWith(lib)) return null
    const id = `${dist}${path.slice(lib.length).replace(/\.ts$/, '.js')}`
    return existsSync(id) ? { id, external: true } : null
  },
}

// Trainings and fuzzing of thousands of inputs are in *.slow.test.ts, which `npm test` leaves to `npm run test:slow`.
const slow = 'test/**/*.slow.test.ts'
const which = process.env.VOXTORCH_TESTS ?? 'fast'
const include = which === 'slow' ? [] : ['test/**/*.test.ts']
const exclude = which === 'fast' ? [slow] : []

// Files that count the memory of their process or end it have one of their own, and so have those that load the library in
// several ways. All others share two processes: loading libtorch and the library for each file takes longer than most files.
const alone = [
  slow,
  'test/{setup,native,fuzz,cuda}/**/*.test.ts',
  'test/**/*{hostile,memory,cache,heap,big}*.test.ts',
  'test/models/checkpointing.test.ts',
  'test/nn/dispose.test.ts',
]

// Seconds of the longest files. A fresh clone has no durations of its own, and vitest orders by the size of the files then.
const seconds: Record<string, number> = JSON.parse(
  readFileSync(new URL('./test/seconds.json', import.meta.url), 'utf8'),
)

/** The longest files first, so that at the end no process works alone on one of them. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files)
    // Those with a process of their own stay in front of those that share one.
    const rank = ({ project, moduleId }: TestSpecification) =>
      (project.config.isolate ? 1_000_000 : 0) + (seconds[relative(project.config.root, moduleId)] ?? 0)
    return sorted.sort((a, b) => rank(b) - rank(a))
  }
}

export default defineConfig({
  plugins: [compiled],
  test: {
    projects: [
      { extends: true, test: { name: 'alone', include: which === 'slow' ? [slow] : alone, exclude, isolate: true } },
      { extends: true, test: { name: 'shared', include, exclude: [...exclude, ...alone], isolate: false } },
    ],
    globalSetup: ['test/global-setup.ts'],
    setupFiles: ['test/each-file.ts'],
    server: { deps: { external: [/\/dist\//] } },
    pool: 'forks',
    execArgv: ['--expose-gc'],
    maxWorkers: 2,
    sequence: { sequencer: LongestFirst },
    env: {
      // Where others use the cores too, threads that wait by turning in a loop take them from those they wait for.
      OMP_WAIT_POLICY: 'passive',
      // Scripts that tsx runs find the bundle as 'voxtorch', like users; by the paths of tsconfig.json it would compile lib.
      TSX_TSCONFIG_PATH: fileURLToPath(new URL('./test/tsconfig.examples.json', import.meta.url)),
    },
    // These only catch what hangs: no machine is too slow for a test. Files with processes wait PATIENCE for each, which is less.
    testTimeout: 900_000,
    hookTimeout: 900_000,
    expect: { poll: { timeout: 120_000 } },
  },
})
