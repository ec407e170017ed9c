import { readFileSync } from 'node:fs'
import * as voxtorch from '../../lib/root.js'
import { camel } from '../schemas.js'

const read = <T>(file: string): T => JSON.parse(readFileSync(new URL(`../../docs/${file}`, import.meta.url), 'utf8'))

/** PyTorch's public names by namespace, which test/reference/torch_names.py writes. */
export const pytorch = read<{ torch: string; names: Record<string, string[]> }>('pytorch-names.json')

/** Why a name is missing, by namespace and name; `*` is for all others of a namespace. Written by hand. */
export const reasons = read<Record<string, Record<string, string>>>('pytorch-reasons.json')

const library = voxtorch as unknown as Record<string, object | undefined>

/** Objects with the names of each namespace, and the prefixes of their members. */
const places: Readonly<Record<string, { object: object | undefined; prefix: string }>> = {
  'torch.nn.functional': { object: voxtorch.functional, prefix: 'functional.' },
  'torch.nn': { object: voxtorch, prefix: '' },
  'torch.nn.init': { object: voxtorch.init, prefix: 'init.' },
  'torch.fft': { object: voxtorch.fft, prefix: 'fft.' },
  'torch.linalg': { object: voxtorch.linalg, prefix: 'linalg.' },
  'torch.special': { object: voxtorch.special, prefix: 'special.' },
  'torch.func': { object: library.func, prefix: 'func.' },
  'torch.distributions': { object: library.distributions, prefix: 'distributions.' },
  'torch.optim': { object: voxtorch, prefix: '' },
  'torch.optim.lr_scheduler': { object: voxtorch, prefix: '' },
  'torch.Tensor': { object: voxtorch.Tensor.prototype, prefix: 'tensor.' },
}

export interface NameRow {
  /** PyTorch's name, without its namespace. */
  there: string
  /** The name here; undefined where it is missing. */
  here: string | undefined
  /** Why it is missing; undefined without a written reason. */
  reason: string | undefined
}

/** Return the names of each namespace of PyTorch, with their names here. */
export function nameRows(): Map<string, NameRow[]> {
  return new Map(
    Object.entries(pytorch.names).map(([namespace, names]) => {
      const { object, prefix } = places[namespace]!
      const why = reasons[namespace] ?? {}
      const rows = names.map((there): NameRow => {
        const name = camel(there)
        const here = object !== undefined && name in object ? `${prefix}${name}` : undefined
        return { there, here, reason: here === undefined ? (why[there] ?? why['*']) : undefined }
      })
      return [namespace, rows] as const
    }),
  )
}

/** Return the page of PyTorch's names, as Markdown. */
export function namesPage(): string {
  const sections = [...nameRows()].map(([namespace, rows]) => {
    const present = rows.filter(({ here }) => here !== undefined).length
    const lines = rows.map(({ there, here, reason }) => `| \`${there}\` | ${here ? `\`${here}\`` : (reason ?? '')} |`)
    return `## ${namespace}: ${present} of ${rows.length}\n\n| PyTorch | voxtorch, or why not |\n| --- | --- |\n${lines.join('\n')}\n`
  })
  return `# PyTorch's names

The public names of PyTorch ${pytorch.torch} and their names here. They are PyTorch's in camelCase: import \`functional\`, \`init\`, \`fft\`, \`linalg\` and
\`special\`, and layers, optimizers and schedules by their names. \`npm run docs\` makes this page from the package itself, and a test keeps it true.
[From PyTorch](./from-pytorch) shows how arguments are passed.

${sections.join('\n')}`
}
