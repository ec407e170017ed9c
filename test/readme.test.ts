// Every TypeScript block of the README, and every right-hand side of its table of equivalents, is type-checked and run.
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { format } from 'node:util'
import ts from 'typescript'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import * as voxtorch from '../lib/index.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const readme = readFileSync(join(root, 'README.md'), 'utf8')

const blocks = [...readme.matchAll(/^```ts\n(.*?)^```/gms)].map((match) => match[1])

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
const rows = readme
  .slice(readme.indexOf('## PyTorch to voxtorch'), readme.indexOf('## How fast is it?'))
  .split('\n')
  .filter((line) => line.startsWith('| `') || line.startsWith('| ('))
  .flatMap((line) => [...line.split(' | ')[1].matchAll(/`([^`]+)`/g)].map((match) => match[1]))

function asModule(row: string): string {
  const code = `${setting}\n${row}`
  const names = Object.keys(voxtorch).filter((name) => new RegExp(`\\b${name}\\b`).test(code))
  return `import { ${names.join(', ')} } from 'voxtorch'\ndeclare const path: string\n${code}\n`
}

const modules = [...blocks, ...rows.map(asModule)]

function typeErrors(sources: string[]): string[] {
  const config = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile).config
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root)
  const files = new Map(sources.map((source, i) => [join(root, `readme-${i}.ts`), source]))
  const host = ts.createCompilerHost(options)
  const { readFile, fileExists, getSourceFile } = host
  host.readFile = (name) => files.get(name) ?? readFile(name)
  host.fileExists = (name) => files.has(name) || fileExists(name)
  host.getSourceFile = (name, version, ...rest) => {
    const source = files.get(name)
    return source === undefined ? getSourceFile(name, version, ...rest) : ts.createSourceFile(name, source, version)
  }
  const program = ts.createProgram([...files.keys()], options, host)
  return [...files].flatMap(([name, source]) =>
    ts
      .getPreEmitDiagnostics(program, program.getSourceFile(name))
      .filter(({ file }) => file?.fileName === name)
      .map(({ messageText }) => `${ts.flattenDiagnosticMessageText(messageText, '\n')} in\n${source}`),
  )
}

async function run(source: string, path: string): Promise<void> {
  const options = { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true }
  const { outputText } = ts.transpileModule(source, { compilerOptions: options })
  const body = outputText
    .replace(/^import \{([^}]*)\} from 'voxtorch';?$/gm, 'const {$1} = voxtorch')
    .replace(/^export \{\};?$/gm, '')
  const AsyncFunction = (async () => {}).constructor as new (
    ...args: string[]
  ) => (...args: unknown[]) => Promise<unknown>
  await voxtorch.scope(() => new AsyncFunction('voxtorch', 'path', body)(voxtorch, path))
}

describe('README', () => {
  let folder = ''
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'voxtorch-readme-'))
    vi.spyOn(console, 'log').mockImplementation(() => {})
  })
  afterAll(async () => {
    vi.restoreAllMocks()
    await rm(folder, { recursive: true })
  })

  it('has blocks and table lines to check', () => {
    expect(blocks.length).toBeGreaterThan(4)
    expect(rows.length).toBeGreaterThan(40)
  })

  it('type-checks', () => {
    expect(typeErrors(modules)).toEqual([])
  })

  it.each(blocks)('runs the block %#', async (block) => {
    const log = vi.mocked(console.log).mockClear()
    process.chdir(folder) // where the examples leave their files
    try {
      await run(block, folder)
    } finally {
      process.chdir(root)
    }
    const promised = [...block.matchAll(/^\s*console\.log\(.*\) +\/\/ (.*)$/gm)].map((match) => match[1])
    if (promised.length > 0) expect(log.mock.calls.map((values) => format(...values))).toEqual(promised)
  })

  it.each(rows)('runs the line %s', async (row) => {
    const path = join(folder, 'model.safetensors')
    // Loading follows saving in the table, but each line must also run alone.
    if (row.includes('loadSafetensors')) await run(asModule('await saveSafetensors(path, model.stateDict())'), path)
    await run(asModule(row), path)
  })
})
