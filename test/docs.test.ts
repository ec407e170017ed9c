// Every `ts` and `js` block of the README and of the pages of docs/, and every right-hand side of the table of equivalents,
// is type-checked, and run unless its fence says `weights`. Pages import what the package's face has, not what is deprecated.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
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
import { docPages } from './doc-pages.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const modules: Record<string, object> = {
  voxtorch,
  'voxtorch/files': files,
  'voxtorch/serve': serve,
  'voxtorch/salmonn': salmonn,
  'voxtorch/spectra': spectra,
}

const texts = new Map(['README.md', ...docPages].map((path) => [path, readFileSync(join(root, path), 'utf8')]))

const blocks = [...texts].flatMap(([page, text]) =>
  [...text.matchAll(/^```(?:ts|js)\b(.*)\n([\s\S]*?)^```/gm)].map(([, marks = '', code = ''], i) => {
    return { page: `${page} ${i}`, code, runs: !/\bweights\b/.test(marks) }
  }),
)
const examples = ['examples', 'examples/demo'].flatMap((folder) =>
  readdirSync(join(root, folder))
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(root, folder, name)),
)

/** What the lines of the table of equivalents use without making it. */
const setting = `
const x = randn([4, 8]), y = randn([4, 8]), mask = x.gt(0)
const q = randn([1, 2, 4, 8]), k = randn([1, 2, 4, 8]), v = randn([1, 2, 4, 8])
const w = randn([8], { requiresGrad: true }), labels = randint(0, 2, [4])
const model = new Sequential(new Linear(8, 16), new ReLU(), new Linear(16, 2))
const logits = model.forward(x), loss = functional.crossEntropy(logits, labels).add(x.matmul(w).sum())
const optimizer = new AdamW(model.parameters(), { lr: 1e-3 })
const dataset = [1, 2, 3, 4], loader = new DataLoader(dataset, { batchSize: 2 })
`

/** The code of each table line's right column. One cell may hold several pieces. */
const rows = (texts.get('docs/guide/from-pytorch.md') ?? '')
  .split('\n')
  .filter((line) => line.startsWith('| `') || line.startsWith('| ('))
  .flatMap((line) => [...(line.split(' | ')[1] ?? '').matchAll(/`([^`]+)`/g)].map(([, code = '']) => code))

function asModule(row: string): string {
  const code = `${setting}\n${row}`
  const names = Object.keys(voxtorch).filter((name) => new RegExp(`\\b${name}\\b`).test(code))
  return `import { ${names.join(', ')} } from 'voxtorch'\ndeclare const path: string\n${code}\n`
}

/** What is wrong in the blocks, the rows and the examples. */
function typeErrors(): string[] {
  const config = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile).config
  config.compilerOptions.paths.voxtorch = ['./lib/root.ts']
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root)
  const sources = [...blocks.map(({ code }) => `export {}\n${code}`), ...rows.map(asModule)]
  const files = new Map(sources.map((source, i) => [join(root, `block-${i}.ts`), source]))
  const host = ts.createCompilerHost(options)
  const { readFile, fileExists, getSourceFile } = host
  host.readFile = (name) => files.get(name) ?? readFile(name)
  host.fileExists = (name) => files.has(name) || fileExists(name)
  host.getSourceFile = (name, version, ...rest) => {
    const source = files.get(name)
    return source === undefined ? getSourceFile(name, version, ...rest) : ts.createSourceFile(name, source, version)
  }
  const checked = [...files.keys(), ...examples]
  const program = ts.createProgram(checked, options, host)
  return checked.flatMap((name) =>
    ts
      .getPreEmitDiagnostics(program, program.getSourceFile(name))
      .filter(({ file }) => file?.fileName === name)
      .map(({ messageText }) => `${ts.flattenDiagnosticMessageText(messageText, '\n')} in\n${files.get(name) ?? name}`),
  )
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

  it('type-check, and so do the examples', () => {
    expect(typeErrors()).toEqual([])
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
