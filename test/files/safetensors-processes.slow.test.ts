import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { loadSafetensors, saveSafetensors, scope, zeros } from '../../lib/index.js'

const entryPoint = new URL('../../dist/index.js', import.meta.url).href

let directory = ''
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'voxtorch-files-'))
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const file = (name: string) => join(directory, name)

test('a mapped file that is cut short ends the process, which says why', async () => {
  const path = file('cut.safetensors')
  await saveSafetensors(path, { x: zeros([1 << 20]) })
  const program = `
    import { truncateSync } from 'node:fs'
    import { loadSafetensors } from ${JSON.stringify(entryPoint)}
    const { tensors } = await loadSafetensors(${JSON.stringify(path)}, { mmap: true })
    truncateSync(${JSON.stringify(path)}, 4096)
    tensors.x.sum()`
  const { signal, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' })
  expect(signal).toBe('SIGBUS')
  expect(stderr).toBe(
    `voxtorch: ${path} was cut short while it was mapped (mmap: true): replace such a file by renaming another, or load it without mmap\n`,
  )
})

test('a process that is killed while it saves leaves the file as it was', async () => {
  const folder = mkdtempSync(file('killed-'))
  const path = join(folder, 'x.safetensors')
  const program = `
    const { ones, saveSafetensors } = await import(process.argv[1])
    for (let i = 1; ; i += 1) {
      await saveSafetensors(process.argv[2], { a: ones([1 << 20]).mul(i), b: ones([1 << 20]).mul(i) })
      process.stdout.write('saved\\n')
    }`
  for (let round = 0; round < 3; round += 1) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', program, '--', entryPoint, path])
    await new Promise((resolve) => child.stdout.once('data', resolve))
    await new Promise((resolve) => setTimeout(resolve, 30 * round))
    child.kill('SIGKILL')
    await new Promise((resolve) => child.once('exit', resolve))
    await scope(async () => {
      const { a, b } = (await loadSafetensors(path)).tensors
      expect(a!.equal(b!)).toBe(true)
      expect(a!.min().item()).toBe(a!.max().item())
    })
  }
})
