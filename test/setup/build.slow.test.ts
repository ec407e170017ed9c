import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { buildAddon, hashFiles } from '../../lib/cli/build.js'
import type { Libtorch } from '../../lib/native/libtorch.js'
import { packagesStale } from '../../scripts/bootstrap.mjs'
import { fakePath, temporary, write } from './fakes.js'

// A cmake that notes how it was called, configures the folder it stands in, and "builds" the four files into the folder named.
const cmake = (root: string) => `
[ "$1" = --version ] && exit 0
echo "$@" >> ${root}/calls
[ "$1" = --build ] || { echo "VOXTORCH_LIBTORCH:PATH=/libtorch/a" > CMakeCache.txt; exit 0; }
for name in voxtorch.node voxtorch_loader.node libvoxtorch_core.so voxtorch-build.json; do touch "$2/$name"; done`

function sources(scripts?: Record<string, string>) {
  const root = temporary()
  for (const name of ['CMakeLists.txt', 'native/core/a.cc', 'work/x', 'out/x']) write(join(root, name), name)
  // Without this cmake-js would fetch the headers of Node.
  write(join(root, 'package.json'), '{ "binary": { "napi_versions": [8] } }')
  const PATH = fakePath(join(root, 'bin'), scripts ?? { cmake: cmake(root), 'g++': '', ninja: '', nvcc: '' })
  const libtorch: Libtorch = { home: '/libtorch/a', version: '2.13.0', minor: '2.13', cuda: null, source: 'LIBTORCH' }
  type More = { sanitize?: boolean; environment?: Record<string, string> }
  const build = (changed: Partial<Libtorch> = {}, cuda = false, { sanitize = false, environment = {} }: More = {}) =>
    buildAddon({
      root,
      libtorch: { ...libtorch, ...changed },
      work: join(root, 'work'),
      out: join(root, 'out'),
      cuda,
      sanitize,
      environment: { HOME: root, PATH, ...environment },
    })
  const calls = () =>
    existsSync(join(root, 'calls')) ? readFileSync(join(root, 'calls'), 'utf8').trim().split('\n') : []
  return { root, build, calls }
}

describe('building the addon', () => {
  test('happens when a source, libtorch or the variant has changed, or a result is missing; not otherwise', async () => {
    const { root, build, calls } = sources()
    expect(await build()).toBe(true)
    expect(calls()).toHaveLength(2)
    expect(calls()[0]).toContain('-DVOXTORCH_LIBTORCH=/libtorch/a')
    expect(calls()[0]).toMatch(/-G Ninja .*-DVOXTORCH_CUDA=OFF|-DVOXTORCH_CUDA=OFF .*-G Ninja/)
    expect(calls()[1]).toMatch(/^--build .*\/work --config Release --parallel \d+$/)
    expect(existsSync(join(root, 'out/voxtorch.node'))).toBe(true)
    expect(await build()).toBe(false)
    expect(calls()).toHaveLength(2)
    appendFileSync(join(root, 'native/core/a.cc'), '// more')
    expect(await build()).toBe(true)
    expect(await build()).toBe(false)
    expect(await build({ home: '/libtorch/b' })).toBe(true)
    expect(await build({ home: '/libtorch/b', cuda: '13.0' }, true)).toBe(true)
    expect(calls().at(-2)).toContain('-DVOXTORCH_CUDA=ON -DVOXTORCH_SANITIZE=OFF')
    expect(await build({ home: '/libtorch/b', cuda: '13.0' }, true, { sanitize: true })).toBe(true)
    expect(calls().at(-2)).toContain('-DVOXTORCH_SANITIZE=ON')
    write(join(root, 'native/core/b.cc'))
    expect(await build({ cuda: '13.0' }, true)).toBe(true)
  })

  test('is by cmake-js: headers of packages, and neither its flags nor its choice of a compiler in the place of ours', async () => {
    const { root, build, calls } = sources()
    await build({}, false, { environment: { CXXFLAGS: '-g -O1', CMAKE_BUILD_PARALLEL_LEVEL: '3' } })
    const [configure = '', compile] = calls()
    expect(configure).toContain('-DCMAKE_JS_VERSION=')
    for (const [name, header] of [
      ['VOXTORCH_NODE_API_INCLUDE', 'node_api.h'],
      ['VOXTORCH_NODE_ADDON_API_INCLUDE', 'napi.h'],
    ]) {
      const directory = new RegExp(`-D${name}=(/\\S+)`).exec(configure)?.[1] ?? ''
      expect(existsSync(join(directory, header as string)), `${name}=${directory}`).toBe(true)
    }
    expect(configure).toMatch(/-DCMAKE_CXX_FLAGS=-g -O1$/) // the last one holds
    expect(configure).not.toContain('CMAKE_CXX_COMPILER')
    expect(compile).toContain('--parallel 3')
    expect(existsSync(join(root, '.cmake-js'))).toBe(false)

    const named = sources({ cmake: cmake('$HOME'), 'my-c++': '' })
    await named.build({}, false, { environment: { CXX: 'my-c++', CC: 'my-cc' } })
    expect(named.calls()[0]).toContain('-DCMAKE_CXX_COMPILER=my-c++ -DCMAKE_C_COMPILER=my-cc')
  })

  test('that fails leaves no stamp, so the next one tries again', async () => {
    const { root, build } = sources({ cmake: 'case "$*" in *--build*) exit 1;; esac', 'g++': '' })
    await expect(build()).rejects.toThrow('Building the native addon failed. See the messages of the compiler above')
    expect(existsSync(join(root, 'out/.voxtorch-stamp'))).toBe(false)
    await expect(build()).rejects.toThrow('Building the native addon failed')
    const refusing = sources({ cmake: 'echo No rule to make it >&2; exit 1', 'g++': '' })
    await expect(refusing.build()).rejects.toThrow(/^Configuring the build with cmake failed:\nNo rule to make it\n$/)
  })

  test('with CUDA needs a CUDA libtorch and nvcc', async () => {
    await expect(sources().build({}, true)).rejects.toThrow(
      /expected a CUDA build, got a CPU build.*Set LIBTORCH to a CUDA build/,
    )
    await expect(sources({ cmake: '', 'g++': '' }).build({ cuda: '13.0' }, true)).rejects.toThrow(
      /Expected nvcc.*found none.*toolkit 13\.0/,
    )
  })

  test('without a compiler, or without cmake and pip: the remedy', async () => {
    await expect(sources({ cmake: '' }).build()).rejects.toThrow(
      /Expected a C\+\+ compiler.*found none.*apt-get install g\+\+.*dnf/,
    )
    await expect(sources({ 'g++': '' }).build()).rejects.toThrow(
      /Expected cmake in PATH, found none.*python3 was not found.*apt-get install cmake/,
    )
  })

  test('with a compiler or a cmake that is too old: the remedy', async () => {
    const old = { cmake: 'echo cmake version 3.9.6', 'g++': '' }
    await expect(sources(old).build()).rejects.toThrow(
      /cmake: expected version 3\.22 or later, got 3\.9.*python3 was not found/,
    )
    const compilers = { cmake: '', 'c++': 'echo 9', 'g++': 'echo 12' }
    await expect(sources(compilers).build()).rejects.toThrow(
      /c\+\+: expected version 10 or later, for C\+\+20, got 9.*CXX=g\+\+-10/,
    )
    const { build, calls } = sources({ cmake: cmake('$HOME'), 'c++': 'echo 9', 'g++': 'echo 12' })
    await build({}, false, { environment: { CXX: 'g++' } })
    expect(calls()).toHaveLength(2)
  })
})

