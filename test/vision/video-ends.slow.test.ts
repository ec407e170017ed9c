import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { fixture } from '../helpers.js'
import { PATIENCE } from '../patience.js'
import { nodeAv } from './node-av.js'

// node-av aborts the process when its thread is terminated during one of its calls.
const folder = mkdtempSync(join(tmpdir(), 'voxtorch-video-ends-'))
afterAll(() => rmSync(folder, { recursive: true }))
const path = join(folder, 'h264.mp4')
const { tensors } = await fixture('vision/videos-decoded')
writeFileSync(path, tensors['h264/file/bytes']!.dataSync() as Uint8Array)

const script = fileURLToPath(new URL('./video-ends.mjs', import.meta.url))
const run = (how: string, seed: number) =>
  new Promise<{ code: unknown; stdout: string; stderr: string }>((resolve) => {
    execFile(process.execPath, [script, path, how, String(seed)], { timeout: PATIENCE }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : (error.code ?? error.signal), stdout, stderr })
    })
  })

describe.skipIf(!nodeAv)('a process outlives videos that are stopped at any moment (npm node-av)', () => {
  test('by an abort', async () => {
    expect(await run('abort', 1)).toMatchObject({ code: 0, stdout: 'ended\n' })
  })

  test('by leaving the loop of a DataLoader whose threads read videos', async () => {
    expect(await run('loader', 2)).toMatchObject({ code: 0, stdout: 'ended\n' })
  })

  test('by process.exit, which ends with its own code', async () => {
    for (let seed = 0; seed < 8; seed++)
      expect(await run('exit', 1000 * seed), `seed ${seed}`).toMatchObject({ code: 7 })
  })
})
