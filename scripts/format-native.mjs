// clang-format over native/: rewrites, or with --check only tells what it would change.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const native = fileURLToPath(new URL('../native/', import.meta.url))
const program = fileURLToPath(new URL('../node_modules/.bin/clang-format', import.meta.url))
const files = readdirSync(native, { recursive: true, encoding: 'utf8' })
  .filter((name) => /\.(c|cc|h|cu|cuh)$/.test(name) && !name.startsWith('node-api/'))
  .map((name) => join(native, name))
const mode = process.argv.includes('--check') ? ['--dry-run', '--Werror'] : ['-i']
process.exitCode = spawnSync(program, [...mode, ...files], { stdio: 'inherit' }).status ?? 1
