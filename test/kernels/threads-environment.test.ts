import { execFileSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const modules = new URL('../../dist/modules/', import.meta.url)
const PROGRAM = `
  import { getNumThreads, setNumThreads } from '${new URL('index.js', modules)}'
  import { opAsync } from '${new URL('native/call.js', modules)}'
  const used = async () => Number(await opAsync('voxtorch::parallel_threads')())
  const before = [getNumThreads(), await used()]
  setNumThreads(2)
  console.log(JSON.stringify([before, [getNumThreads(), await used()]]))
`
const { OMP_NUM_THREADS: _, MKL_NUM_THREADS: __, ...plain } = process.env

const threads = (env: NodeJS.ProcessEnv): number[][] =>
  JSON.parse(
    execFileSync(process.execPath, ['--input-type=module', '-e', PROGRAM], {
      cwd: fileURLToPath(modules),
      env: { ...plain, ...env },
    }).toString(),
  )

// The numbers are those of Python's torch.get_num_threads().
it.each([
  ['neither variable', {}, availableParallelism()],
  ['OMP_NUM_THREADS', { OMP_NUM_THREADS: '1' }, 1],
  ['MKL_NUM_THREADS', { MKL_NUM_THREADS: '1' }, 1],
  ['both, of which libtorch takes MKL_NUM_THREADS', { OMP_NUM_THREADS: '64', MKL_NUM_THREADS: '1' }, 1],
])('queued jobs use the threads of %s, and setNumThreads overrides it', (_name, env, expected) => {
  expect(threads(env)).toEqual([
    [expected, expected],
    [2, 2],
  ])
})
