import * as jinja from '@huggingface/jinja'
import * as tokenizers from '@huggingface/tokenizers'

// The declarations of both packages import each other without file extensions, which Node's resolution of types does not
// follow. What is used of them is declared here.

interface JinjaEnvironment {
  set(name: string, value: unknown): JinjaValue
}

export interface JinjaValue {
  type: string
  value: unknown
}

export interface JinjaStatement {
  type: string
  /** Of a BinaryExpression. */
  operator?: { value: string }
  left?: JinjaStatement
  right?: JinjaStatement
  /** Of an Identifier: its name. */
  value?: string
  /** Of a CallExpression. */
  callee?: JinjaStatement
  /** Of a For. */
  body?: readonly JinjaStatement[]
}

interface JinjaInterpreter {
  run(program: unknown): JinjaValue
  evaluate(statement: JinjaStatement | undefined, environment: JinjaEnvironment): JinjaValue
  evaluateBlock(statements: readonly JinjaStatement[], environment: JinjaEnvironment): JinjaValue
  applyFilter(operand: JinjaValue, filter: JinjaStatement, environment: JinjaEnvironment): JinjaValue
  evaluateFor(loop: JinjaStatement, environment: JinjaEnvironment): JinjaValue
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
