import type { ScalarTag } from 'yaml'

/**
 * Meaning of plain scalars: the resolver of YAML 1.1 as in PyYAML, with OmegaConf's two changes (a number may have an exponent
 * without a decimal point, dates stay texts), and the few numbers that only YAML 1.2 has (`0o17`, `-.5`, `.5e3`).
 */

const NULL = /^(?:~|null|Null|NULL|)$/
const TRUE = /^(?:yes|Yes|YES|true|True|TRUE|on|On|ON)$/
const FALSE = /^(?:no|No|NO|false|False|FALSE|off|Off|OFF)$/
const WHOLE = /^[-+]?(?:0b[01_]+|0o[0-7]+|0[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*(?::[0-5]?[0-9])*)$/
const POINT =
  /^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*)$/
const INFINITE = /^([-+]?)\.(?:inf|Inf|INF)$/
const NAN = /^\.(?:nan|NaN|NAN)$/

/** Creating a bigint takes more than linear time; Python has the same limit. */
const MAX_DIGITS = 4300

type Value = string | number | bigint | boolean | null

/** Tags of scalars, such as `!!int "7"`. */
export const scalarTags: ScalarTag[] = (
  [
    ['int', (value) => (typeof value === 'bigint' || Number.isInteger(value) ? value : undefined)],
    ['float', (value) => (typeof value === 'number' || typeof value === 'bigint' ? Number(value) : undefined)],
    ['bool', (value) => (typeof value === 'boolean' ? value : undefined)],
    ['null', (value) => (value === null ? value : undefined)],
  ] as [string, (value: Value | undefined) => Value | undefined][]
).map(([name, read]) => ({
  tag: `tag:yaml.org,2002:${name}`,
  resolve: (source, onError) => {
    const value = read(plainScalar(source))
    return value === undefined ? onError(`expected a value of type !!${name}`) : value
  },
}))

/** Return the value; undefined for an integer that is too long. */
export function plainScalar(source: string): Value | undefined {
  if (NULL.test(source)) return null
  if (TRUE.test(source)) return true
  if (FALSE.test(source)) return false
  if (WHOLE.test(source)) return source.length > MAX_DIGITS ? undefined : whole(source)
  if (POINT.test(source)) return pointed(source)
  const infinite = INFINITE.exec(source)
  if (infinite) return infinite[1] === '-' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY
  return NAN.test(source) ? Number.NaN : source
}

function whole(source: string): number | bigint | string {
  const negative = source.startsWith('-')
  const digits = source.replace(/^[-+]/, '').replaceAll('_', '')
  // Underscores alone are a text.
  if (/^0[bx]?$/.test(digits) && digits !== '0') return source
  const size = /^0[0-7]+$/.test(digits)
    ? BigInt(`0o${digits.slice(1)}`)
    : digits.split(':').reduce((sum, part) => sum * 60n + BigInt(part), 0n)
  const value = negative ? -size : size
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value
}

function pointed(source: string): number {
  const sign = source.startsWith('-') ? -1 : 1
  const digits = source.replace(/^[-+]/, '').replaceAll('_', '')
  return sign * digits.split(':').reduce((sum, part) => sum * 60 + Number(part), 0)
}
