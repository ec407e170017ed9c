import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { keyOf } from '../../../lib/systems/emoverse/data/media.js'
import { EMOVERSE_RECIPE } from '../../../lib/systems/emoverse/training/recipe.js'
import { claimFolder, runFolder } from '../../../lib/systems/emoverse/training/run.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-run-folder-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

it('an option that an earlier recipe lacks counts as its default, also for later stages', async () => {
  const { saveTotalLimit: _, ...earlier } = EMOVERSE_RECIPE
  const saved = { recipe: earlier, data: 'd', base: 'b' }
  await claimFolder(join(folder, 'one'), saved)
  await claimFolder(join(folder, 'two'), { ...saved, base: keyOf('b', JSON.stringify(saved)) })
  const stages = (changes: object) => {
    const first = { recipe: { ...EMOVERSE_RECIPE, ...changes }, data: 'd', base: 'b' }
    const second = { recipe: EMOVERSE_RECIPE, data: 'd', base: keyOf('b', JSON.stringify(first)) }
    return [
      { name: 'one', settings: first },
      { name: 'two', settings: second },
    ]
  }
  expect(await runFolder(folder, stages({}), false)).toBe(folder)
  await expect(runFolder(folder, stages({ saveTotalLimit: 7 }), false)).rejects.toThrow(
    /one: expected a stage with the same settings, got another one \(recipe\.saveTotalLimit differs\)\./,
  )
  const [, second] = stages({})
  const other = [{ name: 'two', settings: { ...second!.settings, base: 'other' } }]
  await expect(runFolder(folder, other, false)).rejects.toThrow(/two: .*\(base differs\)/)
})
