import { JinjaError, typeError, type Work } from './errors.js'
import type { Interpreter } from './interpreter.js'
import { type CallArguments, isText, Markup, rawText, str, type Value } from './values.js'

export type Filter = (interpreter: Interpreter, value: Value, callArgs: CallArguments) => Value
export type Test = (interpreter: Interpreter, value: Value, callArgs: CallArguments) => boolean

/** Return the values of named parameters in order; undefined for omitted ones. */
export function bound(
  name: string,
  callArgs: CallArguments,
  required: number,
  ...parameters: string[]
): (Value | undefined)[] {
  const { args, kwargs } = callArgs
  if (args.length > parameters.length) {
    throw typeError(`${name}() takes at most ${parameters.length} arguments besides the value, got ${args.length}`)
  }
  for (const key of kwargs.keys()) {
    const at = parameters.indexOf(key)
    if (at === -1) throw typeError(`${name}() got an unexpected keyword argument '${key}'`)
    if (at < args.length) throw typeError(`${name}() got multiple values for argument '${key}'`)
  }
  const values = parameters.map((parameter, i) => (i < args.length ? args[i] : kwargs.get(parameter)))
  for (let i = 0; i < required; i++) {
    if (values[i] === undefined) throw typeError(`${name}() missing 1 required positional argument: '${parameters[i]}'`)
  }
  return values
}

/** jinja2's `soft_str`: escaped text stays escaped. */
export const softText = (value: Value, work: Work): string => (isText(value) ? rawText(value) : str(value, work))

/** Create a filter from text to text. The result of escaped text is escaped text. */
export const textFilter =
  (name: string, use: (text: string, work: Work) => string): Filter =>
  ({ work }, value, callArgs) => {
    bound(name, callArgs, 0)
    const text = softText(value, work)
    work.text(text.length)
    return value instanceof Markup ? new Markup(use(text, work)) : use(text, work)
  }

export const argumentError = (message: string): JinjaError => new JinjaError('FilterArgumentError', message)
