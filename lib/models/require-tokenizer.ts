import { ConfigError } from '../base/errors.js'

/** Return the tokenizer of a model. @throws ConfigError for a model without one */
export function requireTokenizer<T>(where: string, tokenizer: T | null, kind = 'Tokenizer'): T {
  if (tokenizer !== null) return tokenizer
  throw new ConfigError(
    `${where}: tokenizer: expected a ${kind}, got null. Set model.tokenizer = await ${kind}.fromPretrained(…).`,
    {},
  )
}
