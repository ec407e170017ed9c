import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { which } from '../../lib/cli/provision.js'
import { PARTS } from '../../scripts/prebuild.mjs'
import { temporary, write } from './fakes.js'

const script = fileURLToPath(new URL('../../scripts/prebuild.mjs', import.meta.url))
const built = fileURLToPath(new URL('../../build/', import.meta.url))
const loader = join(built, 'voxtorch_loader.node')

describe.runIf(existsSync(loader) && which('python3') && which('make'))('prebuildify', () => {
  /** A build whose libraries are as small as the loader, for a CUDA that is not here. */
  function build(): string {
    const directory = temporary()
    for (const name of PARTS) copyFileSync(loader, join(directory, name))
    write(join(directory, 'voxtorch-build.json'), '{ "libtorch": "2.99", "cuda": "13.0.48", "compiler": "none" }')
    return directory
  }
  /** No network: what is not on this machine does not come. */
  const offline = {
    ...process.env,
    ...Object.fromEntries(['http_proxy', 'https_proxy', 'all_proxy'].map((name) => [name, 'http://127.0.0.1:9'])),
    npm_config_nodedir: undefined,
    npm_config_disturl: 'http://127.0.0.1:9',
  }
  const prebuild = (directory: string, prebuilds: string) =>
    spawnSync(
      process.execPath,
      ['-e', `import(${JSON.stringify(script)}).then((m) => console.log(m.prebuild(${JSON.stringify({ build: directory, prebuilds })})))`], // biome-ignore format: one line
      { encoding: 'utf8', env: offline as NodeJS.ProcessEnv },
    )

  test('puts a build where node-gyp-build finds it, without network, and leaves the build as it was', () => {
    const directory = build()
    const before = readFileSync(join(directory, 'voxtorch.node'))
    const prebuilds = join(temporary(), 'prebuilds')
    mkdirSync(prebuilds)
    const { stdout, stderr } = prebuild(directory, prebuilds)
    const variant = join(prebuilds, 'torch2.99-cu130')
    expect(stdout.trim(), stderr).toBe(variant)
    const { resolve } = createRequire(import.meta.url)('node-gyp-build') as { resolve(directory: string): string }
    const place = dirname(resolve(variant))
    expect(place).toBe(join(variant, 'prebuilds', `${process.platform}-${process.arch}`))
    expect(readdirSync(place).sort()).toEqual([...PARTS].sort())
    // node-gyp and make leave nothing.
    expect(readdirSync(dirname(prebuilds))).toEqual(['prebuilds'])
    // strip works on its own copy.
    expect(readFileSync(join(directory, 'voxtorch.node')).equals(before)).toBe(true)
    expect(statSync(join(place, 'voxtorch.node')).size).toBeLessThan(before.length)
  })

  test('that fails leaves what was there', () => {
    const prebuilds = join(temporary(), 'prebuilds')
    write(join(prebuilds, 'torch2.99-cu130/prebuilds/other-machine/voxtorch.node'))
    const { status, stderr } = prebuild(temporary(), prebuilds)
    expect(status).not.toBe(0)
    expect(stderr).toContain('prebuildify made no prebuild, and says why above')
    expect(readdirSync(dirname(prebuilds))).toEqual(['prebuilds'])
    expect(readdirSync(join(prebuilds, 'torch2.99-cu130/prebuilds'))).toEqual(['other-machine'])
  })
})

test('npm run build, before which npm runs the script prebuild, makes none', () => {
  const project = temporary()
  const scripts = { prebuild: `node ${script} --unknown`, build: 'node -e 0' }
  write(join(project, 'package.json'), JSON.stringify({ name: 'x', version: '1.0.0', scripts }))
  const run = (name: string) => spawnSync('npm', ['run', name], { cwd: project, encoding: 'utf8' })
  expect(run('prebuild').stderr).toContain('[voxtorch] There is no option --unknown')
  const { status, stderr } = run('build')
  expect(status, stderr).toBe(0)
})
