// The package's lexer, parser and composer, not its parseDocument and toJS (2.9.1): there '['.repeat(1e6) ends the process, an
// alias is not a copy, and keys lose their spelling.
import {
  Composer,
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  Parser,
  type Scalar,
  type YAMLMap,
} from 'yaml'
import { quoted } from '../byte-source.js'
import { type Chunks, faultIn, utf8, withoutMark } from '../text.js'
import { plainScalar, scalarTags } from './scalar.js'

/** The parser recurses. Beyond a few thousand levels V8 ends the process instead of throwing. */
const MAX_DEPTH = 100

/** Parse YAML that arrives in pieces. Errors name `file`. */
export async function parseYaml(chunks: Chunks, file: string, maxTokens = 100_000): Promise<unknown> {
  const parts: Uint8Array[] = []
  for await (const chunk of chunks) parts.push(chunk)
  const text = utf8(withoutMark(Buffer.concat(parts)), file)
  const lines = new LineCounter()
  const fail: Fail = (what, offset) => {
    const { line, col } = lines.linePos(offset)
    throw faultIn(file, what, { line: Math.max(1, line), column: Math.max(1, col) })
  }
  const document = compose(text, lines, maxTokens, fail)
  return document === undefined ? null : yamlValue(document, maxTokens, fail)
}

type Fail = (what: string, offset: number) => never

/** Run the package's lexer, parser and composer, stopped as soon as a document exceeds the limits. */
function compose(text: string, lines: LineCounter, maxTokens: number, fail: Fail): Document | undefined {
  lines.addNewLine(0)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those that YAML forbids
  const control = text.search(/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/)
  if (control >= 0) {
    for (let at = text.indexOf('\n'); at >= 0 && at < control; at = text.indexOf('\n', at + 1)) lines.addNewLine(at + 1)
    fail('a control character, which YAML does not allow', control)
  }
  const parser = new Parser(lines.addNewLine)
  // Keys are compared here, because the package compares each key with each other one.
  const composer = new Composer({
    schema: 'failsafe',
    customTags: scalarTags,
    resolveKnownTags: false,
    version: '1.2',
    uniqueKeys: false,
    strict: true,
    logLevel: 'silent',
  })
  keepFirstFaults(composer as unknown as Faults)
  const documents: Document[] = []
  const take = (found: Iterable<Document.Parsed>): void => {
    for (const document of found) {
      documents.push(document as unknown as Document)
      const fault = document.errors[0] ?? document.warnings[0]
      if (fault !== undefined) fail(reworded(fault.message), fault.pos[0])
      if (documents.length > 1) fail('a second document begins; split the file', document.range[0])
    }
  }
  let tokens = 0
  for (const lexeme of new Lexer().lex(text)) {
    if (++tokens > maxTokens) fail(`more than ${maxTokens} tokens; maxTokens sets the limit`, parser.offset)
    for (const token of parser.next(lexeme)) take(composer.next(token))
    if (parser.stack.length > 2 * MAX_DEPTH) fail(`nested deeper than ${MAX_DEPTH} levels`, parser.offset)
  }
  for (const token of parser.end()) take(composer.next(token))
  take(composer.end())
  return documents[0]
}

interface Faults {
  errors: unknown[]
  warnings: unknown[]
  onError(source: unknown, code: string, message: string, warning?: boolean): void
}

/** Keep the first errors only: the package collects all, which may be two million for a text of 4 MB. */
function keepFirstFaults(composer: Faults): void {
  const report = composer.onError
  composer.onError = (source, code, message, warning) => {
    if ((warning ? composer.warnings : composer.errors).length === 0) report(source, code, message, warning)
  }
}

function reworded(message: string): string {
  const short = message.length > 200 ? `${message.slice(0, 200)}…` : message
  return short.startsWith('Unresolved tag')
    ? `${short.replace('Unresolved', 'unknown')}; only YAML's own tags are read`
    : short
}

