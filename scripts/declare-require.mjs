// Writes index.d.cts beside each declaration of package.json's exports, the declarations that `require` and .cts files get. A declaration file for CommonJS may not load
// one of an ES module, but for its types: each export is named here once more, with the same identity.
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const dist = fileURLToPath(new URL('../dist/', import.meta.url))
const MODE = "'resolution-mode': 'import'"

export function declareRequire() {
  const { exports } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
  const roots = Object.values(exports).flatMap(({ types }) => (types ? [types.replace(/^\.\/dist\//, dist)] : []))
  const { NodeNext } = ts.ModuleKind
  const program = ts.createProgram(roots, { module: NodeNext, target: ts.ScriptTarget.ES2022, skipLibCheck: true })
  for (const root of roots) declare(program, root)
}

/** @param {ts.Program} program @param {string} root */
function declare(program, root) {
  const checker = program.getTypeChecker()
  const source = program.getSourceFile(root)
  const module = source && checker.getSymbolAtLocation(source)
  if (!module) throw new Error(`${root} has no exports: compile first`)
  const all = checker.getExportsOfModule(module)
  const own = new Set(all.map(({ name }) => name))
  const types = all.flatMap((symbol) => {
    const target = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
    if (!(target.flags & ts.SymbolFlags.Type)) return []
    const parameters = (target.declarations ?? [])
      .map((declaration) => /** @type {ts.ClassDeclaration} */ (declaration).typeParameters)
      .find((found) => found?.length)
    const declared = parameters?.map((parameter) => namedFrom(checker, own, root, parameter)).join(', ')
    const names = parameters?.map((parameter) => parameter.name.text).join(', ')
    return parameters
      ? `  export type ${symbol.name}<${declared}> = voxtorch_.${symbol.name}<${names}>`
      : `  export type ${symbol.name} = voxtorch_.${symbol.name}`
  })
  writeFileSync(
    root.replace(/\.d\.ts$/, '.d.cts'),
    `import type * as voxtorch_ from './index.js' with { ${MODE} }
declare const voxtorch: typeof import('./index.js', { with: { ${MODE} } })
declare namespace voxtorch {
${types.join('\n')}
}
export = voxtorch
`,
  )
}

/**
 * A type parameter's text in which a type that the entry has not itself is imported from where it is declared.
 * @param {ts.TypeChecker} checker @param {Set<string>} own @param {string} root @param {ts.TypeParameterDeclaration} parameter
 */
function namedFrom(checker, own, root, parameter) {
  const start = parameter.getStart()
  let text = parameter.getText()
  /** @type {[number, number, string][]} */
  const places = []
  const visit = (/** @type {ts.Node} */ node) => {
    ts.forEachChild(node, visit)
    if (!ts.isTypeReferenceNode(node) || !ts.isIdentifier(node.typeName)) return
    const { text: name } = node.typeName
    const local = checker.getSymbolAtLocation(node.typeName)
    const symbol = local && local.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(local) : local
    const file = symbol?.declarations?.[0]?.getSourceFile().fileName
    if (!symbol || !file?.startsWith(dist) || own.has(symbol.name)) return
    if (symbol.flags & ts.SymbolFlags.TypeParameter) return
    const path = relative(dirname(root), file).replace(/\.d\.ts$/, '.js')
    const from = `import('${path.startsWith('.') ? path : `./${path}`}', { with: { ${MODE} } }).${symbol.name}`
    places.push([node.typeName.getStart() - start, name.length, from])
  }
  visit(parameter)
  for (const [at, length, from] of places.sort((a, b) => b[0] - a[0]))
    text = text.slice(0, at) + from + text.slice(at + length)
  return text
}
