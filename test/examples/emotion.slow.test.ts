import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, expect, it } from 'vitest'
import * as vt from 'voxtorch'

const root = fileURLToPath(new URL('../..', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'voxtorch-emotion-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

async function run(script: string, ...rest: string[]): Promise<string> {
  const command = ['--import', 'tsx', `examples/${script}.ts`, ...rest]
  return (await promisify(execFile)(process.execPath, command, { cwd: root })).stdout
}

const figure = (output: string, what: RegExp) => Number(what.exec(output)?.[1])

/** A folder of clips that hum or hiss, of three voices. */
async function made(): Promise<string> {
  const data = mkdtempSync(join(home, 'made-'))
  vt.manualSeed(1)
  const lines = ['file,actor,text,emotion']
  for (const [a, actor] of ['x', 'y', 'z'].entries()) {
    for (let i = 0; i < 12; i++) {
      const emotion = i % 2 === 0 ? 'hum' : 'hiss'
      const time = vt.arange(16000, { dtype: 'float32' }).div(16000)
      const tone = time.mul(2 * Math.PI * (120 + 40 * a + i)).sin()
      const sound = tone.mul(0.2).add(vt.randn([16000]), { alpha: emotion === 'hum' ? 0.01 : 0.1 })
      await vt.writeWav(join(data, `${actor}${i}.wav`), sound, { sampleRate: 16000 })
      lines.push(`${actor}${i}.wav,${actor},"one, two",${emotion}`)
    }
  }
  writeFileSync(join(data, 'labels.csv'), `${lines.join('\n')}\n`)
  return data
}

it('tells hum from hiss in voices that it never heard, trains twice to the same weights, and predicts', async () => {
  const data = await made()
  const model = join(home, 'made-model')
  const output = await run('emotion-speech', '--data', data, '--out', model, '--check-seed')
  expect(output).toContain('36 clips, 3 actors')
  expect(figure(output, /mean ± spread +(\S+)/)).toBe(1)
  expect(output).toContain('every weight is identical')

  const table = await run('emotion-predict', model, join(data, 'x0.wav'), join(data, 'x1.wav'))
  const rows = table.trimEnd().split('\n')
  expect(rows[0]!.trim().split(/\s+/)).toEqual(['hiss', 'hum'])
  expect(rows[1]).toMatch(/^x0\.wav +0\.\d+ +\*0\.\d+$/)
  expect(rows[2]).toMatch(/^x1\.wav +\*0\.\d+ +0\.\d+$/)
})

it('tells them apart by how a clip differs from what is usual for its voice', async () => {
  const config = 'examples/configs/languagebind/emodb-fbank.yaml'
  const rest = ['--config', config, '--epochs', '8', '--batch-size', '4', '--output', join(home, 'made-voices')]
  const output = await run('languagebind-emodb', '--data', await made(), ...rest)
  expect(output).toMatch(/actor y: accuracy \S+ of 12 clips/)
  expect(figure(output, /unweighted average recall (\S+)/)).toBeGreaterThan(0.85)
  expect(output).toMatch(/hiss +recall \S+ of 18/)
})

const recordings = join(
  process.env.VOXTORCH_DATA ?? fileURLToPath(new URL('../../../shared/data', import.meta.url)),
  'emodb',
)
it.skipIf(!existsSync(recordings))('beats both baselines on ../shared/data/emodb', async () => {
  const model = join(home, 'emodb-model')
  const output = await run('emotion-speech', '--data', recordings, '--out', model)
  // Measured: a convolution and transformer in PyTorch 0.68, an SVM on statistics 0.742.
  expect(figure(output, /mean ± spread +(\S+)/)).toBeGreaterThan(0.75)
  expect(figure(output, /mean ± spread +(\S+)/)).toBeLessThan(0.85)

  const files = readdirSync(join(recordings, 'wav')).slice(0, 3)
  const rows = (await run('emotion-predict', model, ...files.map((file) => join(recordings, 'wav', file))))
    .trimEnd()
    .split('\n')
  expect(rows.length).toBe(4)
  for (const row of rows.slice(1)) {
    const shares = row
      .trim()
      .split(/\s+/)
      .slice(1)
      .map((cell) => Number(cell.replace('*', '')))
    expect(shares.length).toBe(7)
    expect(shares.reduce((sum, share) => sum + share)).toBeCloseTo(1, 2)
  }
})
