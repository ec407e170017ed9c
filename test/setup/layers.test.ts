import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

const lib = resolve('lib')
const imports = readdirSync(lib, { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.ts'))
  .flatMap((path) => {
    const file = join(lib, path)
    const sources = readFileSync(file, 'utf8').matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)
    return [...sources].map(([, source]) => [path, relative(lib, resolve(dirname(file), source as string))] as const)
  })
const inside = (path: string, folder: string) => path.startsWith(`${folder}/`)

describe('who imports whom', () => {
  it('is read from the sources', () => {
    expect(imports).toContainEqual(['models/salmonn/salmonn.ts', 'models/salmonn/clips.js'])
    expect(imports.length).toBeGreaterThan(1000)
  })

  it.each([
    ['only the command line and the public face know the systems', ['systems', 'cli'], ['systems']],
    ['only the public face and the other commands know the command line', ['cli'], ['cli']],
  ])('%s', (_, may, folders) => {
    const wrong = imports.filter(
      ([from, to]) =>
        from !== 'index.ts' &&
        folders.some((folder) => inside(to, folder)) &&
        !may.some((folder) => inside(from, folder)),
    )
    expect(wrong).toEqual([])
  })

  it('no system knows another', () => {
    const systemOf = (path: string) => (inside(path, 'systems') ? path.split('/')[1] : undefined)
    const wrong = imports.filter(([from, to]) => systemOf(from) && systemOf(to) && systemOf(from) !== systemOf(to))
    expect(wrong).toEqual([])
  })
})
