import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { describe, expect, it } from 'vitest'
import { functionNames } from '../../lib/native/generated/names.js'
import { operatorDoc, operatorDocs, pageAddress } from '../../scripts/operator-docs.js'
import { camel } from '../../scripts/schemas.js'

// The hover text of operators: each sentence by the rules of a docstring, and above every signature of its operator.

const declarations = fileURLToPath(new URL('../../lib/native/generated/operators.ts', import.meta.url))
const VERBS =
  'Add Apply Average Combine Compare Compute Convert Copy Count Detach Divide Draw Drop Encode Estimate Expand Extract Fill Flatten Gather ' +
  'Insert Integrate Interpolate Invert Join Keep Limit Look Merge Move Multiply Negate Normalize Pad Pick Raise Rearrange Reconstruct Reduce ' +
  'Remove Repeat Replace Resize Return Reverse Rotate Round Sample Scale Set Shift Shrink Solve Sort Split Subtract Sum Swap Take Transpose ' +
  'Undo View Write Zero Change'
const verbs = new Set(VERBS.split(' '))

interface Form {
  comment: string
  /** Names of the parameters, and of the options that may be passed by name. */
  names: Set<string>
}

/** The signatures of the generated declarations by the operator's name in TypeScript. */
function readForms(): Map<string, Form[]> {
  const source = readFileSync(declarations, 'utf8')
  const file = ts.createSourceFile(declarations, source, ts.ScriptTarget.Latest, true)
  const forms = new Map<string, Form[]>()
  const collect = (node: ts.Node, names: Set<string>): void => {
    if ((ts.isParameter(node) || ts.isPropertySignature(node)) && ts.isIdentifier(node.name)) names.add(node.name.text)
    ts.forEachChild(node, (child) => collect(child, names))
  }
  for (const statement of file.statements) {
    if (!ts.isInterfaceDeclaration(statement)) continue
    for (const member of statement.members) {
      if (!ts.isMethodSignature(member)) continue
      const names = new Set<string>()
      collect(member, names)
      const name = member.name.getText(file)
      const [comment] = ts.getLeadingCommentRanges(source, member.pos) ?? []
      forms.set(name, [
        ...(forms.get(name) ?? []),
        { comment: comment ? source.slice(comment.pos, comment.end) : '', names },
      ])
    }
  }
  return forms
}

const forms = readForms()
const documented = functionNames.flatMap(([name, full]) => {
  const operator = full.replace('aten::', '')
  const doc = operatorDoc(operator)
  return doc === undefined ? [] : [{ name, operator, ...doc, isOwn: operatorDocs.has(operator) }]
})

describe('operator docs', () => {
  it('cover at least 300 operators, each of which is in the generated declarations', () => {
    expect(operatorDocs.size).toBeGreaterThanOrEqual(300)
    expect([...operatorDocs.keys()].filter((operator) => !forms.has(camel(operator)))).toEqual([])
  })

  it('are one imperative sentence on one line of at most 160 characters', () => {
    const wrong = documented.filter(
      ({ sentence }) =>
        !verbs.has(sentence.split(' ')[0]!) ||
        !/^[^\n]{1,159}\.$/.test(sentence) ||
        /[.!?] [A-Z]/.test(sentence) ||
        sentence.includes('*/') ||
        sentence.split('`').length % 2 === 0,
    )
    expect(wrong.map(({ operator, sentence }) => `${operator}: ${sentence}`)).toEqual([])
  })

  it('say "in place" for in-place forms, and only for them', () => {
    const wrong = documented.filter(({ operator, sentence }) => operator.endsWith('_') !== / in place\b/.test(sentence))
    expect(wrong.map(({ operator }) => operator)).toEqual([])
    const returning = documented.filter(({ operator, sentence }) => operator.endsWith('_') && /^Return/.test(sentence))
    expect(returning.map(({ operator }) => operator)).toEqual([])
  })

  it('name only parameters, operators and fields of the result', () => {
    const wrong = documented.flatMap(({ name, operator, sentence }) => {
      const known = new Set(['self', ...forms.get(name)!.flatMap((form) => [...form.names])])
      return [...sentence.matchAll(/`(?:(\w+)(?:\[i\])?|\{ ([\w, ]+) \})`/g)]
        .flatMap(([, word, fields]) => (fields ?? word!).split(', '))
        .filter((word) => !known.has(word) && !forms.has(word))
        .map((word) => `${operator}: ${word}`)
    })
    expect(wrong).toEqual([])
  })

  it('link to one page for each operator', () => {
    const form =
      /^https:\/\/docs\.pytorch\.org\/docs\/stable\/(generated\/torch\.(Tensor\.|nn\.functional\.|linalg\.|fft\.)?[a-z]\w*\.html|special\.html(#torch\.special\.[a-z]\w*)?)$/
    expect(documented.map(({ page }) => pageAddress(page)).filter((address) => !form.test(address))).toEqual([])
    const own = documented.filter(({ isOwn }) => isOwn).map(({ page }) => page)
    expect(own.filter((page, i) => own.indexOf(page) !== i)).toEqual([])
    // An in-place form has a page of its own, or that of its operator.
    const derived = documented.filter(({ isOwn }) => !isOwn)
    const wrong = derived.filter(({ operator, page }) => {
      const base = operatorDoc(operator.slice(0, -1))!.page
      return page !== base && page.split('.').at(-1) !== operator
    })
    expect(wrong.map(({ operator, page }) => `${operator}: ${page}`)).toEqual([])
  })

  it('are above every signature of their operator, as a method and as a function', () => {
    const missing = documented.filter(({ name, sentence, page }) =>
      forms.get(name)!.some(({ comment }) => !comment.includes(`* ${sentence} [${page}](${pageAddress(page)})\n`)),
    )
    expect(missing.map(({ name }) => name)).toEqual([])
    expect(documented.length).toBeGreaterThanOrEqual(operatorDocs.size)
  })
})
