import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, expect, it } from 'vitest'

const temporary = mkdtempSync(join(tmpdir(), 'scratch-'))
const root = fileURLToPath(new URL('../../', import.meta.url))
const running: ChildProcess[] = []
afterEach(() => {
  for (const child of running.splice(0)) child.kill('SIGKILL')
})
afterAll(() => rmSync(temporary, { recursive: true }))

/** A benchmark that has written a file and goes on, or ends as `rest` says. */
async function begin(rest = 'setInterval(() => {}, 1000)'): Promise<{ child: ChildProcess; folder: string }> {
  const program = `
    import { writeFileSync } from 'node:fs'
    import { removeScratch, scratchFolder } from './bench/scratch.ts'
    const folder = scratchFolder()
    writeFileSync(folder + '/weights', 'x')
    console.log(folder)
    ${rest}`
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
    cwd: root,
    env: { ...process.env, TMPDIR: temporary },
    stdio: ['ignore', 'pipe', rest.includes('throw') ? 'ignore' : 'inherit'],
  })
  running.push(child)
  const [folder] = (await once(createInterface({ input: child.stdout as NodeJS.ReadableStream }), 'line')) as [string]
  return { child, folder }
}

it.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('a benchmark that gets %s leaves no folder', async (signal) => {
  const { child, folder } = await begin()
  expect(existsSync(join(folder, 'weights'))).toBe(true)
  child.kill(signal)
  expect(await once(child, 'exit')).toEqual([null, signal])
  expect(existsSync(folder)).toBe(false)
})

it.each(['removeScratch(folder)', 'process.exit(1)', 'setTimeout(() => { throw new Error("on purpose") })'])(
  'nor does one that ends with %s',
  async (rest) => {
    const { child, folder } = await begin(rest)
    if (child.exitCode === null) await once(child, 'exit')
    expect(existsSync(folder)).toBe(false)
  },
)

it('the next one removes what a killed one left, and nothing of one that runs', async () => {
  const [killed, alive] = [await begin(), await begin()]
  killed.child.kill('SIGKILL')
  await once(killed.child, 'exit')
  expect(existsSync(killed.folder)).toBe(true)
  const next = await begin()
  expect(existsSync(killed.folder)).toBe(false)
  expect(existsSync(join(alive.folder, 'weights'))).toBe(true)
  expect(existsSync(next.folder)).toBe(true)
})
