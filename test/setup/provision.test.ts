import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { atomically, provisionLibtorch, which } from '../../lib/cli/provision.js'
import { provisionedDirectory, readLibtorch } from '../../lib/native/libtorch.js'
import { fakeLibtorch, fakePath, temporary, write } from './fakes.js'

// A pip that copies `torch` to where --target says, and notes how it was called.
const pip = (home: string, { succeedsWith = '' } = {}) => `
echo "$@" >> ${home}/calls
[ "$3" = --version ] && exit 0
case "$*" in *"${succeedsWith}"*) ;; *) echo "ERROR: No matching distribution found" >&2; exit 1;; esac
while [ "$1" != --target ]; do shift; done
mkdir -p "$2"; cp -r ${home}/wheel/torch "$2/torch"`

function machine(options?: { succeedsWith?: string }) {
  const home = temporary()
  fakeLibtorch(join(home, 'wheel/torch'))
  const environment = { HOME: home, PATH: fakePath(join(home, 'bin'), { python3: pip(home, options) }) }
  const calls = () => readFileSync(join(home, 'calls'), 'utf8').trim().split('\n').slice(1)
  return { home, environment, calls, place: provisionedDirectory(environment) }
}

describe('libtorch with pip', () => {
  test("comes from pip's own indexes where they have the CPU build", async () => {
    const { environment, calls, place } = machine()
    expect(await provisionLibtorch({ environment })).toBe(place)
    expect(readLibtorch(place)).toMatchObject({ version: '2.13.0+cpu', home: join(place, 'torch') })
    expect(calls()).toHaveLength(1)
    expect(calls()[0]).toMatch(/--no-deps .*--only-binary=:all: .*torch==2\.13\.0\+cpu$/)
    expect(readdirSync(join(place, '..'))).toEqual(['2.13.0-cpu'])
  })

  test('comes from the CPU wheel index where they have not', async () => {
    const { environment, calls, place } = machine({ succeedsWith: '--index-url https://download.pytorch.org/whl/cpu' })
    await provisionLibtorch({ environment })
    expect(readLibtorch(place)).toMatchObject({ minor: '2.13' })
    expect(calls()).toHaveLength(2)
  })

  test('replaces what is unusable', async () => {
    const { environment, place } = machine()
    write(join(place, 'torch/version.py'), 'half of a download')
    await provisionLibtorch({ environment })
    expect(readLibtorch(place)).toMatchObject({ minor: '2.13' })
  })

  test('failing: every way that was tried, and the ways out; nothing is left', async () => {
    const { environment, place } = machine({ succeedsWith: 'no such call' })
    await expect(provisionLibtorch({ environment, archiveUrl: 'http://127.0.0.1:9/x.zip' })).rejects.toMatchObject({
      name: 'LibtorchError',
      message: expect.stringMatching(
        /pip's own indexes: ERROR: No matching[\s\S]*whl\/cpu: ERROR[\s\S]*checksum is not recorded[\s\S]*Do one of: .*LIBTORCH/,
      ),
    })
    expect(readdirSync(join(place, '..'))).toEqual([])
  })
})

describe('libtorch without Python', () => {
  async function serve(body: Buffer): Promise<string> {
    const server = createServer((_request, response) => response.end(body))
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
    onTestFinished(() => {
      server.close()
    })
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}/libtorch.zip`
  }

  test.runIf(which('cmake'))('comes from the archive, if its checksum is right', async () => {
    const home = temporary()
    fakeLibtorch(join(home, 'libtorch'))
    spawnSync('cmake', ['-E', 'tar', 'cf', 'libtorch.zip', '--format=zip', 'libtorch'], { cwd: home })
    const archive = readFileSync(join(home, 'libtorch.zip'))
    const archiveUrl = await serve(archive)
    const PATH = fakePath(join(home, 'bin'), { cmake: `PATH='${process.env.PATH}' exec ${which('cmake')} "$@"` })
    const environment = { HOME: home, PATH, VOXTORCH_LIBTORCH_SHA256: 'ab'.repeat(32) }
    await expect(provisionLibtorch({ environment, archiveUrl })).rejects.toThrow(
      /expected the SHA-256 abab.*, got [0-9a-f]{64}/,
    )
    expect(existsSync(provisionedDirectory(environment))).toBe(false)

    environment.VOXTORCH_LIBTORCH_SHA256 = createHash('sha256').update(archive).digest('hex')
    const place = await provisionLibtorch({ environment, archiveUrl })
    expect(readLibtorch(place)).toMatchObject({ minor: '2.13', home: join(place, 'libtorch') })
    expect(readdirSync(place)).toEqual(['libtorch'])
  })

  test('is not fetched without a checksum, and there is no python3', async () => {
    const home = temporary()
    const environment = { HOME: home, PATH: fakePath(join(home, 'bin'), {}) }
    await expect(provisionLibtorch({ environment })).rejects.toThrow(
      /python3 was not found in PATH[\s\S]*checksum is not recorded/,
    )
  })
})

describe('a place is filled whole or not at all', () => {
  test('a failure leaves what was there', async () => {
    const place = join(temporary(), 'place')
    write(join(place, 'old'))
    const failing = atomically(place, async (temporary) => {
      write(join(temporary, 'half'))
      expect(readdirSync(place)).toEqual(['old'])
      throw new Error('cut off')
    })
    await expect(failing).rejects.toThrow('cut off')
    expect(readdirSync(join(place, '..'))).toEqual(['place'])
    expect(readdirSync(place)).toEqual(['old'])
  })

  test('what a dead process left is removed, what a living one makes is not', async () => {
    const place = join(temporary(), 'place')
    const { pid: dead } = spawnSync('true')
    mkdirSync(`${place}.${dead}.partial`)
    mkdirSync(`${place}.${process.ppid}.partial`)
    await atomically(place, async (temporary) => {
      write(join(temporary, 'new'))
    })
    expect(readdirSync(join(place, '..')).sort()).toEqual(['place', `place.${process.ppid}.partial`])
  })
})
