// A plugin of typedoc. A class's page has the class's own members: those that it inherits are on the page of the class that it extends.
// An interface's page lists all members, also inherited ones. Types that exported ones refer to have pages, exported or not.
// What looks like a tag in a comment is text. An option from a table of settings has its default, and its help if it has no comment.
import { Comment, Context, Converter, ReflectionKind } from 'typedoc'
import ts from 'typescript'

/** Return the text of a property of an object literal. @param {ts.Node | undefined} literal @param {string} name */
function textOf(literal, name) {
  if (literal === undefined || !ts.isObjectLiteralExpression(literal)) return undefined
  const property = literal.properties.find((one) => one.name?.getText() === name)
  return property && ts.isPropertyAssignment(property) ? property.initializer.getText().replace(/\s+/g, ' ') : undefined
}

/**
 * Symbols that the converted declarations refer to, each with the module that first refers to it.
 * @type {Map<ts.Symbol, { module: import('typedoc').Reflection, program: ts.Program }>}
 */
const referenced = new Map()
const createSymbolReference = Context.prototype.createSymbolReference
Context.prototype.createSymbolReference = function (symbol, context, name) {
  if (isOurs(symbol) && !referenced.has(symbol)) {
    referenced.set(symbol, { module: moduleOf(context.scope), program: context.program })
  }
  return createSymbolReference.call(this, symbol, context, name)
}

/** Return whether a symbol is an interface of our own sources, or an alias that does not compute a type. @param {ts.Symbol} symbol */
function isOurs({ declarations: [first] = [] }) {
  if (first === undefined) return false
  const { fileName } = first.getSourceFile()
  if (!fileName.includes('/lib/') || fileName.includes('/node_modules/')) return false
  if (ts.isInterfaceDeclaration(first)) return true
  return ts.isTypeAliasDeclaration(first) && !ts.isConditionalTypeNode(first.type) && !ts.isMappedTypeNode(first.type)
}

/** Return the entry point that has a declaration. @param {import('typedoc').Reflection} declaration */
function moduleOf(declaration) {
  let scope = declaration
  while (scope.parent !== undefined && !scope.parent.isProject()) scope = scope.parent
  return scope
}

/** @param {import('typedoc').Application} app */
export function load(app) {
  // Before the plugin of comments, which removes internal declarations.
  app.converter.on(
    Converter.EVENT_RESOLVE_BEGIN,
    (context) => {
      // The loop also visits entries that it adds itself: the types of the types.
      for (const [symbol, { module, program }] of referenced) {
        if (context.getReflectionFromSymbol(symbol)) continue
        const inner = context.withScope(module)
        inner.setActiveProgram(program)
        inner.converter.convertSymbol(inner, symbol)
      }
      referenced.clear()
    },
    1_000_000,
  )
  app.converter.on(Converter.EVENT_CREATE_DECLARATION, (context, reflection) => {
    const setting = context.getSymbolFromReflection(reflection)?.declarations?.[0]
    if (!setting || !ts.isPropertyAssignment(setting) || textOf(setting.initializer, 'type') === undefined) return
    const help = textOf(setting.initializer, 'help')?.slice(1, -1)
    const value = textOf(setting.initializer, 'defaultText')?.slice(1, -1) ?? textOf(setting.initializer, 'default')
    reflection.comment ??= new Comment(
      help ? [{ kind: 'text', text: `${help.charAt(0).toUpperCase()}${help.slice(1)}.` }] : [],
    )
    if (value && !reflection.comment.summary.some(({ text }) => /\bdefault\b/i.test(text)))
      reflection.comment.summary.push({ kind: 'text', text: ' Default ' }, { kind: 'code', text: `\`${value}\`` })
  })
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    for (const member of project.getReflectionsByKind(ReflectionKind.ClassMember)) {
      if (member.flags.isInherited && member.parent?.kindOf(ReflectionKind.Class)) project.removeReflection(member)
    }
    for (const { comment } of Object.values(project.reflections)) {
      for (const part of [
        ...(comment?.summary ?? []),
        ...(comment?.blockTags ?? []).flatMap(({ content }) => content),
      ]) {
        if (part.kind === 'text') part.text = part.text.replaceAll('<', '&lt;').replaceAll('{{', '&#123;&#123;')
      }
    }
  })
}
