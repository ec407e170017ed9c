import { spawnSync } from 'node:child_process'
import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { fakeLibtorch, temporary, write } from './fakes.js'

const repository = fileURLToPath(new URL('../../', import.meta.url))

/** The package as it would be installed, without an addon. */
function installed() {
  const root = temporary()
  for (const name of ['package.json', 'dist', 'node_modules/node-gyp-build', 'node_modules/commander']) {
    // The package leaves out what tests import.
    const filter = (path: string) => path !== join(repository, 'dist/modules') && !path.endsWith('.map')
    cpSync(join(repository, name), join(root, name), { recursive: true, filter })
  }
  const libtorch = (version: string) => fakeLibtorch(join(root, `torch-${version}`), version)
  const addon = (directory: string, built: object) => {
    write(join(root, directory, 'voxtorch.node'))
    write(join(root, directory, 'voxtorch-build.json'), JSON.stringify(built))
  }
  const run = (values: string[], environment: Record<string, string>) =>
    spawnSync(process.execPath, values, {
      cwd: root,
      encoding: 'utf8',
      env: { PATH: '/nonexistent', HOME: root, ...environment },
    })
  /** nativeInfo() there. A process that dies says why: nothing on its output would only be bad JSON. */
  const info = (environment: Record<string, string>) => {
    const script = "import('./dist/native/load.js').then((m) => console.log(JSON.stringify(m.nativeInfo())))"
    const { stdout, stderr, status, signal, error } = run(['-e', script], environment)
    if (status !== 0) throw new Error(`no nativeInfo(): ${error?.message ?? signal ?? `code ${status}`}: ${stderr}`)
    return JSON.parse(stdout)
  }
  return { root, libtorch, addon, run, info }
}

const prebuild = (variant: string) => `prebuilds/${variant}/prebuilds/${process.platform}-${process.arch}`

describe('the addon', () => {
  test('absent: says what to run', () => {
    const { libtorch, info } = installed()
    const { problem } = info({ LIBTORCH: libtorch('2.13.0+cpu') })
    expect(problem).toMatch(/no native addon for linux-x64 here. Run `npx voxtorch install`/)
  })

  test('bundled into a program: says to leave it out of the bundle', () => {
    const { libtorch, root, info } = installed()
    write(join(root, 'package.json'), '{ "name": "app", "type": "module" }')
    const { problem } = info({ LIBTORCH: libtorch('2.13.0+cpu') })
    expect(problem).toMatch(/^voxtorch was bundled into .*--external:voxtorch/)
    expect(problem).not.toContain('npx voxtorch install')
  })

  test('built for another minor version: refuses, names both, and three ways out', () => {
    const { addon, libtorch, info } = installed()
    addon('build', { libtorch: '2.13', cuda: null })
    const { problem } = info({ LIBTORCH: libtorch('2.11.0+cu130') })
    expect(problem).toMatch(/is built for libtorch 2\.13, and LIBTORCH names libtorch 2\.11\.0\+cu130/)
    for (const way of [
      '1. set LIBTORCH',
      '2. unset LIBTORCH and run `npx voxtorch install`',
      '3. build for this one',
    ]) {
      expect(problem).toContain(way)
    }
  })

  test('without libtorch: every place that was looked at', () => {
    const { addon, info } = installed()
    addon('build', { libtorch: '2.13', cuda: null })
    expect(info({}).problem).toMatch(
      /No libtorch 2\.13 was found. Run `npx voxtorch install`[\s\S]*LIBTORCH: the variable is not set\n.*provisioned: nothing[\s\S]*python3: there is no python3/,
    )
  })

  test('a build here goes before a prebuilt one; a prebuilt one fits libtorch, CUDA variant for a CUDA build', () => {
    const { addon, libtorch, info } = installed()
    addon(prebuild('torch2.12-cpu'), { libtorch: '2.12', cuda: null })
    addon(prebuild('torch2.13-cpu'), { libtorch: '2.13', cuda: null })
    addon(prebuild('torch2.13-cu130'), { libtorch: '2.13', cuda: '13.0.88' })
    addon('prebuilds/torch2.14-cpu/prebuilds/win32-arm64', { libtorch: '2.14', cuda: null })
    const chosen = (version: string) => info({ LIBTORCH: libtorch(version) })
    expect(chosen('2.13.0+cpu').addon).toMatchObject({ kind: 'prebuilt', libtorch: '2.13', cuda: null })
    expect(chosen('2.13.1+cu130').addon).toMatchObject({ kind: 'prebuilt', cuda: '13.0.88' })
    expect(chosen('2.13.1+cu128').addon).toMatchObject({ kind: 'prebuilt', cuda: null })
    expect(chosen('2.12.0+cpu').addon).toMatchObject({ libtorch: '2.12' })
    expect(chosen('2.14.0+cpu').problem).toContain('is built for libtorch 2.12 or 2.13')
    addon('build', { libtorch: '2.13', cuda: null })
    expect(chosen('2.13.0+cpu').addon).toMatchObject({ kind: 'built here' })
  })

  test('a file that is no library is an error with the way out, not a crash', () => {
    const { root, addon, libtorch, run } = installed()
    addon('build', { libtorch: '2.13', cuda: null })
    write(join(root, 'build/voxtorch_loader.node'), 'nothing')
    const script =
      "import('./dist/native/load.js').then((m) => m.loadNative()).catch((e) => console.log(e.code, e.message))"
    const { stdout } = run(['-e', script], { LIBTORCH: libtorch('2.13.0+cpu') })
    expect(stdout).toMatch(/^ERR_LIBTORCH .*voxtorch_loader\.node does not load: .*npx voxtorch doctor/)
  })
})

