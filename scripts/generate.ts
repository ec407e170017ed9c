/**
 * Writes lib/native/generated from the operator schemas of the loaded libtorch: names that become methods and functions,
 * and their types, with the sentences of operator-docs.ts. `npm run generate`; `--check` fails when the files are stale instead
 * of writing them, `--into` takes another folder.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { op } from '../lib/native/call.js'
import { operatorDoc, pageAddress, prefixes } from './operator-docs.js'
import { type Argument, camel, publicSchemas, type Schema } from './schemas.js'

const generated = 'lib/native/generated'
const root = fileURLToPath(new URL('..', import.meta.url))
const { values } = parseArgs({
  options: { check: { type: 'boolean', default: false }, into: { type: 'string', default: join(root, generated) } },
})
const reserved = new Set([
  'in',
  'default',
  'with',
  'function',
  'this',
  'new',
  'var',
  'class',
  'for',
  'if',
  'return',
  'void',
])
const parameter = (name: string): string => (reserved.has(name) ? `${camel(name)}_` : camel(name))

const argumentTypes: Record<string, string> = {
  Tensor: 'Tensor',
  int: 'number | bigint',
  SymInt: 'number | bigint',
  float: 'number',
  SymFloat: 'number',
  bool: 'boolean',
  SymBool: 'boolean',
  Scalar: 'Scalar',
  number: 'Scalar',
  str: 'string',
  Device: 'Device',
  ScalarType: 'DType',
  Layout: 'Layout',
  MemoryFormat: 'MemoryFormat',
  Generator: 'Generator',
}

function argumentType(type: string): string | null {
  const list = /^(\w+)(\?)?\[(\d*)\]$/.exec(type)
  if (list !== null) {
    const element = argumentTypes[list[1]!]
    if (element === undefined) return null
    const base =
      list[2] === '?'
        ? `readonly (${element} | null)[]`
        : element.includes('|')
          ? 'readonly number[]'
          : `readonly ${element}[]`
    return list[3] !== '' && element.includes('number') ? `number | ${base}` : base
  }
  return argumentTypes[type] ?? null
}

function returnType(returns: Schema['returns']): string | null {
  const one = (type: string): string | null => {
    if (type === 'Tensor' || type === 'Tensor?') return 'Tensor'
    if (type === 'Tensor[]') return 'Tensor[]'
    if (type === 'int' || type === 'SymInt' || type === 'float') return 'number'
    if (type === 'int[]' || type === 'SymInt[]' || type === 'float[]') return 'number[]'
    if (type === 'bool') return 'boolean'
    if (type === 'Scalar' || type === 'number') return 'Scalar'
    if (type === 'ScalarType') return 'DType'
    return null
  }
  if (returns.length === 0) return 'void'
  const types = returns.map((entry) => one(entry.type))
  if (types.includes(null)) return null
  if (returns.length === 1) return types[0]!
  return returns.every((entry) => entry.name !== '')
    ? `{ ${returns.map((entry, i) => `${camel(entry.name)}: ${types[i]}`).join('; ')} }`
    : `[${types.join(', ')}]`
}

/** One line of an interface, or null for a form that JavaScript cannot call. */
function signature(schema: Schema, method: boolean): string[] | null {
  const result = returnType(schema.returns)
  if (result === null) return null
  const args = method ? schema.arguments.slice(1) : schema.arguments
  if (args.some((argument) => argument.keywordOnly && argument.written)) return null
  const usable = args.filter((argument) => argumentType(argument.type) !== null)
  if (args.some((argument) => argumentType(argument.type) === null && !argument.hasDefault && !argument.optional))
    return null
  const typed = (argument: Argument): string => argumentType(argument.type)! + (argument.optional ? ' | null' : '')
  const positional = usable.filter((argument) => !argument.keywordOnly)
  const places: string[] = []
  const options: string[] = []
  // A required argument after optional ones keeps them all required by place.
  let lastRequired = -1
  positional.forEach((argument, i) => {
    if (!argument.hasDefault) lastRequired = i
  })
  for (const argument of usable) {
    if (argument.keywordOnly || argument.hasDefault) options.push(`${camel(argument.name)}?: ${typed(argument)}`)
  }
  // Options by name may stand in the place of the first argument that is left out.
  const byName = options.length > 0 ? `{ ${options.join('; ')} }` : ''
  positional.forEach((argument, i) => {
    const optional = i > lastRequired
    const late = !optional && argument.hasDefault ? ' | undefined' : ''
    places.push(
      `${parameter(argument.name)}${optional ? '?' : ''}: ${typed(argument)}${late}${optional ? ` | ${byName}` : ''}`,
    )
  })
  if (byName !== '') places.push(`options?: ${byName}`)
  const lines = [`(${places.join(', ')}): Result<Q, ${result}>`]
  const lists = positional.filter((argument) => /^(int|SymInt)\[\]$/.test(argument.type))
  const others = positional.filter((argument) => argument.name !== 'self')
  if (lists.length === 1 && others.length === 1) {
    const self = method || positional[0]!.name !== 'self' ? [] : ['self: Tensor']
    lines.push(`(${[...self, `...${parameter(lists[0]!.name)}: number[]`].join(', ')}): Result<Q, ${result}>`)
  }
  return lines
}

