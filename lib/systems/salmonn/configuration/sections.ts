import { z } from 'zod'
import { shown } from '../../../base/arguments.js'
import { ConfigError } from '../../../base/errors.js'
import { nearest } from '../../../base/words.js'
import type { SalmonnConfiguration } from './configuration.js'
import type { Kind, Rule, Sections } from './rules.js'

const WHOLE = 'an integer of at least 0'

const schemas: Record<Kind & string, z.ZodType> = {
  any: z.unknown(),
  text: z.string('a string'),
  texts: z.union([z.string().transform((one) => [one]), z.array(z.string())], 'a string or a list of strings'),
  flag: z.boolean('true or false'),
  number: z.number('a number'),
  whole: z.int(WHOLE).min(0, WHOLE),
}

interface Nested {
  [key: string]: Rule | Nested
}

const isIgnored = (rule: Rule | Nested): rule is { ignored: string } =>
  'ignored' in rule && typeof rule.ignored === 'string'
const isRule = (rule: Rule | Nested): rule is Rule & { kind: Kind } => 'set' in rule && typeof rule.set === 'function'

/** Return the schema of a key. An empty value counts as unset. */
function schemaOf(rule: Rule | Nested): z.ZodType {
  if (isIgnored(rule)) return z.unknown().optional()
  if (!isRule(rule)) {
    const shape = Object.fromEntries(Object.entries(rule).map(([key, inner]) => [key, schemaOf(inner)]))
    return z.strictObject(shape, { error: ({ code }) => (code === 'invalid_type' ? KEYS : undefined) }).nullish()
  }
  const { kind } = rule
  if (typeof kind === 'string') return schemas[kind].nullish()
  return z.literal([...kind], `${kind.map((word) => JSON.stringify(word)).join(' or ')}`).nullish()
}

const KEYS = 'keys and values'

/**
 * Convert a parsed file to a configuration by its rules.
 * @throws ConfigError for an unknown key, naming the nearest, and for a value of the wrong type
 */
export function readSections(value: unknown, rules: Sections, file: string): SalmonnConfiguration {
  const { data, error } = schemaOf(rules as Nested).safeParse(value)
  if (error) throw faultOf(error.issues[0] as z.core.$ZodIssue, value, rules as Nested, file)
  const to: SalmonnConfiguration = { model: {}, data: {}, recipe: {}, args: {}, generation: {}, ignored: [] }
  fill(data as Values, rules as Nested, to, '')
  return to
}

type Values = Readonly<Record<string, unknown>>

function fill(values: Values, rules: Nested, to: SalmonnConfiguration, path: string): void {
  for (const [key, value] of Object.entries(values)) {
    const rule = rules[key] as Rule | Nested
    if (isIgnored(rule)) to.ignored.push({ key: path + key, reason: rule.ignored })
    else if (value === null || value === undefined) continue
    else if (isRule(rule)) rule.set(to, value as never)
    else fill(value as Values, rule, to, `${path}${key}.`)
  }
}

function faultOf(issue: z.core.$ZodIssue, value: unknown, rules: Nested, file: string): ConfigError {
  const inside = <T>(whole: T) => issue.path.reduce((part, key) => (part as Values)[key as string] as T, whole)
  const path = issue.path.join('.')
  if (issue.code === 'unrecognized_keys') {
    const [key = ''] = issue.keys
    const [name, near] = [key, nearest(key, Object.keys(inside<Rule | Nested>(rules)))].map(
      (word) => word && (path === '' ? word : `${path}.${word}`),
    )
    const meant = near === undefined ? '' : ` Did you mean ${near}?`
    return new ConfigError(`${file}: expected a known key, got ${name}.${meant}`, { file, key: name })
  }
  const got = issue.message === KEYS ? '' : `, got ${shown(inside(value))}`
  return new ConfigError(`${file}: expected ${path || 'the configuration'} to be ${issue.message}${got}.`, {
    file,
    key: path,
  })
}
