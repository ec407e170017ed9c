import { ConfigError } from '../base/errors.js'
import { shortened } from '../base/words.js'
import { withDeadline, withinTime } from '../text/time-limit.js'
import { BadPattern, LinearPattern, NotLinear } from './linear-match.js'

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

/** Steps of all keys with all paths: hundreds of times what an adapter with a key for each layer of a large network needs. */
const MOST_WORK = 200_000_000

/**
 * Return the value of the first key that matches a path or its end behind a dot, for those that one matches, as peft's
 * `get_pattern_key` does by `re.match(rf"(.*\.)?({key})$", path)`. The keys come from strangers: matching takes linear time.
 * @param where the option that has the keys
 * @throws ConfigError for a key that is no regular expression, or has no form that is matched in linear time
 */
export function patternValues(
  where: string,
  patterns: Record<string, number>,
  paths: readonly string[],
): Map<string, number> {
  const values = new Map<string, number>()
  const work = { left: MOST_WORK }
  for (const [key, value] of Object.entries(patterns)) {
    try {
      const pattern = new LinearPattern(key)
      for (const path of paths) if (!values.has(path) && pattern.matchesEnd(path, work)) values.set(path, value)
    } catch (cause) {
      const isBad = cause instanceof BadPattern
      if (!isBad && !(cause instanceof NotLinear)) throw cause
      throw new ConfigError(
        `${where}: expected regular expressions ${isBad ? '' : 'that are matched in linear time '}as keys, got '${shortened(key)}' ` +
          `(${cause.message}). ${isBad ? 'Correct the key.' : 'Write it without look-behind and back references, or name the modules.'}`,
        { argument: where, key, cause },
      )
    }
  }
  return values
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
