import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { PATIENCE } from '../patience.js'

describe('DataLoader with workers', () => {
  const url = (name: string) => new URL(`./modules/${name}.mjs`, import.meta.url)

  it('dies with the thread that it runs in', async () => {
    const script = `
      import { Worker } from 'node:worker_threads'
      for (let i = 0; i < 3; i++) {
        const voxtorch = ${JSON.stringify(new URL('../../dist/index.js', import.meta.url).href)}
        const worker = new Worker(new URL(${JSON.stringify(url('consumer').href)}), { execArgv: [], workerData: { voxtorch } })
        await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
        await worker.terminate()
      }
      console.log('ended')
    `
    const { stdout, stderr } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script], {
      timeout: PATIENCE,
    })
    expect({ stdout, stderr }).toEqual({ stdout: 'ended\n', stderr: '' })
  })

  it('loads TypeScript in its workers where tsx runs the program', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'voxtorch-typed-'))
    try {
      writeFileSync(join(directory, 'package.json'), '{ "type": "module" }')
      writeFileSync(join(directory, 'other.ts'), 'export const half = (x: number): number => x / 2')
      writeFileSync(
        join(directory, 'data.ts'),
        "import { half } from './other.js'\nenum Step { One = 3 }\nexport default { length: 4, get: (i: number) => half(i * Step.One) }",
      )
      const script = `
        import { DataLoader } from ${JSON.stringify(new URL('../../dist/index.js', import.meta.url).href)}
        const loader = new DataLoader(new URL(${JSON.stringify(pathToFileURL(join(directory, 'data.ts')).href)}), { batchSize: 4, workers: 1 })
        for await (const batch of loader) console.log(JSON.stringify(batch))`
      // From a file and from the command line, which workers must not inherit.
      const repository = fileURLToPath(new URL('../..', import.meta.url))
      symlinkSync(join(repository, 'node_modules'), join(directory, 'node_modules'))
      const main = join(directory, 'main.ts')
      writeFileSync(main, script)
      for (const end of [[main], ['--input-type=module', '--eval', script]]) {
        const run = await promisify(execFile)(process.execPath, ['--import', 'tsx', ...end], { cwd: repository })
        expect(JSON.parse(run.stdout)).toEqual([0, 1.5, 3, 4.5])
      }
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  }, 120_000)
})