/** Return the lines of a form's docstring: an editor shows that of the overload that a call resolves to, so each form has one. */
function docstring(name: string, text: string): string[] {
  const doc = operatorDoc(name)
  const plain = text.replaceAll('*/', '* /')
  if (doc === undefined) return [`  /** ${plain} */`]
  return ['  /**', `   * ${doc.sentence} [${doc.page}](${pageAddress(doc.page)})`, '   *', `   * ${plain}`, '   */']
}

// Written by hand in lib/tensor/tensor.ts, with other results than the operators of these names.
const ownMethods = new Set([
  'data',
  'item',
  'backward',
  'set_data',
  'retain_grad',
  'where',
  'is_leaf',
  'to',
  'mT',
  'numel',
  'dim',
  'is_contiguous',
  'size',
])

/** Signatures that lib/tensor/python-forms.ts adds, without `self`. */
const pythonForms: Record<string, readonly string[]> = {
  nonzero: ['options: { asTuple: true }): Result<Q, Tensor[]>', 'options: { asTuple?: false }): Result<Q, Tensor>'],
  norm: [
    "p: 'fro' | 'nuc', dim?: number | readonly number[] | null | { dim?: number | readonly number[] | null; keepdim?: boolean; dtype?: DType | null }, keepdim?: boolean | { dtype?: DType | null }, options?: { dtype?: DType | null }): Result<Q, Tensor>",
  ],
  tensordot: [
    'other: Tensor, dims: number | readonly [readonly number[], readonly number[]] | { dims: number | readonly [readonly number[], readonly number[]] }): Result<Q, Tensor>',
  ],
  cdist: [
    "x2: Tensor, p: number, computeMode: 'use_mm_for_euclid_dist_if_necessary' | 'use_mm_for_euclid_dist' | 'donot_use_mm_for_euclid_dist'): Result<Q, Tensor>",
    "x2: Tensor, options: { p?: number; computeMode: 'use_mm_for_euclid_dist_if_necessary' | 'use_mm_for_euclid_dist' | 'donot_use_mm_for_euclid_dist' }): Result<Q, Tensor>",
  ],
  embedding_bag: [
    "indices: Tensor, offsets: Tensor, options: { mode: 'sum' | 'mean' | 'max'; scaleGradByFreq?: boolean; sparse?: boolean; perSampleWeights?: Tensor | null; includeLastOffset?: boolean; paddingIdx?: number | null }): Result<Q, [Tensor, Tensor, Tensor, Tensor]>",
  ],
}
const firstOf: Record<string, string> = { cdist: 'x1', embedding_bag: 'weight' }

const byName = publicSchemas(op('voxtorch::operator_schemas')())
const count = [...byName.values()].reduce((sum, overloads) => sum + overloads.length, 0)

const notice = "// Generated by `npm run generate` from libtorch's operator schemas. Do not edit.\n"

const functions: string[] = []
const methods: string[] = []
const functionNames: string[] = []
const methodNames: string[] = []

