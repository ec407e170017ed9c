// Every `ts` and `js` block of the README and of the pages of docs/, and every right-hand side of the table of equivalents,
// is run unless its fence says `weights` (test/setup/sources/types.ts checks their types). Pages import what the package's face has, not what is deprecated.
import { spawnSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { format } from 'node:util'
import ts from 'typescript'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import * as files from '../lib/files/index.js'
import * as voxtorch from '../lib/root.js'
import * as serve from '../lib/serve/index.js'
import * as salmonn from '../lib/systems/salmonn/index.js'
import * as spectra from '../lib/systems/spectra/index.js'
import * as tuning from '../lib/tuning/index.js'
import { asModule, blocks, rows, texts } from './doc-pages.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const modules: Record<string, object> = {
  voxtorch,
  'voxtorch/files': files,
  'voxtorch/serve': serve,
  'voxtorch/salmonn': salmonn,
  'voxtorch/spectra': spectra,
  'voxtorch/tuning': tuning,
}

async function run(source: string, path: string): Promise<void> {
  const options = { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true }
  const { outputText } = ts.transpileModule(source, { compilerOptions: options })
  const body = outputText
    .replace(/^import \{([^}]*)\} from '([^']+)';?$/gm, (_, names, from) => {
      return `const {${names.replaceAll(' as ', ': ')}} = await load('${from}')`
    })
    .replace(/^export \{\};?$/gm, '')
  const AsyncFunction = (async () => {}).constructor as new (
    ...args: string[]
  ) => (...args: unknown[]) => Promise<unknown>
  const load = (name: string) => modules[name] ?? import(name)
  await voxtorch.scope(() => new AsyncFunction('load', 'path', body)(load, path))
}

describe('README and docs/', () => {
  let folder = ''
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'voxtorch-docs-'))
    vi.spyOn(console, 'log').mockImplementation(() => {})
  })
  afterAll(async () => {
    vi.restoreAllMocks()
    await rm(folder, { recursive: true })
  })

  it('have blocks and table lines to check', () => {
    expect(texts.size).toBeGreaterThan(14)
    expect(blocks.filter(({ runs }) => runs).length).toBeGreaterThan(20)
    expect(rows.length).toBeGreaterThan(40)
    expect([...texts].filter(([, text]) => /^```(typescript|javascript|mjs|tsx)\b/m.test(text))).toEqual([])
  })

  it('README is plain JavaScript, which Node 20 and 22 run as it stands', () => {
    const own = blocks.filter(({ page }) => page.startsWith('README.md'))
    expect(own.length).toBe(3)
    for (const [i, { page, code }] of own.entries()) {
      const file = join(folder, `readme-${i}.mjs`)
      writeFileSync(file, code)
      const { status, stderr } = spawnSync(process.execPath, ['--check', file], { encoding: 'utf8' })
      expect({ status, stderr }, page).toEqual({ status: 0, stderr: '' })
      // Node 24 takes it.
      expect(code, page).not.toMatch(/^\s*(await )?using /m)
    }
  })

  it.each(blocks.filter(({ runs }) => runs))('run the block $page', async ({ code }) => {
    const log = vi.mocked(console.log).mockClear()
    process.chdir(folder) // where the examples leave their files
    try {
      await run(code, folder)
    } finally {
      process.chdir(root)
    }
    const promised = [...code.matchAll(/^\s*console\.log\(.*\) +\/\/ (.*)$/gm)].map((match) => match[1])
    if (promised.length > 0) expect(log.mock.calls.map((values) => format(...values))).toEqual(promised)
  })

  it.each(rows)('run the line %s', async (row) => {
    const path = join(folder, 'model.safetensors')
    // Loading follows saving in the table, but each line must also run alone.
    if (row.includes('loadSafetensors')) await run(asModule('await saveSafetensors(path, model.stateDict())'), path)
    await run(asModule(row), path)
  })

  it('README is no longer than 8 KB, and what it links to is there', () => {
    const readme = texts.get('README.md') ?? ''
    expect(Buffer.byteLength(readme)).toBeLessThanOrEqual(8192)
    for (const [, link = ''] of readme.matchAll(/\]\((?!https?:|#)([^)#]+)/g)) {
      expect(existsSync(join(root, link)), link).toBe(true)
    }
  })
})
