import { withoutEnd } from '../../base/words.js'
import { JinjaError, LIMITS, limit, typeError, unsupported } from './errors.js'
import { digitValue, trimEnd, trimStart } from './unicode.js'

type Real = bigint | number

/** Python's `repr` of a float. */
export function floatText(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf'
  if (Object.is(value, -0)) return '-0.0'
  const [digits, exponent] = shortest(value)
  const sign = value < 0 ? '-' : ''
  if (exponent < -4 || exponent >= 16) return sign + scientific(digits, exponent)
  const text = positional(digits, exponent)
  return sign + (text.includes('.') ? text : `${text}.0`)
}

/** Return the shortest decimal digits that identify a float, and the exponent of the first. */
function shortest(value: number): [string, number] {
  const [mantissa, exponent] = Math.abs(value).toExponential().split('e')
  return [mantissa!.replace('.', ''), Number(exponent)]
}

function positional(digits: string, exponent: number): string {
  if (exponent < 0) return `0.${'0'.repeat(-exponent - 1)}${digits}`
  if (digits.length <= exponent + 1) return digits + '0'.repeat(exponent + 1 - digits.length)
  return `${digits.slice(0, exponent + 1)}.${digits.slice(exponent + 1)}`
}

function scientific(digits: string, exponent: number, letter = 'e'): string {
  const fraction = digits.length > 1 ? `.${digits.slice(1)}` : ''
  const size = String(Math.abs(exponent)).padStart(2, '0')
  return `${digits[0]}${fraction}${letter}${exponent < 0 ? '-' : '+'}${size}`
}

const view = new DataView(new ArrayBuffer(8))

/** Return a finite float of at least 0 as `numerator · 2^exponent`. */
function binary(value: number): [bigint, number] {
  view.setFloat64(0, value)
  const bits = view.getBigUint64(0)
  const exponent = Number((bits >> 52n) & 0x7ffn)
  const fraction = bits & ((1n << 52n) - 1n)
  return exponent === 0 ? [fraction, -1074] : [fraction | (1n << 52n), exponent - 1075]
}

function divideEven(numerator: bigint, denominator: bigint): bigint {
  const quotient = numerator / denominator
  const twice = (numerator % denominator) * 2n
  return twice > denominator || (twice === denominator && quotient & 1n) ? quotient + 1n : quotient
}

/** Multiply a float of at least 0 by a power of ten and round to the nearest integer, ties to even. */
function scaled(value: number, power: number): bigint {
  const [mantissa, exponent] = binary(value)
  let numerator = mantissa
  let denominator = 1n
  if (exponent > 0) numerator <<= BigInt(exponent)
  else denominator <<= BigInt(-exponent)
  if (power > 0) numerator *= 10n ** BigInt(power)
  else denominator *= 10n ** BigInt(-power)
  return divideEven(numerator, denominator)
}

// A float has at most 1,074 digits after the point, and 309 before it; further ones are zeros.
const MAX_PRECISION = 1100

/** Format a finite float of at least 0 with that many digits after the point. */
export function fixed(value: number, precision: number): string {
  const exact = Math.min(precision, MAX_PRECISION)
  const digits = scaled(value, exact)
    .toString()
    .padStart(exact + 1, '0')
  const whole = digits.slice(0, digits.length - exact)
  return precision === 0 ? whole : `${whole}.${digits.slice(digits.length - exact)}${'0'.repeat(precision - exact)}`
}

/** Return the first digits of a finite float of at least 0, and the exponent of the first. */
function significant(value: number, count: number): [string, number] {
  const exact = Math.min(count, MAX_PRECISION)
  if (value === 0) return ['0'.repeat(count), 0]
  let exponent = shortest(value)[1]
  let digits = scaled(value, exact - 1 - exponent).toString()
  if (digits.length > exact) {
    // The rounding reached the next power of ten.
    exponent++
    digits = digits.slice(0, exact)
  }
  return [digits + '0'.repeat(count - exact), exponent]
}

/** `%e` and `%g` of a finite float of at least 0. */
export function exponential(value: number, precision: number, letter: string): string {
  const [digits, exponent] = significant(value, precision + 1)
  return scientific(digits, exponent, letter)
}

export function general(value: number, precision: number, letter: string, keepsZeros: boolean): string {
  const count = Math.max(1, precision)
  const [digits, exponent] = significant(value, count)
  const bare = keepsZeros ? digits : withoutEnd(digits, /0/) || '0'
  if (exponent < -4 || exponent >= count) return scientific(bare, exponent, letter)
  const text = positional(bare, exponent)
  return keepsZeros && !text.includes('.') ? `${text}.` : text
}

