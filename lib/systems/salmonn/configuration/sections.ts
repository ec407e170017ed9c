import { shown } from '../../../base/arguments.js'
import { ConfigError } from '../../../base/errors.js'
import { checkSetting } from '../../../base/settings.js'
import { nearest, shortened } from '../../../base/words.js'
import type { SalmonnConfiguration } from './configuration.js'
import type { Rule, Sections } from './rules.js'

const isIgnored = (rule: Sections[string]): rule is { ignored: string } =>
  'ignored' in rule && typeof rule.ignored === 'string'
const isRule = (rule: Sections[string]): rule is Rule => 'set' in rule && typeof rule.set === 'function'

/**
 * Convert a parsed file to a configuration by its rules. An empty value counts as unset.
 * @throws ConfigError for an unknown key, naming the nearest, and for a value of the wrong type
 */
export function readSections(value: unknown, rules: Sections, file: string): SalmonnConfiguration {
  const to: SalmonnConfiguration = { model: {}, data: {}, recipe: {}, args: {}, generation: {}, ignored: [] }
  fill(value, rules, to, file, '')
  return to
}

function fill(values: unknown, rules: Sections, to: SalmonnConfiguration, file: string, path: string): void {
  const place = path.slice(0, -1)
  if (typeof values !== 'object' || values === null || Array.isArray(values)) {
    const section = place === '' ? 'the configuration' : place
    throw new ConfigError(`${file}: expected ${section} to be keys and values, got ${shown(values)}.`, {
      ...{ file, key: place },
    })
  }
  for (const [key, value] of Object.entries(values) as [string, unknown][]) {
    const rule = Object.hasOwn(rules, key) ? rules[key] : undefined
    const name = path + key
    if (rule === undefined) {
      const near = nearest(key, Object.keys(rules))
      const hint = near === undefined ? '' : ` Did you mean ${path}${near}?`
      throw new ConfigError(`${file}: expected a known key, got ${shortened(name)}.${hint}`, { file, key: name })
    }
    if (isIgnored(rule)) to.ignored.push({ key: name, reason: rule.ignored })
    else if (value === null || value === undefined) continue
    else if (isRule(rule)) rule.set(to, checked(file, name, value, rule) as never)
    else fill(value, rule, to, file, `${name}.`)
  }
}

/** Check a value of a file, where one string stands for a list of it. */
function checked(file: string, name: string, value: unknown, rule: Rule): unknown {
  const checkedValue = rule.type === 'strings' && typeof value === 'string' ? [value] : value
  checkSetting(file, name, checkedValue, rule)
  return checkedValue
}
