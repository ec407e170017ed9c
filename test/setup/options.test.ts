import { relative } from 'node:path'
import ts from 'typescript'
import { expect, test } from 'vitest'

// An option that a type declares and a list leaves out is refused when it is given, though the call compiles.

const root = new URL('../../', import.meta.url).pathname

function program(): ts.Program {
  const host = { ...ts.sys, onUnRecoverableConfigFileDiagnostic() {} }
  const config = ts.getParsedCommandLineOfConfigFile(`${root}tsconfig.json`, {}, host)!
  const files = config.fileNames.filter((file) => file.startsWith(`${root}lib/`))
  return ts.createProgram(files, config.options)
}

/** The strings of an array expression, through names and spreads; undefined when some are only known when it runs. */
function literals(checker: ts.TypeChecker, node: ts.Expression): string[] | undefined {
  if (ts.isAsExpression(node) || ts.isParenthesizedExpression(node) || ts.isSatisfiesExpression(node)) {
    return literals(checker, node.expression)
  }
  if (ts.isIdentifier(node)) {
    const symbol = checker.getSymbolAtLocation(node)
    const aliased = symbol && symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
    const declared = aliased?.valueDeclaration
    return declared && ts.isVariableDeclaration(declared) && declared.initializer
      ? literals(checker, declared.initializer)
      : undefined
  }
  if (!ts.isArrayLiteralExpression(node)) return undefined
  const names: string[] = []
  for (const element of node.elements) {
    const part = ts.isStringLiteral(element)
      ? [element.text]
      : ts.isSpreadElement(element)
        ? literals(checker, element.expression)
        : undefined
    if (!part) return undefined
    names.push(...part)
  }
  return names
}

test('no option that a type declares is refused', { timeout: 600_000 }, () => {
  const all = program()
  const checker = all.getTypeChecker()
  const wrong: string[] = []
  let compared = 0
  for (const source of all.getSourceFiles()) {
    if (!source.fileName.startsWith(`${root}lib/`)) continue
    const visit = (node: ts.Node): void => {
      ts.forEachChild(node, visit)
      if (!ts.isCallExpression(node) || !ts.isIdentifier(node.expression)) return
      const [first, second, list] = node.arguments
      const called = node.expression.text
      const options = called === 'requireOptions' ? second : called === 'optionsOf' ? first : undefined
      const names = options && list && literals(checker, list)
      if (!names) return
      const type = checker.getNonNullableType(checker.getTypeAtLocation(options))
      const members = type.isUnion() ? type.types : [type]
      const declared = new Set(members.flatMap((member) => checker.getPropertiesOfType(member)).map(({ name }) => name))
      compared += 1
      const refused = [...declared].filter((name) => !names.includes(name))
      if (refused.length === 0) return
      const { line } = source.getLineAndCharacterOfPosition(node.getStart())
      wrong.push(`${relative(root, source.fileName)}:${line + 1} refuses ${refused}`)
    }
    visit(source)
  }
  expect(wrong).toEqual([])
  expect(compared).toBeGreaterThan(150)
})
