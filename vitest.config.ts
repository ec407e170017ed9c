import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { defineConfig, type Plugin } from 'vitest/config'

const lib = fileURLToPath(new URL('./lib/', import.meta.url))
const dist = fileURLToPath(new URL('./dist/', import.meta.url))

// Tests run what users get: whatever they import of lib/, or as 'voxtorch', is the compiled file in dist/, loaded by Node
// itself. So there is one copy of every module, and worker threads find their files.
const compiled: Plugin = {
  name: 'voxtorch-compiled',
  enforce: 'pre',
  resolveId(source, importer) {
    if (source === 'voxtorch') return { id: `${dist}index.js`, external: true }
    if (!importer || !source.startsWith('.')) return null
    const path = fileURLToPath(new URL(source, `file://${importer}`))
    if (!path.startsWith(lib)) return null
    const id = `${dist}${path.slice(lib.length).replace(/\.ts$/, '.js')}`
    return existsSync(id) ? { id, external: true } : null
  },
}

export default defineConfig({
  plugins: [compiled],
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/global-setup.ts'],
    server: { deps: { external: [/\/dist\//] } },
    // A process for each file: memory counts and exits are its own.
    pool: 'forks',
    execArgv: ['--expose-gc'],
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
})