describe('the command', () => {
  test('doctor reports without an addon or libtorch, and ends with 1', () => {
    const { run } = installed()
    const { stdout, status } = run(['dist/cli/main.js', 'doctor'], {})
    expect(status).toBe(1)
    for (const line of [
      '✗ libtorch   none found, required 2.13',
      '✗ addon      none found',
      'CUDA       not usable',
      '✓ node',
    ]) {
      expect(stdout).toContain(line)
    }
    expect(stdout.trimEnd().split('\n').at(-1)).toMatch(
      /^voxtorch cannot run here: libtorch, addon, loads failed \(marked ✗ above\)\. Next: npx voxtorch install/,
    )
    expect(run(['dist/cli/main.js', 'doctor'], { PATH: '/nowhere' }).stdout).toMatch(
      /Next: npx voxtorch install; if no prebuilt addon fits, first install g\+\+ and cmake, which build it\n$/,
    )
    expect(stdout).toMatch(/^– driver/m)
  })

  test('install refuses another minor version, and a LIBTORCH that is none', () => {
    const { root, libtorch, run } = installed()
    const install = (LIBTORCH: string) => run(['dist/cli/main.js', 'install'], { LIBTORCH })
    expect(install(libtorch('2.11.0')).stderr).toMatch(/expected libtorch 2\.13, got 2\.11\.0 .* Do one of:/)
    expect(install(root).stderr).toMatch(
      /LIBTORCH: expected the folder of a libtorch: there is no lib\/libtorch_cpu\.so/,
    )
    expect(install(root).status).toBe(1)
  })

  test('help, --version, and what it does not know', () => {
    const { run } = installed()
    expect(run(['dist/cli/main.js'], {}).stdout).toMatch(/^ {2}install +Find or download libtorch/m)
    expect(run(['dist/cli/main.js', '--version'], {}).stdout).toMatch(/^\d+\.\d+\.\d+\n$/)
    expect(run(['dist/cli/main.js', 'frobnicate'], {})).toMatchObject({ status: 1 })
    expect(run(['dist/cli/main.js', 'doctor', '--frobnicate'], {}).stderr).toContain(
      'voxtorch doctor: expected a known option, got --frobnicate',
    )
  })
})
