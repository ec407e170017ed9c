import { spawnSync } from 'node:child_process'
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../../', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'generate-'))
afterAll(() => rmSync(folder, { recursive: true }))

const generate = (...options: string[]) => {
  const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', 'scripts/generate.ts', ...options], {
    cwd: root,
    encoding: 'utf8',
  })
  return { status, stderr }
}

it('the generated declarations are those of the loaded operators, and formatted', () => {
  expect(generate('--check')).toEqual({ status: 0, stderr: '' })
  expect(generate('--into', folder)).toEqual({ status: 0, stderr: '' })
  for (const file of ['operators.ts', 'names.ts']) {
    expect(readFileSync(join(folder, file), 'utf8')).toBe(
      readFileSync(join(root, 'lib/native/generated', file), 'utf8'),
    )
  }
})

it('--check finds what is stale, and leaves it', () => {
  // Written by the test before.
  appendFileSync(join(folder, 'names.ts'), '// more')
  const { status, stderr } = generate('--check', '--into', folder)
  expect(status).toBe(1)
  expect(stderr).toMatch(/stale: run `npm run generate`/)
  expect(readFileSync(join(folder, 'names.ts'), 'utf8')).toMatch(/more$/)
})
