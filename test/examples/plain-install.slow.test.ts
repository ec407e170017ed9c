// Examples start from a plain install: they import voxtorch alone, and what else they need they name with the command for it.
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const files = readdirSync(join(root, 'examples'), { recursive: true, encoding: 'utf8' }).filter((name) =>
  /\.[tj]s$/.test(name),
)

it('examples import voxtorch and Node alone', () => {
  expect(files.length).toBeGreaterThan(30)
  for (const name of files) {
    const text = readFileSync(join(root, 'examples', name), 'utf8')
    const imported = [
      ...text.matchAll(
        /^(?:import|export) (?:[^'\n]*|[^'\n]*\{[^}']*\}) ?from '([^']+)'|^import '([^']+)'|\bimport\('([^']+)'\)/gm,
      ),
    ]
    const others = imported
      .map(([, from, whole, late]) => from ?? whole ?? late ?? '')
      .filter((from) => !/^(voxtorch(\/|$)|node:|\.)/.test(from))
    // The demo's worker is started once demo/clips.ts has found its package.
    expect(others, name).toEqual(name === 'demo/speak.js' ? ['espeak-ng'] : [])
  }
})

it.each(['trainer.ts', 'custom-loop.ts', 'demo/main.ts'])('%s says at once what to install', (name) => {
  const flags = ['--require', join(root, 'test/examples/without-packages.cjs'), '--import', 'tsx']
  const script = join(root, 'examples', name)
  const values = name === 'demo/main.ts' ? ['--clips', join(root, 'test/examples/no-such-folder')] : []
  const { status, stdout, stderr } = spawnSync(process.execPath, [...flags, script, ...values], {
    cwd: root,
    encoding: 'utf8',
  })
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
  expect(stderr.trim()).toMatch(
    /^(The reviews are|Sentences and voices are) in (a package|packages) of npm\. Run: npm install sentiment@5\.0\.2/,
  )
  const packages = [...stderr.matchAll(/([\w-]+)@([\d.]+)/g)].map(([, name = '', version]) => [name, version])
  const { devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  for (const [one = '', version] of packages) expect(devDependencies[one]).toBe(version)
})

it('examples that start with published weights take them by a name that needs no other package', () => {
  for (const name of ['transcribe.ts', 'chat.ts']) {
    const text = readFileSync(join(root, 'examples', name), 'utf8')
    const [, preset] = /(?:\[model = |argv\[2\] \?\? |such as )'?(whisper-base|[^' ]+(?='))/.exec(text) ?? []
    expect(['whisper-base', 'smollm2-135m-instruct'], name).toContain(preset)
  }
})
