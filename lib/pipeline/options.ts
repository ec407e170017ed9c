import { requireRecord } from '../base/arguments.js'
import { shown } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { camelCase } from '../base/words.js'

type SnakeCase<Text extends string> = Text extends `${infer First}${infer Rest}`
  ? `${First extends Lowercase<First> ? First : `_${Lowercase<First>}`}${SnakeCase<Rest>}`
  : Text

/** Options in voxtorch's spelling (`maxNewTokens`) or that of transformers.js (`max_new_tokens`). */
export type EitherCase<Options> = Options & { [Name in keyof Options as SnakeCase<Name & string>]?: Options[Name] }

/** Convert option names to camel case. @throws ConfigError for a value that is not an object, and for an option in both spellings */
export function camelOptions<Options extends object>(where: string, options: EitherCase<Options>): Options {
  requireRecord(where, options)
  const result: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(options)) {
    const name = camelCase(key)
    if (Object.hasOwn(result, name)) {
      throw new ConfigError(
        `${where}.${name}: expected one spelling, got ${shown(name)} and ${shown(key)}. Leave one out.`,
        { key },
      )
    }
    result[name] = value
  }
  return result as Options
}
