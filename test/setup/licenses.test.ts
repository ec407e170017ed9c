import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { licenseProblems, notices, production } from '../../scripts/licenses.mjs'
import { temporary, write } from './fakes.js'

const repository = fileURLToPath(new URL('../../', import.meta.url))

describe('what npm installs with voxtorch', () => {
  test('is under permissive licenses, and so is what it is compiled from', () => {
    expect(production().length).toBeGreaterThan(5)
    expect(licenseProblems()).toEqual([])
  })

  test('is named in THIRD-PARTY-NOTICES, which goes into the package', () => {
    expect(readFileSync(join(repository, 'THIRD-PARTY-NOTICES'), 'utf8'), 'run node scripts/licenses.mjs').toBe(
      notices(),
    )
    expect(JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')).files).toContain('THIRD-PARTY-NOTICES')
  })
})

describe('the check', () => {
  type Fake = { license: string; keywords?: string[]; files?: Record<string, string>; locked?: object }
  function problemsOf(packages: Record<string, Fake>): string[] {
    const root = temporary()
    const locked: Record<string, object> = { '': {} }
    for (const [name, { license, keywords, files = {}, locked: more = {} }] of Object.entries(packages)) {
      const path = `node_modules/${name}`
      locked[path] = { version: '1.0.0', license, ...more }
      write(join(root, path, 'package.json'), JSON.stringify({ name, license, keywords }))
      for (const [file, text] of Object.entries(files)) write(join(root, path, file), text)
    }
    write(join(root, 'package-lock.json'), JSON.stringify({ packages: locked }))
    return licenseProblems(root)
  }

  test('finds copyleft in a license, in what a package is made from, and in a text inside', () => {
    expect(
      problemsOf({
        'a-parser': { license: 'LGPL-3.0-or-later' },
        'b-decoder': { license: 'GPL-2.0' },
        'c-server': { license: 'AGPL-3.0-only' },
        'd-file': { license: 'MPL-2.0' },
        'e-mp3': { license: 'MIT', keywords: ['mpg123'] },
        'f-aac': { license: 'MIT', files: { LICENSE: 'as required by the GNU General Public License' } },
        'g-wasm': { license: 'MIT', files: { 'src/glue.js': '// This file is under LGPL-2.1' } },
        'h-none': { license: 'UNLICENSED' },
        'i-good': { license: 'MIT', files: { LICENSE: 'Permission is hereby granted' } },
      }),
    ).toEqual([
      'a-parser is under LGPL-3.0-or-later',
      'b-decoder is under GPL-2.0',
      'c-server is under AGPL-3.0-only',
      'd-file is under MPL-2.0',
      'e-mp3 is compiled from mpg123, which is under the GPL or LGPL',
      'f-aac: LICENSE mentions "GNU General Public Licen"',
      'g-wasm: src/glue.js mentions "LGPL-2"',
      'h-none is under UNLICENSED',
    ])
  })

  test('passes over what only developers get, and what users have to ask for', () => {
    const license = 'GPL-2.0'
    expect(
      problemsOf({ a: { license, locked: { dev: true } }, b: { license, locked: { peer: true, optional: true } } }),
    ).toEqual([])
  })
})
