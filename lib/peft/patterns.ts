import { ConfigError } from '../base/errors.js'
import { shortened } from '../base/words.js'
import { withDeadline, withinTime } from '../text/time-limit.js'

/**
 * How long the patterns of one configuration, all of them together, may take with all of a network's paths: adapters' files come from
 * strangers. Hundreds of times what they need, so that a machine with other work to do refuses none.
 */
const LIMIT_MS = 1000

/** Runs work whose patterns share one limit, however many they are. */
export const withinOneLimit = <T>(work: () => T): T => withDeadline(LIMIT_MS, work)

/** Those of the paths that a regular expression matches as a whole. @throws ConfigError for none, and one that takes too long */
export function matches(source: string, paths: readonly string[]): Set<string> {
  return bounded(source, (pattern) => new Set(paths.filter((path) => pattern.test(path))))
}

/** What a named group holds, by the path that the expression matches as a whole. */
export function groups(source: string, group: string, paths: readonly string[]): Map<string, string> {
  return bounded(source, (pattern) => {
    const found = paths.map((path) => [path, pattern.exec(path)?.groups?.[group]] as const)
    return new Map(found.filter((each): each is [string, string] => each[1] !== undefined))
  })
}

/** The value of the first pattern that matches a path or its end, for those that one matches. */
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
      `the pattern '${shortened(source)}' takes too long to match a module's path, with those before it ` +
        `(${(cause as Error).message}); write it without repetitions inside repetitions`,
      { source, cause },
    )
  }
}

/** Python's syntax where JavaScript has another. */
function compile(source: string): RegExp {
  const own = source
    .replace(/\\.|\(\?P</gs, (found) => (found === '(?P<' ? '(?<' : found))
    .replace(/\\.|\(\?P=(\w+)\)/gs, (found, name) => (name === undefined ? found : `\\k<${name}>`))
    .replace(/\\./gs, (found) => (found === '\\A' ? '^' : found === '\\Z' ? '$' : found))
  const [, flags = '', body = ''] = /^(?:\(\?([ims]+)\))?(.*)$/s.exec(own) ?? []
  try {
    return new RegExp(`^(?:${body})$`, flags)
  } catch (cause) {
    throw new ConfigError(`'${shortened(source)}' is no regular expression: ${(cause as Error).message}`, {
      source,
      cause,
    })
  }
}
