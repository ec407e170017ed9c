// The emulated kernels by command (kernels.slow.test.ts has what `npm run test:slow` asks):
//   node test/cuda/kernels/main.mjs                       plain, and with AddressSanitizer and UBSan
//   node test/cuda/kernels/main.mjs --tsan             with ThreadSanitizer: float32 alone, some minutes
//   node test/cuda/kernels/main.mjs --mutations [NAME] breaks the kernels (those whose name has NAME), and says what notices it
//   node test/cuda/kernels/main.mjs --seeds 20         plain, with so many orders of threads and inputs
import { spawnSync } from 'node:child_process'
import { parseArgs } from 'node:util'
import { build } from './build.mjs'
import { mutations, noticed } from './mutations.mjs'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { tsan: { type: 'boolean' }, mutations: { type: 'boolean' }, seeds: { type: 'string', default: '1' } },
})

/** @param {'plain' | 'asan' | 'tsan'} kind @param {string[]} given */
async function run(kind, given = []) {
  const driver = await build(kind)
  for (let seed = 1; seed <= Number(values.seeds); ++seed) {
    const env = { ...process.env, EMULATION_SEED: String(seed), TSAN_OPTIONS: 'halt_on_error=1' }
    console.log(`${kind}, seed ${seed}`)
    const { status } = spawnSync(driver, given, { stdio: 'inherit', env })
    if (status !== 0) process.exitCode = 1
  }
}

if (values.mutations) {
  const wanted = mutations().filter(({ name, kernel }) => `${kernel} ${name}`.includes(positionals[0] ?? ''))
  let count = 0
  for (const mutation of wanted) {
    const how = await noticed(mutation, ['plain', 'asan', 'tsan'])
    if (how) ++count
    console.log(`| ${mutation.kernel} | ${mutation.name} | ${how ?? 'not noticed'} |`)
  }
  console.log(`${count} of ${wanted.length} noticed`)
  if (count < wanted.length) process.exitCode = 1
} else if (values.tsan) {
  await run('tsan', ['all', 'quick'])
} else {
  await run('plain')
  await run('asan')
}
