import { ConfigError } from '../../../base/errors.js'
import { nearest } from '../../../base/words.js'
import type { SalmonnConfiguration } from './configuration.js'

export type Kind = 'text' | 'texts' | 'number' | 'whole' | 'flag' | 'any' | readonly (string | number | boolean)[]

/** What a key takes and what it does; one without effect has a reason instead. */
export type Rule = { kind: Kind; set: (to: SalmonnConfiguration, value: never) => void } | { ignored: string }

export type Sections = Readonly<Record<string, Readonly<Record<string, Rule | Readonly<Record<string, Rule>>>> | Rule>>

/** A rule that puts the value under a name of one of the configuration's parts. */
export const into = <P extends 'model' | 'data' | 'recipe' | 'generation' | 'args'>(
  part: P,
  name: string & keyof SalmonnConfiguration[P],
  kind: Kind,
): Rule => ({
  kind,
  set: (to, value) => {
    ;(to[part] as Record<string, unknown>)[name] = value
  },
})

/**
 * Fills a configuration by its rules. A key without value is as one that is not there.
 * @throws ConfigError for an unknown key, naming the nearest, and for a value of another kind
 */
export function readSections(value: unknown, rules: Sections, file: string): SalmonnConfiguration {
  const to: SalmonnConfiguration = { model: {}, data: {}, recipe: {}, args: {}, generation: {}, ignored: [] }
  fill(value, rules as Nested, to, file, '')
  return to
}

interface Nested {
  [key: string]: Rule | Nested
}

function fill(value: unknown, rules: Nested, to: SalmonnConfiguration, file: string, path: string): void {
  if (value === null || value === undefined) return
  if (typeof value !== 'object' || Array.isArray(value)) {
    throw new ConfigError(`${file}: ${path || 'a configuration'} must hold keys and values`, { file, key: path })
  }
  for (const [key, item] of Object.entries(value)) {
    const name = path === '' ? key : `${path}.${key}`
    const rule = Object.hasOwn(rules, key) ? rules[key] : undefined
    if (rule === undefined) {
      const near = nearest(key, Object.keys(rules))
      const meant = near === undefined ? '' : `; did you mean ${path === '' ? near : `${path}.${near}`}?`
      throw new ConfigError(`${file}: there is no key ${name}${meant}`, { file, key: name })
    }
    if ('ignored' in rule && typeof rule.ignored === 'string') to.ignored.push({ key: name, reason: rule.ignored })
    else if ('set' in rule && typeof rule.set === 'function') {
      if (item !== null && item !== undefined)
        (rule as unknown as { set: Setter }).set(to, checked(item, rule.kind as Kind, file, name))
    } else fill(item, rule as Nested, to, file, name)
  }
}

type Setter = (to: SalmonnConfiguration, value: unknown) => void

function checked(value: unknown, kind: Kind, file: string, key: string): unknown {
  const wrong = (what: string) =>
    new ConfigError(`${file}: ${key} must be ${what}, not ${JSON.stringify(value)}`, { file, key })
  switch (kind) {
    case 'any':
      return value
    case 'text':
      if (typeof value === 'string') return value
      throw wrong('a text')
    case 'texts': {
      const list: unknown[] = Array.isArray(value) ? value : [value]
      if (list.every((item) => typeof item === 'string')) return list
      throw wrong('a text or a list of texts')
    }
    case 'flag':
      if (typeof value === 'boolean') return value
      throw wrong('true or false')
    case 'number':
      if (typeof value === 'number' && Number.isFinite(value)) return value
      throw wrong('a number')
    case 'whole':
      if (Number.isSafeInteger(value) && (value as number) >= 0) return value
      throw wrong('a whole number of at least 0')
    default:
      if (kind.includes(value as string)) return value
      throw wrong(kind.map((word) => JSON.stringify(word)).join(' or '))
  }
}