/** Python's `round` of a float, ties to even of its exact value. */
export function roundFloat(value: number, precision: number): number {
  if (!Number.isFinite(value) || precision > 323) return value
  if (precision < -308) return 0 * value
  const size = Math.abs(value)
  const text =
    precision >= 0 ? fixed(size, precision) : (scaled(size, precision) * 10n ** BigInt(-precision)).toString()
  const rounded = Number(text)
  if (!Number.isFinite(rounded)) throw new JinjaError('OverflowError', 'rounded value too large to represent')
  return value < 0 || Object.is(value, -0) ? -rounded : rounded
}

export function roundInteger(value: bigint, precision: number): bigint {
  if (precision >= 0) return value
  if (-precision > LIMITS.bits / 4) return 0n
  const unit = 10n ** BigInt(-precision)
  const rounded = divideEven(value < 0n ? -value : value, unit) * unit
  return value < 0n ? -rounded : rounded
}

export function toFloat(value: Real): number {
  if (typeof value === 'number') return value
  const float = Number(value)
  if (!Number.isFinite(float)) throw new JinjaError('OverflowError', 'int too large to convert to float')
  return float
}

const bounded = (value: bigint): bigint => {
  if (value >= MOST || value <= -MOST) throw limit(`makes an integer of more than ${LIMITS.bits} bits`)
  return value
}
const MOST = 1n << BigInt(LIMITS.bits)

const zeroDivision = (message: string): JinjaError => new JinjaError('ZeroDivisionError', message)

/** Python's arithmetic of ints and floats. */
export function arithmetic(operator: string, a: Real, b: Real): Real {
  if (typeof a === 'bigint' && typeof b === 'bigint') return integers(operator, a, b)
  return floats(operator, toFloat(a), toFloat(b))
}

function integers(operator: string, a: bigint, b: bigint): Real {
  switch (operator) {
    case '+':
      return bounded(a + b)
    case '-':
      return bounded(a - b)
    case '*':
      return bounded(a * b)
    case '/':
      if (b === 0n) throw zeroDivision('division by zero')
      return quotient(a, b)
    case '//':
    case '%': {
      if (b === 0n) throw zeroDivision(`integer ${operator === '//' ? 'division or ' : ''}modulo by zero`)
      const rest = a % b
      const off = rest !== 0n && rest < 0n !== b < 0n
      return operator === '%' ? (off ? rest + b : rest) : off ? a / b - 1n : a / b
    }
    default:
      return power(a, b)
  }
}

/** Return the float nearest to a quotient of integers. */
function quotient(a: bigint, b: bigint): number {
  const [x, y] = [Number(a), Number(b)]
  if (Number.isSafeInteger(x) && Number.isSafeInteger(y)) return x / y
  const [n, d] = [a < 0n ? -a : a, b < 0n ? -b : b]
  const negative = a < 0n !== b < 0n
  // 66 bits of the quotient and a sticky bit are enough for correct rounding.
  const shift = 66 - (bits(n) - bits(d))
  const whole = shift >= 0 ? (n << BigInt(shift)) / d : n / (d << BigInt(-shift))
  const exact = shift >= 0 ? whole * d === n << BigInt(shift) : whole * (d << BigInt(-shift)) === n
  const sticky = (whole << 1n) | (exact ? 0n : 1n)
  const scale = -shift - 1
  const float = scale < -1000 ? Number(sticky) * 2 ** -1000 * 2 ** (scale + 1000) : Number(sticky) * 2 ** scale
  if (!Number.isFinite(float)) throw new JinjaError('OverflowError', 'integer division result too large for a float')
  return negative ? -float : float
}

const bits = (value: bigint): number => value.toString(16).length * 4

function power(a: bigint, b: bigint): Real {
  if (b < 0n) {
    if (a === 0n) throw zeroDivision('0.0 cannot be raised to a negative power')
    return floats('**', toFloat(a), toFloat(b))
  }
  const size = a < 0n ? -a : a
  if (size > 1n && b * BigInt(bits(size)) > BigInt(LIMITS.bits + 8)) {
    throw limit(`makes an integer of more than ${LIMITS.bits} bits`)
  }
  if (size <= 1n) return a === -1n && b % 2n === 0n ? 1n : b === 0n ? 1n : a
  return bounded(a ** b)
}

