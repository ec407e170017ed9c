import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const library = new URL('../../dist/index.js', import.meta.url).href

// Eleven seconds in which nothing happens. The rest is in cpu-cache.slow.test.ts.
test('the cache of CPU memory goes back while the process does nothing', { timeout: 120_000 }, async () => {
  const code = `
    import { memoryStats, zeros } from ${JSON.stringify(library)}
    zeros([64 * 2 ** 20]).dispose()
    zeros([2 ** 12]).dispose()
    const before = memoryStats().cachedBytes
    if (before < 2 ** 28) throw new Error(\`only \${before} bytes were cached\`)
    // The clocks are other ones: it looks a second after ten.
    for (let i = 0; i < 60 && memoryStats().cachedBytes > 0; i++) await new Promise((done) => setTimeout(done, 1000))
    console.log(memoryStats().cachedBytes)`
  const { stdout, stderr } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', code])
  expect([stdout, stderr]).toEqual(['0\n', ''])
})
