import { argumentError } from './check.js'
import type { ConfigError } from './errors.js'
import { withArticle } from './words.js'

// biome-ignore lint/suspicious/noExplicitAny: any constructor.
type Class = abstract new (...args: any[]) => unknown

/**
 * Expected type of an external value: the name of a type; a class; `[form]`, a list of that form; or an object with these
 * fields. A field whose name ends in `?` may be left out or null. Other fields are ignored.
 */
export type Form =
  | 'string'
  | 'number'
  | 'boolean'
  | 'function'
  | 'object'
  | 'list'
  | 'iterable'
  | Class
  | readonly [Form]
  | { readonly [field: string]: Form }

/** Check the form of a value. @throws ConfigError that names the field, such as `dialog.turns[2].text` */
export function requireForm(where: string, argument: string, value: unknown, form: Form): void {
  const wrong = mismatch(where, argument, value, form)
  if (wrong) throw wrong
}

function mismatch(where: string, place: string, value: unknown, form: Form): ConfigError | undefined {
  const unless = (good: boolean, expected: string) => (good ? undefined : argumentError(where, place, expected, value))
  if (typeof form === 'function') return unless(value instanceof form, withArticle(form.name))
  if (form === 'object') return unless(isObject(value), 'an object')
  if (form === 'list') return unless(Array.isArray(value), 'a list')
  if (form === 'iterable') {
    const iterable = isObject(value) && typeof Reflect.get(value, Symbol.iterator) === 'function'
    return unless(iterable, 'iterable')
  }
  if (typeof form === 'string') return unless(typeof value === form, withArticle(form))
  if (Array.isArray(form)) {
    if (!Array.isArray(value)) return unless(false, 'a list')
    for (let i = 0; i < value.length; i++) {
      const wrong = mismatch(where, `${place}[${i}]`, value[i], form[0] as Form)
      if (wrong) return wrong
    }
    return undefined
  }
  if (!isObject(value)) return unless(false, 'an object')
  for (const [field, inner] of Object.entries(form as { [field: string]: Form })) {
    const name = field.replace(/\?$/, '')
    const part: unknown = Reflect.get(value, name)
    if (field.endsWith('?') && (part === undefined || part === null)) continue
    const wrong = mismatch(where, `${place}.${name}`, part, inner)
    if (wrong) return wrong
  }
  return undefined
}

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null