function floats(operator: string, a: number, b: number): number {
  switch (operator) {
    case '+':
      return a + b
    case '-':
      return a - b
    case '*':
      return a * b
    case '/':
      if (b === 0) throw zeroDivision('float division by zero')
      return a / b
    case '//':
    case '%': {
      if (b === 0) throw zeroDivision(operator === '//' ? 'float floor division by zero' : 'float modulo')
      return operator === '%' ? modulo(a, b)[1] : modulo(a, b)[0]
    }
    default:
      return floatPower(a, b)
  }
}

/** Python's floor division and remainder of floats. */
function modulo(a: number, b: number): [number, number] {
  let rest = a % b
  let whole = (a - rest) / b
  if (rest !== 0) {
    if (b < 0 !== rest < 0) {
      rest += b
      whole -= 1
    }
  } else rest = b < 0 ? -0 : 0
  if (whole !== 0) {
    const floor = Math.floor(whole)
    whole = whole - floor > 0.5 ? floor + 1 : floor
  } else whole = a / b < 0 || Object.is(a / b, -0) ? -0 : 0
  return [whole, rest]
}

function floatPower(a: number, b: number): number {
  if (a === 0 && b < 0) throw zeroDivision('0.0 cannot be raised to a negative power')
  if (a === 1 || b === 0) return 1
  if (a === -1 && !Number.isFinite(b)) return Number.isNaN(b) ? b : 1
  if (a < 0 && Number.isFinite(a) && Number.isFinite(b) && !Number.isInteger(b)) throw unsupported('a complex number')
  const result = a ** b
  if (Number.isFinite(a) && Number.isFinite(b) && !Number.isFinite(result)) {
    throw new JinjaError('OverflowError', "(34, 'Numerical result out of range')")
  }
  return result
}

/** Python's `int(text, base)`; undefined instead of a ValueError. */
export function parseInteger(text: string, base: number): bigint | undefined {
  let body = trimStart(trimEnd(text)).toLowerCase()
  const negative = body.startsWith('-')
  if (negative || body.startsWith('+')) body = body.slice(1)
  const prefix = prefixes[body.slice(0, 2)]
  let radix = base
  if (base === 0) radix = prefix ?? 10
  if (prefix === radix) {
    body = body.slice(2)
    if (body.startsWith('_')) body = body.slice(1)
  } else if (base === 0 && /^0[0_]*[1-9]/.test(body)) return undefined
  if (body === '' || body.length > 4300 || body.startsWith('_') || body.endsWith('_') || body.includes('__')) {
    return undefined
  }
  let value = 0n
  const wide = BigInt(radix)
  for (const letter of body.replaceAll('_', '')) {
    const digit = /^\p{Nd}$/u.test(letter) ? digitValue(letter) : letter >= 'a' && letter <= 'z' ? letter.charCodeAt(0) - 87 : radix // biome-ignore format: one line
    if (digit >= radix) return undefined
    value = value * wide + BigInt(digit)
  }
  return negative ? -value : value
}

const prefixes: Record<string, number> = { '0x': 16, '0o': 8, '0b': 2 }

const floatPattern = /^[+-]?(?:\d+(?:_\d+)*(?:\.(?:\d+(?:_\d+)*)?)?|\.\d+(?:_\d+)*)(?:e[+-]?\d+(?:_\d+)*)?$/

/** Python's `float(text)`; undefined instead of a ValueError. */
export function parseFloatText(text: string): number | undefined {
  const body = trimStart(trimEnd(text)).toLowerCase()
  const special = /^([+-]?)(?:inf|infinity|(nan))$/.exec(body)
  if (special) return special[2] ? Number.NaN : special[1] === '-' ? -Infinity : Infinity
  return body.length <= LIMITS.width && floatPattern.test(body) ? Number(body.replaceAll('_', '')) : undefined
}

/** Python's `int` of a float. */
export function truncated(value: number): bigint {
  if (Number.isNaN(value)) throw new JinjaError('ValueError', 'cannot convert float NaN to integer')
  if (!Number.isFinite(value)) throw new JinjaError('OverflowError', 'cannot convert float infinity to integer')
  return BigInt(Math.trunc(value))
}

export const unsupportedOperands = (operator: string, a: string, b: string): JinjaError =>
  typeError(`unsupported operand type(s) for ${operator === '**' ? '** or pow()' : operator}: '${a}' and '${b}'`)
