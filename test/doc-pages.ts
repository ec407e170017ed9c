import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as voxtorch from '../lib/root.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const docs = join(root, 'docs')

/** The pages of docs/ that are written by hand, by their paths; the others are generated, perhaps while this runs. */
export const docPages: readonly string[] = ['.', 'guide', 'systems'].flatMap((folder) =>
  readdirSync(join(docs, folder))
    .filter((name) => name.endsWith('.md') && !['cli.md', 'pytorch-names.md'].includes(name))
    .map((name) => join('docs', folder, name)),
)

/** The README and the pages, by their paths. */
export const texts = new Map(['README.md', ...docPages].map((path) => [path, readFileSync(join(root, path), 'utf8')]))

/** The code of each fence that is TypeScript or JavaScript. */
export const blocks = [...texts].flatMap(([page, text]) =>
  [...text.matchAll(/^```(?:ts|js)\b(.*)\n([\s\S]*?)^```/gm)].map(([, marks = '', code = ''], i) => {
    return { page: `${page} ${i}`, code, runs: !/\bweights\b/.test(marks) }
  }),
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
export const rows = (texts.get('docs/guide/from-pytorch.md') ?? '')
  .split('\n')
  .filter((line) => line.startsWith('| `') || line.startsWith('| ('))
  .flatMap((line) => [...(line.split(' | ')[1] ?? '').matchAll(/`([^`]+)`/g)].map(([, code = '']) => code))

/** A line of the table as a module of its own. */
export function asModule(row: string): string {
  const code = `${setting}\n${row}`
  const names = Object.keys(voxtorch).filter((name) => new RegExp(`\\b${name}\\b`).test(code))
  return `import { ${names.join(', ')} } from 'voxtorch'\ndeclare const path: string\n${code}\n`
}