for (const [name, overloads] of [...byName].sort(([a], [b]) => (a < b ? -1 : 1))) {
  for (const method of [false, true]) {
    const own = method
      ? overloads.filter((schema) => schema.arguments[0]?.name === 'self' && schema.arguments[0].type === 'Tensor')
      : overloads
    if (method && ownMethods.has(name)) continue
    const lines: string[] = []
    for (const schema of own) {
      const forms = signature(schema, method)
      if (forms === null) continue
      for (const form of forms) lines.push(...docstring(name, `\`${schema.text}\``), `  ${camel(name)}${form}`)
    }
    if (lines.length === 0) continue
    const forms = pythonForms[name]
    if (forms !== undefined) {
      const first = method ? '' : `${firstOf[name] ?? 'self'}: Tensor, `
      for (const form of forms)
        lines.push(
          ...docstring(name, "The arguments of PyTorch's Python function."),
          `  ${camel(name)}(${first}${form}`,
        )
    }
    ;(method ? methods : functions).push(...lines)
    ;(method ? methodNames : functionNames).push(`  ['${camel(name)}', 'aten::${name}'],`)
  }
}

const types = `${notice}import type { Device, DType } from '../../tensor/dtype.js'
import type { Generator } from '../../tensor/random.js'
import type { Scalar, Tensor } from '../../tensor/tensor.js'

export type Layout = 'strided' | 'sparse_coo'
export type MemoryFormat = 'contiguous' | 'preserve' | 'channels_last' | 'channels_last_3d'

/** What an operator gives: its result now, or a promise when it is queued on the executor. */
export type Result<Q extends 'now' | 'queued', T> = Q extends 'queued' ? Promise<T> : T

/** ATen's operators as functions. */
export interface Operators<Q extends 'now' | 'queued'> {
${functions.join('\n')}
}

export type TensorFunctions = Operators<'now'>
export type QueuedOperators = Operators<'queued'>

interface Methods<Q extends 'now' | 'queued'> {
${methods.join('\n')}
}

/** ATen's operators as methods of a tensor. */
export interface TensorOperators extends Methods<'now'> {}
`
const names = `${notice}type Names = readonly (readonly [name: string, operator: string])[]

export const functionNames: Names = [
${functionNames.join('\n')}
]

export const methodNames: Names = [
${methodNames.join('\n')}
]
`

/** The functions of PyTorch's modules of operators: torch.linalg.svd is the operator linalg_svd. */
const modules = Object.entries(prefixes).map(([module, prefix]) => {
  const found = [...byName.keys()].filter((name) => name.startsWith(prefix) && name[prefix.length] !== '_').sort()
  return { module, short: module.replace('torch.', ''), operators: found, prefix }
})
const capital = (word: string): string => word[0]!.toUpperCase() + word.slice(1)

const namespaces = `${notice}import type { TensorFunctions } from './operators.js'

${modules
  .map(({ module, short, operators, prefix }) => {
    const members = operators.map((name) => {
      const doc = operatorDoc(name)
      // Sentences call the operators by their names in \`ops\`.
      const sentence = doc?.sentence.replace(
        /`(?:fft|linalg|special)([A-Z])/g,
        (_, first: string) => `\`${first.toLowerCase()}`,
      )
      const comment = doc === undefined ? '' : `  /** ${sentence} [${doc.page}](${pageAddress(doc.page)}) */\n`
      return `${comment}  readonly ${camel(name.slice(prefix.length))}: TensorFunctions['${camel(name)}']`
    })
    return `/** Functions of ${module}. */\nexport interface ${capital(short)}Functions {\n${members.join('\n')}\n}\n`
  })
  .join('\n')}
/** Names of the functions of each module. */
export const moduleNames = {
${modules.map(({ short, operators, prefix }) => `  ${short}: [${operators.map((name) => `'${camel(name.slice(prefix.length))}'`).join(', ')}],`).join('\n')}
}
`

const biome = fileURLToPath(import.meta.resolve('@biomejs/biome/bin/biome'))

/** Format a source as `npm run format` does. */
const formatted = (path: string, text: string): string =>
  execFileSync(process.execPath, [biome, 'format', `--stdin-file-path=${path}`], {
    cwd: root,
    input: text,
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
  })

let stale = false
for (const [file, unformatted] of [
  ['operators.ts', types],
  ['names.ts', names],
  ['namespaces.ts', namespaces],
] as const) {
  const path = join(values.into, file)
  const text = formatted(`${generated}/${file}`, unformatted)
  let before = ''
  try {
    before = readFileSync(path, 'utf8')
  } catch {}
  if (before === text) continue
  stale = true
  if (!values.check) writeFileSync(path, text)
}
console.log(`${functionNames.length} functions, ${methodNames.length} methods, ${count} schemas`)
if (stale && values.check) {
  console.error('lib/native/generated is stale: run `npm run generate`')
  process.exitCode = 1
}
