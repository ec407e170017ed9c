// A plugin of typedoc. A class's page has the class's own members: what it inherits stands on the page of what it extends.
// What looks like a tag in a comment is text.
import { Converter, ReflectionKind } from 'typedoc'

/** @param {import('typedoc').Application} app */
export function load(app) {
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
