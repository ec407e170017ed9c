import { relative } from 'node:path'
import ts from 'typescript'
import { expect, test } from 'vitest'
import * as index from '../../../lib/index.js'
import { checker, examples, program, root, sources } from './program.js'

test('blocks of the README and of docs/, and the examples, type-check', () => {
  const wrong = [...sources.keys(), ...examples].flatMap((name) =>
    ts
      .getPreEmitDiagnostics(program, program.getSourceFile(name))
      .filter(({ file }) => file?.fileName === name)
      .map(
        ({ messageText }) => `${ts.flattenDiagnosticMessageText(messageText, '\n')} in\n${sources.get(name) ?? name}`,
      ),
  )
  expect(wrong).toEqual([])
})

test('the root of the package has fewer than 800 names, types included', () => {
  const module = checker.getSymbolAtLocation(program.getSourceFile(`${root}lib/index.ts`) as ts.SourceFile) as ts.Symbol
  const all = checker.getExportsOfModule(module).map(({ name }) => name)
  expect(all).toEqual(expect.arrayContaining(Object.keys(index)))
  expect(all).toContain('TrainingArguments')
  expect(all.length).toBeLessThan(800)
})

/** The strings of an array expression, through names and spreads; undefined when some are only known when it runs. */
function literals(node: ts.Expression): string[] | undefined {
  if (ts.isAsExpression(node) || ts.isParenthesizedExpression(node) || ts.isSatisfiesExpression(node)) {
    return literals(node.expression)
  }
  if (ts.isIdentifier(node)) {
    const symbol = checker.getSymbolAtLocation(node)
    const aliased = symbol && symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
    const declared = aliased?.valueDeclaration
    return declared && ts.isVariableDeclaration(declared) && declared.initializer
      ? literals(declared.initializer)
      : undefined
  }
  if (!ts.isArrayLiteralExpression(node)) return undefined
  const names: string[] = []
  for (const element of node.elements) {
    const part = ts.isStringLiteral(element)
      ? [element.text]
      : ts.isSpreadElement(element)
        ? literals(element.expression)
        : undefined
    if (!part) return undefined
    names.push(...part)
  }
  return names
}

// An option that a type declares and a list leaves out is refused when it is given, though the call compiles.
test('no option that a type declares is refused', () => {
  const wrong: string[] = []
  let compared = 0
  for (const source of program.getSourceFiles()) {
    if (!source.fileName.startsWith(`${root}lib/`)) continue
    const visit = (node: ts.Node): void => {
      ts.forEachChild(node, visit)
      if (!ts.isCallExpression(node) || !ts.isIdentifier(node.expression)) return
      const [first, second, list] = node.arguments
      const called = node.expression.text
      const options = called === 'requireOptions' ? second : called === 'optionsOf' ? first : undefined
      const names = options && list && literals(list)
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
