import type { SchemaElement } from 'hyparquet'

/** Convert a stored value to a JavaScript value. Throws an Error that says what is wrong with the value. */
export type Convert = (raw: unknown) => unknown

const MAX_SCALE = 1000

/**
 * Return the conversion of a column's values: strings, booleans and numbers; integers beyond 2^53 as bigint; dates and
 * timestamps as Date; decimals and UUIDs as strings; other bytes as a Uint8Array of their own. Undefined for a type that is not
 * supported.
 */
export function conversionOf(element: SchemaElement): Convert | undefined {
  const { type, logical_type: logical, converted_type: converted, scale = 0 } = element
  const kind = logical?.type
  const isDecimal = converted === 'DECIMAL' || kind === 'DECIMAL'
  if (isDecimal && !(Number.isInteger(scale) && scale >= 0 && scale <= MAX_SCALE)) return undefined
  const isUnsigned = converted?.startsWith('UINT_') === true || (logical?.type === 'INTEGER' && !logical.isSigned)
  switch (type) {
    case 'BOOLEAN':
      return Boolean
    case 'FLOAT':
    case 'DOUBLE':
      return (raw) => raw
    case 'INT32':
      if (converted === 'DATE' || kind === 'DATE') return (raw) => new Date((raw as number) * 86_400_000)
      if (isDecimal) return (raw) => decimal(BigInt(raw as number), scale)
      return isUnsigned ? (raw) => (raw as number) >>> 0 : (raw) => raw
    case 'INT64': {
      const unit = unitOf(element)
      if (unit !== undefined) return (raw) => instant(raw as bigint, unit)
      if (isDecimal) return (raw) => decimal(raw as bigint, scale)
      return isUnsigned ? (raw) => integer(BigInt.asUintN(64, raw as bigint)) : (raw) => integer(raw as bigint)
    }
    case 'INT96':
      // Nanoseconds of the day, and the Julian day.
      return (raw) => {
        const nanoseconds = BigInt.asUintN(64, raw as bigint)
        return instant(((raw as bigint) >> 64n) * 86_400_000_000_000n + nanoseconds - EPOCH, 1_000_000n)
      }
    case 'BYTE_ARRAY':
      if (
        ['UTF8', 'ENUM', 'JSON'].includes(converted as string) ||
        ['STRING', 'ENUM', 'JSON'].includes(kind as string)
      ) {
        return text
      }
      return isDecimal ? (raw) => decimal(signed(raw as Uint8Array), scale) : (raw) => (raw as Uint8Array).slice()
    case 'FIXED_LEN_BYTE_ARRAY':
      if (isDecimal) return (raw) => decimal(signed(raw as Uint8Array), scale)
      if (kind === 'UUID' && element.type_length === 16) return uuid
      if (kind === 'FLOAT16' && element.type_length === 2) return half
      return (raw) => (raw as Uint8Array).slice()
    default:
      return undefined
  }
}

/** Return whether a column holds strings, whose values a dictionary may share. */
export const isText = (convert: Convert): boolean => convert === text

/** 1970-01-01 as a Julian day, in nanoseconds. */
const EPOCH = 2_440_588n * 86_400_000_000_000n

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function text(raw: unknown): string {
  try {
    return decoder.decode(raw as Uint8Array)
  } catch {
    throw new Error('expected UTF-8, got other bytes')
  }
}

const integer = (value: bigint): number | bigint => {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value
}

/** Return the number of units in a millisecond; undefined if the column has no timestamps. */
function unitOf({ logical_type: logical, converted_type: converted }: SchemaElement): bigint | undefined {
  if (logical?.type === 'TIMESTAMP') return { MILLIS: 1n, MICROS: 1000n, NANOS: 1_000_000n }[logical.unit]
  if (converted === 'TIMESTAMP_MILLIS') return 1n
  return converted === 'TIMESTAMP_MICROS' ? 1000n : undefined
}

function instant(value: bigint, unit: bigint): Date {
  // Rounded down, also before 1970.
  const rest = ((value % unit) + unit) % unit
  const date = new Date(Number((value - rest) / unit))
  if (Number.isNaN(date.getTime())) throw new Error(`expected a timestamp of JavaScript's Date, got ${value}`)
  return date
}

function decimal(value: bigint, scale: number): string {
  if (scale === 0) return String(value)
  const digits = String(value < 0n ? -value : value).padStart(scale + 1, '0')
  return `${value < 0n ? '-' : ''}${digits.slice(0, -scale)}.${digits.slice(-scale)}`
}

/** Read a big-endian two's complement number. */
function signed(bytes: Uint8Array): bigint {
  if (bytes.length === 0) return 0n
  if (bytes.length > 1024) throw new Error(`expected a decimal of at most 1,024 bytes, got ${bytes.length}`)
  return BigInt.asIntN(8 * bytes.length, BigInt(`0x${Buffer.from(bytes).toString('hex')}`))
}

function uuid(raw: unknown): string {
  const hex = Buffer.from(raw as Uint8Array).toString('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}

function half(raw: unknown): number {
  const [low = 0, high = 0] = raw as Uint8Array
  const sign = high & 0x80 ? -1 : 1
  const exponent = (high >> 2) & 31
  const fraction = ((high & 3) << 8) | low
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  return sign * (1024 + fraction) * 2 ** (exponent - 25)
}
