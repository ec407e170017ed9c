import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, expect, it } from 'vitest'
import { EMOTION_LABELS } from '../../lib/systems/m2se/index.js'
import { drawing, FACE_LABELS, face } from '../systems/m2se/faces.js'
import { seeingEmoVerse } from '../systems/m2se/tiny.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'voxtorch-m2se-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

it('m2se-infer asks about each photograph of a folder, and nothing else in it', async () => {
  const [folder, photos] = [join(home, 'model'), join(home, 'photos')]
  mkdirSync(photos)
  for (const [i, label] of FACE_LABELS.slice(0, 2).entries()) writeFileSync(join(photos, `${i}.ppm`), face(label, drawing(i)))
  writeFileSync(join(photos, 'readme.txt'), 'no picture')
  using model = await seeingEmoVerse({ initializerRange: 0.2 })
  await model.save(folder)
  const command = ['--import', 'tsx', 'examples/m2se-infer.ts', '--model', folder, '--photos', photos, '--words', 'Hey!']
  const { stdout } = await promisify(execFile)(process.execPath, command, { cwd: root })
  const found = [...stdout.matchAll(/^(\S+): (\w+\.) (\d+\.\d) %$/gm)].map(([, file, label, share]) => ({ file, label, share: Number(share) }))
  expect(found.map(({ file }) => file)).toEqual(['0.ppm', '1.ppm'])
  for (const { label, share } of found) {
    expect(EMOTION_LABELS.mosei).toContain(label)
    // The likeliest of seven.
    expect(share).toBeGreaterThan(14)
  }
  await expect(promisify(execFile)(process.execPath, command.slice(0, 5), { cwd: root })).rejects.toThrow(/Say --model DIR and --photos DIR/)
}) // biome-ignore format: long lines
