// A plugin of typedoc. A class's page has the class's own members: what it inherits stands on the page of what it extends.
// What looks like a tag in a comment is text. An option from a table of settings has its default, and its help if it has no comment.
import { Comment, Converter, ReflectionKind } from 'typedoc'
import ts from 'typescript'

/** Return the text of a property of an object literal. @param {ts.Node | undefined} literal @param {string} name */
function textOf(literal, name) {
  if (literal === undefined || !ts.isObjectLiteralExpression(literal)) return undefined
  const property = literal.properties.find((one) => one.name?.getText() === name)
  return property && ts.isPropertyAssignment(property) ? property.initializer.getText().replace(/\s+/g, ' ') : undefined
}

/** @param {import('typedoc').Application} app */
export function load(app) {
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
      if (member.flags.isInherited) project.removeReflection(member)
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