test('the hash of sources sees contents and names', () => {
  const root = temporary()
  const hash = () => hashFiles([join(root, 'a'), join(root, 'absent')])
  write(join(root, 'a/x'), 'one')
  const first = hash()
  expect(hash()).toBe(first)
  write(join(root, 'a/x'), 'two')
  const second = hash()
  write(join(root, 'a/y'))
  expect(new Set([first, second, hash()]).size).toBe(3)
})

describe('node_modules', () => {
  const lock = (packages: object) => JSON.stringify({ packages: { '': { name: 'voxtorch' }, ...packages } })
  const a = { version: '1.0.0' }

  test('is stale when something of the lock is absent, of another version, or deleted', () => {
    const root = temporary()
    write(join(root, 'package-lock.json'), lock({ 'node_modules/a': a }))
    expect(packagesStale(root)).toBe('there is no node_modules')
    const installed = join(root, 'node_modules/.package-lock.json')
    write(installed, lock({}))
    expect(packagesStale(root)).toBe('node_modules/a is absent, the lock has 1.0.0')
    write(installed, lock({ 'node_modules/a': { version: '0.9.0' } }))
    write(join(root, 'node_modules/a/package.json'))
    expect(packagesStale(root)).toBe('node_modules/a is 0.9.0, the lock has 1.0.0')
    write(installed, lock({ 'node_modules/a': a }))
    expect(packagesStale(root)).toBeNull()
  })

  test('needs no optional package of another platform', () => {
    const root = temporary()
    write(join(root, 'package-lock.json'), lock({ 'node_modules/b-win32': { ...a, optional: true } }))
    write(join(root, 'node_modules/.package-lock.json'), lock({}))
    expect(packagesStale(root)).toBeNull()
  })
})

test('package-lock.json has every optional package of every platform, and no address of a registry', () => {
  // npm drops what a registry does not carry from a lock that it writes, and then `npm ci` refuses that lock.
  type Entry = { resolved?: string; optionalDependencies?: Record<string, string> }
  const path = fileURLToPath(new URL('../../package-lock.json', import.meta.url))
  const { packages } = JSON.parse(readFileSync(path, 'utf8')) as { packages: Record<string, Entry> }
  for (const [name, { resolved, optionalDependencies }] of Object.entries(packages)) {
    expect(resolved, name).toBeUndefined()
    for (const optional of Object.keys(optionalDependencies ?? {})) {
      const places = [`node_modules/${optional}`, `${name}/node_modules/${optional}`]
      expect(
        places.some((place) => packages[place]),
        `${optional}, of ${name}`,
      ).toBe(true)
    }
  }
})
