import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { PATIENCE } from '../../patience.js'
import { buildKernels } from './build.mjs'
import { exclusions, leftOut } from './exclusions.js'

// How many tests of a folder do not pass on the pretended device. Mend one, take it from the list, and lower the number.
const EXCLUDED = {
  ...{ kernels: 13, generation: 0, peft: 0, models: 0, train: 1, serve: 0, 'systems/emoverse': 0 },
  // Of the room's other suites: commands and runs are processes of their own, which have no such device, and the rest has no network.
  ...{ 'systems/usdm/training.test.ts': 0, 'systems/usdm/voicebox.test.ts': 0, 'systems/usdm/preprocess.test.ts': 0 },
  ...{ 'systems/usdm/scoring.test.ts': 0, 'systems/usdm/chat.test.ts': 0 },
  ...{ 'systems/usdm/respond.test.ts': 0, 'systems/usdm/respond-audio.test.ts': 0 },
  ...{ 'systems/usdm/published.test.ts': 0, 'systems/usdm/files.test.ts': 0 },
}
// What `npm run test:slow` runs, in addition to decode.device.ts of this folder; `npm run test:cuda` runs all, which takes half an hour.
const OFTEN = { 'generation/batching.test.ts': 0, 'generation/ctc.test.ts': 0, 'kernels/aten-kernels.test.ts': 0 }
const folders = Object.entries<number>(process.env.VOXTORCH_CUDA_SUITES === 'all' ? EXCLUDED : OFTEN)

const pathOf = (folder: string) => (folder.endsWith('.ts') ? `test/${folder}` : `test/${folder}/`)
const config = 'test/cuda/device/vitest.config.ts'
const excludedIn = (folder: string) => exclusions.filter(({ file }) => file.startsWith(pathOf(folder)))

describe('suites on the pretended device', () => {
  it.each(folders)('test/%s passes but for %i', { timeout: 9 * PATIENCE }, async (folder, count) => {
    expect(excludedIn(folder).flatMap(({ tests }) => tests)).toHaveLength(count)
    // Before vitest starts: its workers have a minute to come up, and what they preload is compiled then.
    await buildKernels()
    const temporary = mkdtempSync(join(tmpdir(), 'voxtorch-device-'))
    try {
      const output = join(temporary, 'report.json')
      const values = ['run', '--config', config, pathOf(folder), '--reporter=json', `--outputFile=${output}`]
      spawnSync(process.execPath, [resolve('node_modules/vitest/vitest.mjs'), ...values], {
        timeout: 5 * PATIENCE,
        env: { ...process.env, VOXTORCH_TESTS: 'all' },
      })
      const report = JSON.parse(readFileSync(output, 'utf8'))
      type File = { name: string; status: string; assertionResults: { status: string; fullName: string }[] }
      const failed = (report.testResults as File[]).flatMap(({ name, status, assertionResults }) => {
        const own = assertionResults.filter((test) => test.status === 'failed').map(({ fullName }) => fullName)
        return status === 'failed' ? [name, ...own] : own
      })
      expect(failed).toEqual([])
      expect(report.numPassedTests).toBeGreaterThan(count)
    } finally {
      rmSync(temporary, { recursive: true, force: true })
    }
  })

  it('exclude nothing without a reason, and nothing that is not there', () => {
    expect(leftOut).toHaveLength(2)
    for (const { file, reason } of [...exclusions, ...leftOut]) {
      expect(existsSync(file), file).toBe(true)
      expect(reason.length, file).toBeGreaterThan(20)
    }
  })
})
