import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, expect, it } from 'vitest'
import { PATIENCE } from '../patience.js'
import { frameFolder, tinyLanguageBind } from '../systems/emotion/tiny.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'voxtorch-languagebind-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

it(
  'languagebind-emotion trains what is asked for, and draws dialogs with clips that cannot be read',
  async () => {
    const emotions = ['joy', 'anger', 'neutral']
    const lines = Array.from({ length: 24 }, (_, i) => {
      const [dialog, place] = [Math.floor(i / 2), i % 2]
      const split = dialog < 8 ? 'train' : dialog < 10 ? 'valid' : 'test'
      const frames = frameFolder(home, `frames${i % 3}`, i % 3)
      const said = { dialog, text: `a photo of ${i % 3}`, emotion: emotions[i % 3], frames, split }
      return { ...said, ...(place === 1 && { causes: [1] }) }
    })
    // Its ending says that it is a picture.
    const broken = frameFolder(home, 'broken', 1)
    writeFileSync(join(broken, '0.ppm'), 'no picture')
    const last = lines.at(-1) as (typeof lines)[number]
    const data = join(home, 'x.jsonl')
    const all = [...lines.slice(0, -1), { ...last, frames: broken }]
    writeFileSync(data, `${all.map((line) => JSON.stringify(line)).join('\n')}\n`)
    // The pointer has 12 heads.
    const bind = await tinyLanguageBind('video', 12)
    const run = async (name: string, ...words: string[]) => {
      const output = join(home, name)
      const command = ['--import', 'tsx', 'examples/languagebind-emotion.ts', '--data', data, '--output', output]
      const common = ['--video', bind, '--text', bind, '--on-bad-record', 'skip', '--max-steps', '2', '--no-progress']
      const { stdout } = await promisify(execFile)(process.execPath, [...command, ...common, ...words], { cwd: root })
      return { stdout, output }
    }
    const pointer = await run('pointer', '--pointer')
    expect(pointer.stdout).toMatch(/16 pairs for training, 4 for validation, 4 for test/)
    const config = JSON.parse(readFileSync(join(pointer.output, 'best/config.json'), 'utf8'))
    expect(config.modelType ?? config.model_type).toBe('emotion-pointer')
    const classifier = await run('classifier', '--causes', '--device', 'cpu')
    expect(classifier.stdout).toMatch(/8 dialogs for training/)
    const page = readFileSync(join(classifier.output, 'strips.html'), 'utf8')
    expect(page).toMatch(/1 clip could not be read and counts as missing \(not decodable: 1\)/)
  },
  PATIENCE,
)
