// Write index.d.cts next to each declaration of package.json's exports, the declarations for `require` and .cts files. A declaration file for CommonJS may not load
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
  const meant = (/** @type {ts.Symbol} */ symbol) =>
    symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
  const exported = new Set(checker.getExportsOfModule(module).map(meant))

  /** A type parameter; what it extends may be a type that this module does not export. @param {ts.Node} parameter */
  const written = (parameter) => {
    const start = parameter.getStart()
    let text = parameter.getText()
    const visit = (/** @type {ts.Node} */ node) => {
      // From the last to the first, so that positions hold.
      for (const child of node.getChildren().reverse()) visit(child)
      if (!ts.isTypeReferenceNode(node) || !ts.isIdentifier(node.typeName)) return
      const symbol = checker.getSymbolAtLocation(node.typeName)
      const file = symbol && meant(symbol).declarations?.[0]?.getSourceFile()
      if (!file || exported.has(meant(symbol)) || meant(symbol).flags & ts.SymbolFlags.TypeParameter) return
      if (program.isSourceFileDefaultLibrary(file)) return
      const path = relative(dirname(root), file.fileName)
        .replace(/\.d\.ts$/, '.js')
        .replace(/^(?!\.)/, './')
      const at = node.getStart() - start
      text = `${text.slice(0, at)}import('${path}', { with: { ${MODE} } }).${text.slice(at)}`
    }
    visit(parameter)
    return text
  }

  const types = checker.getExportsOfModule(module).flatMap((symbol) => {
    const target = meant(symbol)
    if (!(target.flags & ts.SymbolFlags.Type)) return []
    const parameters = (target.declarations ?? [])
      .map((declaration) => /** @type {ts.ClassDeclaration} */ (declaration).typeParameters)
      .find((found) => found?.length)
    const declared = parameters?.map(written).join(', ')
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
