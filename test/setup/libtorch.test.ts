import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { cacheDirectory, explain, findLibtorch, provisionedDirectory, readLibtorch } from '../../lib/native/libtorch.js'
import { fakeLibtorch, fakePath, temporary, write } from './fakes.js'

/** A home with a cache, and a python3 that has the torch in `torch`, noting each question in `asked`. */
function machine() {
  const home = temporary()
  const torch = join(home, 'site-packages/torch')
  const asked = join(home, 'asked')
  const PATH = fakePath(join(home, 'bin'), { python3: `echo x >> ${asked}; echo "${torch}"; echo /usr/bin/python3` })
  return { home, torch, asked, environment: { HOME: home, PATH } as Record<string, string> }
}

describe('the order', () => {
  test('LIBTORCH, then what voxtorch provisioned, then the torch of python3, then nothing', () => {
    const { home, torch, asked, environment } = machine()
    fakeLibtorch(torch)
    fakeLibtorch(join(provisionedDirectory(environment), 'torch'))
    const named = fakeLibtorch(join(home, 'named'), '2.13.1+cpu')

    expect(findLibtorch({ environment: { ...environment, LIBTORCH: named } }).libtorch).toEqual({
      home: named,
      version: '2.13.1+cpu',
      minor: '2.13',
      cuda: null,
      source: 'LIBTORCH',
    })
    expect(findLibtorch({ environment }).libtorch).toMatchObject({ source: 'provisioned', version: '2.13.0+cpu' })
    expect(existsSync(asked)).toBe(false)

    rmSync(provisionedDirectory(environment), { recursive: true })
    expect(findLibtorch({ environment }).libtorch).toMatchObject({ source: 'python3', home: torch })

    rmSync(torch, { recursive: true })
    const { libtorch, attempts } = findLibtorch({ environment })
    expect(libtorch).toBeNull()
    expect(attempts.map(({ source }) => source)).toEqual(['LIBTORCH', 'provisioned', 'python3'])
    expect(explain(attempts)).toContain(`python3: there is no ${torch}`)
  })

  test('a LIBTORCH that is set is used or refused, never skipped', () => {
    const { home, environment } = machine()
    fakeLibtorch(join(provisionedDirectory(environment), 'torch'))
    const empty = join(home, 'empty')
    mkdirSync(empty)
    const search = findLibtorch({ environment: { ...environment, LIBTORCH: empty } })
    expect(search.libtorch).toBeNull()
    expect(search.attempts).toEqual([
      { source: 'LIBTORCH', place: empty, found: false, reason: `there is no lib/libtorch_cpu.so in ${empty}` },
    ])
  })

  test('a torch of python3 of another minor version is passed over, and named', () => {
    const { torch, environment } = machine()
    fakeLibtorch(torch, '2.11.0+cpu')
    const { libtorch, attempts } = findLibtorch({ environment })
    expect(libtorch).toBeNull()
    expect(attempts.at(-1)?.reason).toBe('expected version 2.13, got 2.11.0+cpu')
    expect(findLibtorch({ environment, minor: '2.11' }).libtorch).toMatchObject({ minor: '2.11' })
  })
})

describe('python3', () => {
  test('is asked once; a recorded answer that no longer holds is asked again', () => {
    const { home, torch, asked, environment } = machine()
    fakeLibtorch(torch)
    const count = () => (existsSync(asked) ? readCount(asked) : 0)
    findLibtorch({ environment })
    expect(findLibtorch({ environment }).attempts.at(-1)?.reason).toContain('recorded in')
    expect(count()).toBe(1)
    findLibtorch({ environment, fresh: true })
    expect(count()).toBe(2)
    write(join(home, '.cache/voxtorch/python-torch.json'), '{ broken')
    expect(findLibtorch({ environment }).libtorch).not.toBeNull()
    expect(count()).toBe(3)
  })

  test('absent, without torch, or failing: the reason says which', () => {
    const home = temporary()
    const reason = (name: string, scripts: Record<string, string>) =>
      findLibtorch({ environment: { HOME: home, PATH: fakePath(join(home, name), scripts) } }).attempts.at(-1)?.reason
    expect(reason('absent', {})).toBe('there is no python3 in PATH')
    expect(reason('without', { python3: 'echo; echo /usr/bin/python3' })).toBe(
      '/usr/bin/python3 has no package "torch"',
    )
    expect(reason('failing', { python3: 'echo "no encodings" >&2; exit 1' })).toBe('python3 failed: no encodings')
  })

  test('a cache that cannot be written does not matter', () => {
    const { home, torch, environment } = machine()
    fakeLibtorch(torch)
    write(join(home, 'file'))
    expect(
      findLibtorch({ environment: { ...environment, XDG_CACHE_HOME: join(home, 'file') } }).libtorch,
    ).not.toBeNull()
  })
})

describe('reading a folder', () => {
  test('takes the folder, the one around it, or its lib', () => {
    const home = fakeLibtorch(join(temporary(), 'torch'))
    for (const place of [home, join(home, '..'), join(home, 'lib')]) expect(readLibtorch(place)).toMatchObject({ home })
  })

  test('the version, from whichever file is there', () => {
    const home = join(temporary(), 'libtorch')
    write(join(home, 'lib/libtorch_cpu.so'))
    expect(readLibtorch(home)).toMatch(/nothing in .* tells its version/)
    const defines = '#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 13\n#define TORCH_VERSION_PATCH 4\n'
    write(join(home, 'include/torch/headeronly/version.h'), defines)
    expect(readLibtorch(home)).toMatchObject({ version: '2.13.4', minor: '2.13' })
    write(join(home, 'build-version'), '2.13.0+cu130\n')
    expect(readLibtorch(home)).toMatchObject({ version: '2.13.0+cu130', cuda: null })
    write(join(home, 'lib/libtorch_cuda.so'))
    expect(readLibtorch(home)).toMatchObject({ cuda: '13.0' })
  })
})

test('the cache follows XDG_CACHE_HOME where it is absolute', () => {
  expect(cacheDirectory({ HOME: '/home/a' })).toBe('/home/a/.cache/voxtorch')
  expect(cacheDirectory({ HOME: '/home/a', XDG_CACHE_HOME: '/cache' })).toBe('/cache/voxtorch')
  expect(cacheDirectory({ HOME: '/home/a', XDG_CACHE_HOME: 'cache' })).toBe('/home/a/.cache/voxtorch')
})

const readCount = (path: string): number => readFileSync(path, 'utf8').trim().split('\n').length
