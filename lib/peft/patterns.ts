import { ConfigError } from '../base/errors.js'
import { shortened } from '../base/words.js'
import { withDeadline, withinTime } from '../text/time-limit.js'

/**
 * Time limit in ms for all patterns of one configuration on all paths of a network, since adapter files are untrusted. It is
 * hundreds of times what valid patterns need, so that a busy machine rejects none.
 */
const LIMIT_MS = 1000

/** Run work whose patterns share one time limit. */
export const withinOneLimit = <T>(work: () => T): T => withDeadline(LIMIT_MS, work)

/**
 * Return the paths that a regular expression matches in full. @throws ConfigError for an invalid expression, and one that takes
 * too long
 */
export function matches(source: string, paths: readonly string[]): Set<string> {
  return bounded(source, (pattern) => new Set(paths.filter((path) => pattern.test(path))))
}

/** Return the contents of a named group, by the path that the expression matches in full. */
export function groups(source: string, group: string, paths: readonly string[]): Map<string, string> {
  return bounded(source, (pattern) => {
    const found = paths.map((path) => [path, pattern.exec(path)?.groups?.[group]] as const)
    return new Map(found.filter((each): each is [string, string] => each[1] !== undefined))
  })
}

/** Return the value of the first pattern that matches a path or its end, for each path that one matches. */
export function patternValues(patterns: Record<string, number>, paths: readonly string[]): Map<string, number> {
  return withinOneLimit(() => {
    const values = new Map<string, number>()
    for (const [source, value] of Object.entries(patterns)) {
      for (const path of matches(`(.*\\.)?(${source})`, paths)) if (!values.has(path)) values.set(path, value)
    }
    return values
  })
}

function bounded<T>(source: string, use: (pattern: RegExp) => T): T {
  const pattern = compile(source)
  try {
    return withinTime(LIMIT_MS, () => use(pattern))
  } catch (cause) {
    throw new ConfigError(
      `LoraConfig: expected patterns that match quickly, got '${shortened(source)}', which with those before it takes too long on the modules' paths ` +
        `(${(cause as Error).message}). Write it without nested repetitions`,
      { source, cause },
    )
  }
}

/** Compile a pattern, converting Python's syntax where JavaScript's differs. */
function compile(source: string): RegExp {
  const converted = source
    .replace(/\\.|\(\?P</gs, (found) => (found === '(?P<' ? '(?<' : found))
    .replace(/\\.|\(\?P=(\w+)\)/gs, (found, name) => (name === undefined ? found : `\\k<${name}>`))
    .replace(/\\./gs, (found) => (found === '\\A' ? '^' : found === '\\Z' ? '$' : found))
  const [, flags = '', body = ''] = /^(?:\(\?([ims]+)\))?(.*)$/s.exec(converted) ?? []
  try {
    return new RegExp(`^(?:${body})$`, flags)
  } catch (cause) {
    throw new ConfigError(
      `LoraConfig: expected a regular expression, got '${shortened(source)}': ${(cause as Error).message}`,
      {
        source,
        cause,
      },
    )
  }
}
