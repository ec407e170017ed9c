import { ConfigError, DataError, VoxtorchError } from '../base/errors.js'
import { JinjaError, LIMITS, limit } from './jinja/errors.js'
import { filters } from './jinja/filters.js'
import { type Generated, Interpreter } from './jinja/interpreter.js'
import type { Template } from './jinja/nodes.js'
import { parse } from './jinja/parser.js'
import { tests } from './jinja/tests.js'

/** A rendered conversation. */
export interface Rendered {
  text: string
  /** Range of the text of each `{% generation %}` block. */
  generated: Generated
}

/**
 * Render a Jinja template in the environment of transformers' chat templates: jinja2's ImmutableSandboxedEnvironment with
 * `trim_blocks` and `lstrip_blocks`, loop controls, `{% generation %}`, `tojson`, `raise_exception` and `strftime_now`.
 *
 * @param now time of `strftime_now`
 * @throws ConfigError with the message of `raise_exception`; DataError with line and column for a template that is invalid, fails,
 *   uses unsupported features, or exceeds a limit
 */
export function renderTemplate(
  template: string,
  variables: Readonly<Record<string, unknown>>,
  now?: () => Date,
): Rendered {
  try {
    const interpreter = new Interpreter(parsed(template), variables, now)
    return { text: interpreter.run(), generated: interpreter.generated }
  } catch (error) {
    throw translated(error)
  }
}

const MAX_KEPT = 8
const MAX_KEPT_LENGTH = 1 << 16
const kept = new Map<string, Template>()

/** Parse a template, with a cache because conversations are rendered again for each turn. */
function parsed(source: string): Template {
  if (source.length > LIMITS.template) {
    throw limit(`has ${source.length} characters, more than the limit of ${LIMITS.template}`)
  }
  let template = kept.get(source)
  if (template !== undefined) return template
  template = parse(source, { filters, tests })
  if (source.length <= MAX_KEPT_LENGTH) {
    if (kept.size >= MAX_KEPT) kept.delete(kept.keys().next().value!)
    kept.set(source, template)
  }
  return template
}

function translated(error: unknown): VoxtorchError {
  if (error instanceof VoxtorchError) return error
  if (!(error instanceof JinjaError)) {
    // Values that are nested deeper than the stack.
    const what = error instanceof RangeError ? 'nests too deep' : `fails: ${(error as Error).message}`
    return new DataError(`the chat template ${what}`, { cause: error })
  }
  const { kind, message, line, column, reason } = error
  if (kind === 'TemplateError') {
    return new ConfigError(`the chat template rejected the messages: ${message}`, { reason })
  }
  const place = line === undefined ? '' : `, line ${line}, column ${column}`
  const what = kind === 'Limit' ? `the template ${message}` : kind === 'Unsupported' ? message : `${kind}: ${message}`
  return new DataError(`chat template${place}: ${what}`, { line, column, kind })
}
