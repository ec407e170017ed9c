/** The operator schemas of the loaded libtorch, parsed, and which of them are public: for generate.ts and the fuzz. */
import { readFileSync } from 'node:fs'

export interface Argument {
  name: string
  /** Such as `Tensor`, `SymInt[]` or `int[2]`, without aliases and `?`. */
  type: string
  optional: boolean
  keywordOnly: boolean
  hasDefault: boolean
  /** The operator changes it. */
  written: boolean
}

export interface Schema {
  text: string
  name: string
  overload: string
  arguments: Argument[]
  returns: { type: string; name: string }[]
}

interface Exclusions {
  /** Operators without `aten::`, prefixes and suffixes of their names, each with the reason. */
  hidden: Record<string, string>
  shown: Record<string, string>
  hiddenPrefixes: Record<string, string>
  hiddenSuffixes: Record<string, string>
  /** Single forms, `name.overload`, of operators that have others. */
  hiddenForms: Record<string, string>
}

export const exclusions = JSON.parse(readFileSync(new URL('exclusions.json', import.meta.url), 'utf8')) as Exclusions

/** Whether an ATen operator is kept from users. */
export function isHidden(name: string): boolean {
  if (name.startsWith('_') || Object.hasOwn(exclusions.hidden, name)) return true
  if (Object.hasOwn(exclusions.shown, name)) return false
  if (Object.keys(exclusions.hiddenPrefixes).some((prefix) => name.startsWith(prefix))) return true
  return Object.keys(exclusions.hiddenSuffixes).some((suffix) => name.endsWith(suffix))
}

/** Splits at commas that are outside brackets and quotes. */
function split(text: string): string[] {
  const parts: string[] = []
  let depth = 0
  let quoted = false
  let start = 0
  for (let i = 0; i < text.length; i += 1) {
    const letter = text[i]
    if (letter === '"') quoted = !quoted
    if (quoted) continue
    if (letter === '(' || letter === '[') depth += 1
    if (letter === ')' || letter === ']') depth -= 1
    if (letter === ',' && depth === 0) {
      parts.push(text.slice(start, i).trim())
      start = i + 1
    }
  }
  const last = text.slice(start).trim()
  if (last !== '') parts.push(last)
  return parts
}

/** Null for what is not in the `aten` namespace. */
export function parseSchema(text: string): Schema | null {
  const match = /^aten::(\w+)(?:\.(\w+))?\((.*)\) -> (.*)$/.exec(text)
  if (match === null) return null
  const [, name, overload = '', list, result] = match as unknown as [string, string, string | undefined, string, string]
  let keywordOnly = false
  const args: Argument[] = []
  for (const part of split(list)) {
    if (part === '*') {
      keywordOnly = true
      continue
    }
    const [declaration, value] = part.split(/=(.*)/s) as [string, string | undefined]
    const space = declaration.lastIndexOf(' ')
    const declared = declaration.slice(0, space)
    const type = declared.replace(/\([^)]*\)/g, '')
    args.push({
      name: declaration.slice(space + 1),
      type: type.replace(/\?$/, ''),
      optional: type.endsWith('?'),
      keywordOnly,
      hasDefault: value !== undefined,
      written: declared.includes('!'),
    })
  }
  const inner = result.startsWith('(') && result.endsWith(')') ? result.slice(1, -1) : result
  const returns = split(inner).map((part) => {
    const clean = part.replace(/\([^)]*\)/g, '')
    const space = clean.indexOf(' ')
    return space < 0 ? { type: clean, name: '' } : { type: clean.slice(0, space), name: clean.slice(space + 1) }
  })
  return { text, name, overload, arguments: args, returns }
}

/** The public operators among schema texts, by name. */
export function publicSchemas(texts: readonly string[]): Map<string, Schema[]> {
  const byName = new Map<string, Schema[]>()
  for (const text of texts) {
    const schema = parseSchema(text)
    if (schema === null || isHidden(schema.name)) continue
    if (Object.hasOwn(exclusions.hiddenForms, `${schema.name}.${schema.overload}`)) continue
    byName.set(schema.name, [...(byName.get(schema.name) ?? []), schema])
  }
  return byName
}

export const camel = (name: string): string =>
  name.replace(/(?<=[A-Za-z0-9])_([a-zA-Z0-9])/g, (_, letter: string) => letter.toUpperCase())
