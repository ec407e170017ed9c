import { ConfigError } from '../base/errors.js'
import { shortened } from '../base/words.js'
import { withDeadline, withinTime } from '../text/time-limit.js'
import { BadPattern, LinearPattern, NotLinear } from './linear-match.js'

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

/** Steps of all keys with all paths: hundreds of times what an adapter with a key for each layer of a large network needs. */
const MOST_WORK = 200_000_000

/**
 * Return the value of the first key that matches a path or its end after a dot, for each path that one matches, as peft's
 * `get_pattern_key` does by `re.match(rf"(.*\.)?({key})$", path)`. The keys are untrusted, so matching takes linear time.
 * @param where the option that has the keys
 * @throws ConfigError for a key that is not a regular expression, or cannot be matched in linear time
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
      if (!(cause instanceof BadPattern || cause instanceof NotLinear)) throw cause
      const isBad = cause instanceof BadPattern
      throw new ConfigError(
        `${where}: expected regular expressions ${isBad ? '' : 'that are matched in linear time '}as keys, got '${shortened(key)}' ` +
          `(${cause.message}). ${isBad ? 'Correct the key.' : 'Write it without lookbehind and back references, or name the modules.'}`,
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
