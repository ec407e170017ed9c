import * as jinja from '@huggingface/jinja'
import * as tokenizers from '@huggingface/tokenizers'

// The declarations of both packages import each other without file extensions, which Node's resolution of types does not
// follow. What is used of them is declared here.

interface JinjaEnvironment {
  set(name: string, value: unknown): unknown
}

export interface JinjaValue {
  type: string
  value: unknown
}

interface JinjaInterpreter {
  run(program: unknown): JinjaValue
  evaluate(statement: unknown, environment: JinjaEnvironment): JinjaValue
}

interface Jinja {
  Environment: new () => JinjaEnvironment
  Interpreter: new (environment: JinjaEnvironment) => JinjaInterpreter
  tokenize(template: string, options: { lstrip_blocks?: boolean; trim_blocks?: boolean }): unknown
  parse(tokens: unknown): unknown
}

export type Environment = JinjaEnvironment
export const { Environment, Interpreter, tokenize, parse } = jinja as unknown as Jinja

interface Split {
  pattern: unknown
}

export const { SplitPreTokenizer } = tokenizers as unknown as { SplitPreTokenizer: new (config: object) => Split }