const TAGS = new Set(['str', 'int', 'float', 'bool', 'null', 'seq', 'map'].map((name) => `tag:yaml.org,2002:${name}`))

/** Build the value from the document's nodes; an alias is built again from the node that it names, within the budget. */
function yamlValue(document: Document, budget: number, fail: Fail): unknown {
  const anchors = new Map<string, unknown>()
  const open = new Set<unknown>()
  /** A text of megabytes may be named by thousands of aliases: parse it once. */
  const scalars = new Map<Scalar, unknown>()
  let depth = 0

  function build(node: unknown, offset: number): unknown {
    const here = startOf(node, offset)
    if (--budget < 0) fail('aliases expand to more values than allowed; write them out or raise maxTokens', here)
    if (isAlias(node)) {
      const target = anchors.get(node.source)
      if (target === undefined) fail(`the alias ${quoted(node.source)} names no anchor above it`, here)
      if (open.has(target)) fail(`the alias ${quoted(node.source)} stands inside of what it names`, here)
      return build(target, here)
    }
    if (node === null || node === undefined) return null
    const { tag, anchor } = node as { tag?: string; anchor?: string }
    if (tag !== undefined && !TAGS.has(tag))
      fail(`the tag ${quoted(tag)} is unknown; only YAML's own tags are read`, here)
    if (anchor !== undefined) anchors.set(anchor, node)
    if (isScalar(node)) return scalar(node, here)
    if (++depth > MAX_DEPTH) fail(`nested deeper than ${MAX_DEPTH} levels`, here)
    open.add(node)
    const value = isMap(node)
      ? mapping(node, here)
      : isSeq(node)
        ? node.items.map((item) => build(item, here))
        : fail('something that is neither a value nor a collection', here)
    open.delete(node)
    depth--
    return value
  }

  function scalar(node: Scalar, here: number): unknown {
    if (node.type !== 'PLAIN' || node.tag !== undefined) return node.value
    if (scalars.has(node)) return scalars.get(node)
    const value = plainScalar(node.source ?? '')
    if (value === undefined) fail('an integer of more than 4300 digits', here)
    if (node.anchor !== undefined) scalars.set(node, value)
    return value
  }

  function mapping(node: YAMLMap, here: number): Record<string, unknown> {
    const entries = new Map<string, unknown>()
    const merged = new Map<string, unknown>()
    for (const { key, value } of node.items) {
      const place = startOf(key, here)
      const named = keyOf(key, place)
      if (named === '<<' && isScalar(key) && key.type === 'PLAIN') {
        // The first of several merged mappings takes precedence, so apply them in reverse order.
        for (const source of mergeable(build(value, place), place).reverse()) {
          for (const [name, item] of Object.entries(source)) merged.set(name, item)
        }
        continue
      }
      if (entries.has(named)) fail(`expected different keys, got ${quoted(named)} twice`, place)
      entries.set(named, build(value, place))
    }
    return Object.fromEntries(new Map([...merged, ...entries]))
  }

  function keyOf(key: unknown, place: number): string {
    const node = isAlias(key) ? anchors.get(key.source) : key
    if (node === null || node === undefined) return ''
    if (!isScalar(node)) return fail('expected a text or a number as key, got a collection', place)
    build(key, place)
    return node.type === 'PLAIN' ? (node.source ?? '') : String(node.value)
  }

  function mergeable(value: unknown, place: number): Record<string, unknown>[] {
    const list = Array.isArray(value) ? value : [value]
    const good = list.every((item) => typeof item === 'object' && item !== null && !Array.isArray(item))
    return good
      ? (list as Record<string, unknown>[])
      : fail('expected a mapping or a list of mappings to merge with <<', place)
  }

  return build(document.contents, 0)
}

function startOf(node: unknown, otherwise: number): number {
  return (node as { range?: [number, number, number] | null } | null | undefined)?.range?.[0] ?? otherwise
}
