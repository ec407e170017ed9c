/**
 * Builds the documentation site into docs/.vitepress/dist: `npm run docs`. It needs no network; a warning is an error, and
 * so is a link to nowhere. `-- --no-api` takes the reference that the last build made.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cliPage } from './cli-page.js'
import { checkLinks } from './links.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const docs = join(root, 'docs')
const site = join(docs, '.vitepress/dist')

function run(program: string, ...values: string[]): void {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, 'node_modules', program), ...values], {
    cwd: docs,
    encoding: 'utf8',
  })
  const said = `${stdout ?? ''}${stderr ?? ''}`
  const warnings = said.split('\n').filter((line) => /\bwarn(ing)?\b/i.test(line))
  if (status === 0 && warnings.length === 0) return
  process.stderr.write(said)
  throw new Error(`${program} ${status === 0 ? `warns: ${warnings.join('; ')}` : `ends with ${status}`}`)
}

function step<T>(name: string, does: () => T): T {
  const started = performance.now()
  const result = does()
  console.log(`${name} (${((performance.now() - started) / 1000).toFixed(0)} s)`)
  return result
}

step('commands', () => writeFileSync(join(docs, 'cli.md'), cliPage()))
if (!process.argv.includes('--no-api') || !existsSync(join(docs, 'api'))) {
  rmSync(join(docs, 'api'), { recursive: true, force: true })
  step('reference', () => run('typedoc/bin/typedoc', '--options', 'typedoc.json'))
}
step('site', () => run('vitepress/bin/vitepress.js', 'build'))
const { pages, links } = step('links', () => checkLinks(site))
console.log(`docs/.vitepress/dist: ${pages} pages, ${links} links`)
