// Before `npm pack`: what the tarball needs and git does not have.
import { chmodSync, copyFileSync, existsSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { compileTypeScript } from './bootstrap.mjs'
import { declareRequire } from './declare-require.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))

await compileTypeScript()
declareRequire()
chmodSync(join(root, 'dist/cli/main.js'), 0o755)

// `npx voxtorch install` builds without development dependencies.
const headers = join(root, 'node_modules/node-api-headers')
const target = join(root, 'native/node-api')
mkdirSync(target, { recursive: true })
for (const name of readdirSync(join(headers, 'include')))
  copyFileSync(join(headers, 'include', name), join(target, name))
if (existsSync(join(headers, 'LICENSE'))) copyFileSync(join(headers, 'LICENSE'), join(target, 'LICENSE'))
