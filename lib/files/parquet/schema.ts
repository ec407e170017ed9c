import type { SchemaElement } from 'hyparquet'
import type { ByteSource } from '../byte-source.js'
import { quoted } from '../byte-source.js'

/** A column or a part of a nested one. */
export interface ParquetNode {
  readonly name: string
  /** Names from the top-level column down, joined by dots. */
  readonly path: string
  readonly element: SchemaElement
  /** `list` has one child, the element; `map` a key and a value; `repeated` is a list without a group around it. */
  readonly kind: 'value' | 'struct' | 'list' | 'map' | 'repeated'
  readonly children: readonly ParquetNode[]
  /** Definition level at which this node is not null, and for a list the one at which it has an element. */
  readonly defined: number
  readonly filled: number
  /** Repetition level of the elements of a list. */
  readonly repeats: number
  /** Indices of the first leaf below this node and after the last one. */
  readonly firstLeaf: number
  readonly endLeaf: number
  readonly nullable: boolean
}

/** A column of values as it is stored. */
export interface ParquetLeaf {
  readonly node: ParquetNode
  readonly path: string
  readonly maxDefinition: number
  readonly maxRepetition: number
}

const MAX_DEPTH = 32
const MAX_ELEMENTS = 100_000

/** Build the tree of columns. @throws the source's error for a schema that is not a tree, too deep, or has equal names */
export function parquetTree(
  elements: readonly SchemaElement[],
  source: ByteSource,
): { columns: ParquetNode[]; leaves: ParquetLeaf[] } {
  const fail = (what: string): never => {
    throw source.error(`its schema is broken: ${what}`)
  }
  if (elements.length > MAX_ELEMENTS) fail(`expected at most ${MAX_ELEMENTS} elements, got ${elements.length}`)
  const leaves: ParquetLeaf[] = []
  let next = 1

  const take = (path: string[], definition: number, repetition: number): ParquetNode => {
    const element = elements[next++] ?? fail('it ends too early')
    if (typeof element.name !== 'string') return fail('an element has no name')
    if (element.name === '__proto__') return fail("a field is named '__proto__', which JavaScript's objects reserve")
    if (path.length >= MAX_DEPTH) return fail(`${quoted(path.join('.'))} is nested deeper than ${MAX_DEPTH} levels`)
    return build(element, [...path, element.name], definition, repetition)
  }

  const childrenOf = (element: SchemaElement, path: string[], definition: number, repetition: number) => {
    const children: ParquetNode[] = []
    const names = new Set<string>()
    for (let i = 0; i < (element.num_children ?? 0); i++) {
      const child = take(path, definition, repetition)
      if (names.has(child.name)) fail(`two fields are named ${quoted(child.path)}`)
      names.add(child.name)
      children.push(child)
    }
    return children
  }

  const build = (element: SchemaElement, path: string[], above: number, repetition: number): ParquetNode => {
    const { name, repetition_type: repeated, type, num_children: count = 0 } = element
    const nullable = repeated === 'OPTIONAL'
    const firstLeaf = leaves.length
    const base = { name, path: path.join('.'), element, nullable, firstLeaf }
    if (repeated === undefined) return fail(`${quoted(base.path)} has no repetition type`)
    if (count < 0 || count > 0 === (type !== undefined)) return fail(`${quoted(base.path)} has no type`)
    if (repeated === 'REPEATED') {
      // A repeated field outside of a LIST is a list whose elements are not null.
      const once = build({ ...element, repetition_type: 'REQUIRED' }, path, above + 1, repetition + 1)
      const levels = { defined: above, filled: above + 1, repeats: repetition + 1 }
      return { ...base, ...levels, kind: 'repeated', children: [once], endLeaf: leaves.length }
    }
    const defined = above + (nullable ? 1 : 0)
    if (count === 0) {
      const node = { ...base, kind: 'value' as const, children: [], defined, filled: defined, repeats: repetition }
      const leaf: ParquetNode = { ...node, endLeaf: firstLeaf + 1 }
      leaves.push({ node: leaf, path: base.path, maxDefinition: defined, maxRepetition: repetition })
      return leaf
    }
    const children = childrenOf(element, path, defined, repetition)
    const node = { ...base, defined, filled: defined, repeats: repetition, endLeaf: leaves.length }
    const annotation = element.logical_type?.type ?? element.converted_type
    const [only] = children
    if (children.length === 1 && only?.kind === 'repeated') {
      const within = only.children[0] as ParquetNode
      const levels = { filled: only.filled, repeats: only.repeats }
      if (annotation === 'LIST') return { ...node, ...levels, kind: 'list', children: [elementOf(node.name, within)] }
      if ((annotation === 'MAP' || annotation === 'MAP_KEY_VALUE') && within.children.length === 2) {
        return { ...node, ...levels, kind: 'map', children: within.children }
      }
    }
    return { ...node, kind: 'struct', children }
  }

  const columns = childrenOf(elements[0] ?? fail('it is empty'), [], 0, 0)
  if (next !== elements.length) fail(`${elements.length - next} elements belong to no column`)
  if (columns.length === 0) fail('it has no columns')
  return { columns, leaves }
}

/**
 * Return the element of a LIST. Usually the repeated group has it as its only child; older writers repeat the element itself.
 * The rules are those of the format's specification for backward compatibility.
 */
function elementOf(list: string, within: ParquetNode): ParquetNode {
  const isElement =
    within.kind !== 'struct' ||
    within.children.length !== 1 ||
    within.name === 'array' ||
    within.name === `${list}_tuple`
  return isElement ? within : (within.children[0] as ParquetNode)
}

/** Return the type of a column for a person: `string`, `list<struct<role: string, content: string>>`. */
export function typeOf(node: ParquetNode): string {
  const [first, second] = node.children
  if (node.kind === 'list' || node.kind === 'repeated') return `list<${typeOf(first!)}>`
  if (node.kind === 'map') return `map<${typeOf(first!)}, ${typeOf(second!)}>`
  if (node.kind === 'struct')
    return `struct<${node.children.map((child) => `${child.name}: ${typeOf(child)}`).join(', ')}>`
  const { type, logical_type: logical, converted_type: converted } = node.element
  if (logical?.type === 'STRING' || converted === 'UTF8') return 'string'
  if (logical?.type === 'INTEGER') return `${logical.isSigned ? 'int' : 'uint'}${logical.bitWidth}`
  if (logical !== undefined && typeof logical.type === 'string') return logical.type.toLowerCase()
  if (converted !== undefined) return converted.toLowerCase()
  return (
    { BOOLEAN: 'bool', BYTE_ARRAY: 'binary', FIXED_LEN_BYTE_ARRAY: 'binary' }[type as string] ?? `${type}`.toLowerCase()
  )
}
