// Numbers in words as digits, as Whisper's English normalizer writes them (Radford et al. 2022, https://arxiv.org/abs/2212.04356, appendix C).

const UNITS =
  'one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen'.split(
    ' ',
  )
const TENS = 'twenty thirty forty fifty sixty seventy eighty ninety'.split(' ')
const POWERS =
  'thousand million billion trillion quadrillion quintillion sextillion septillion octillion nonillion decillion'
const ORDINALS: Record<string, string> = {
  ...{ one: 'first', two: 'second', three: 'third', five: 'fifth', twelve: 'twelfth' },
}
const ENDINGS: Record<string, string> = { first: 'st', second: 'nd', third: 'rd' }

interface Suffixed {
  value: bigint
  suffix: string
}

const zeros = new Set(['o', 'oh', 'zero'])
const ones = new Map(UNITS.map((name, i) => [name, BigInt(i + 1)]))
const tens = new Map(TENS.map((name, i) => [name, BigInt(10 * (i + 2))]))
const multipliers = new Map([
  ['hundred', 100n] as const,
  ...POWERS.split(' ').map((name, i) => [name, 1000n ** BigInt(i + 1)] as const),
])
const ordinal = (name: string) => ORDINALS[name] ?? `${name}${name.endsWith('t') ? 'h' : 'th'}`
const onesSuffixed = new Map<string, Suffixed>([
  ['zeroth', { value: 0n, suffix: 'th' }],
  ...[...ones].flatMap(([name, value]): [string, Suffixed][] => [
    [name === 'six' ? 'sixes' : `${name}s`, { value, suffix: 's' }],
    [ordinal(name), { value, suffix: ENDINGS[ordinal(name)] ?? 'th' }],
  ]),
])
const tensSuffixed = new Map<string, Suffixed>(
  [...tens].flatMap(([name, value]): [string, Suffixed][] => [
    [name.replace('y', 'ies'), { value, suffix: 's' }],
    [name.replace('y', 'ieth'), { value, suffix: 'th' }],
  ]),
)
const multipliersSuffixed = new Map<string, Suffixed>(
  [...multipliers].flatMap(([name, value]): [string, Suffixed][] => [
    [`${name}s`, { value, suffix: 's' }],
    [`${name}th`, { value, suffix: 'th' }],
  ]),
)
const signs = new Map([
  ['minus', '-'],
  ['negative', '-'],
  ['plus', '+'],
  ['positive', '+'],
])
const currencies = new Map(
  [
    ['pound', '£'],
    ['euro', '€'],
    ['dollar', '$'],
    ['cent', '¢'],
  ].flatMap(([name, sign]) => [[name, sign] as [string, string], [`${name}s`, sign] as [string, string]]),
)
const specials = new Set(['and', 'double', 'triple', 'point'])
const prefixes = new Set('-+£€$¢')
const isDecimal = (word: string) => ones.has(word) || tens.has(word) || zeros.has(word)
const tables = [ones, onesSuffixed, tens, tensSuffixed, multipliers, multipliersSuffixed, signs, currencies, specials]
/** Whether a word may be a part of a number. */
const isKnown = (word: string) =>
  zeros.has(word) || word === 'per' || word === 'percent' || tables.some((table) => table.has(word))
/** Whether a word is a number in decimal digits of any script, as for Python. */
const isNumeric = (word: string | undefined) => word !== undefined && /^\p{Nd}+(\.\p{Nd}+)?$/u.test(word)

/** Return a text with ASCII digits in place of those of other scripts. */
const withAsciiDigits = (text: string): string =>
  text.replace(/[^\0-\x7f]/gu, (character) => (DIGIT.test(character) ? `${digitOf(character)}` : character))
const DIGIT = /\p{Nd}/u

/** Unicode has the ten digits of a script in order, and some scripts' digits next to each other. */
function digitOf(character: string): number {
  const code = character.codePointAt(0) as number
  let first = code
  while (DIGIT.test(String.fromCodePoint(first - 1))) first--
  return (code - first) % 10
}

/** Digits, or a number that may grow. */
type Value = bigint | string

/** Return a decimal number times an integer if that is an integer; undefined for other texts and products. */
function product(value: Value, factor: bigint): bigint | undefined {
  const [, whole = '', decimals = ''] = /^(\d*)(?:\.(\d*))?$/.exec(withAsciiDigits(`${value}`)) ?? [undefined]
  if (whole === '' && decimals === '') return undefined
  const scaled = BigInt(whole + decimals) * factor
  const scale = 10n ** BigInt(decimals.length)
  return scaled % scale === 0n ? scaled / scale : undefined
}

/** Most digits of a number that is multiplied: longer ones stay as they are. */
const MOST_DIGITS = 1000

/** State of {@link numbersInWords}. */
class NumberWriter {
  readonly written: string[] = []
  prefix = ''
  value: Value | undefined

  put(text: Value): void {
    this.written.push(`${this.prefix}${text}`)
    this.value = undefined
    this.prefix = ''
  }

  /** Write the number so far, if there is one. */
  flush(): void {
    if (this.value !== undefined) this.put(this.value)
  }

  /** Digits so far; none for 0. */
  get digits(): string {
    return this.value === undefined || this.value === 0n ? '' : `${this.value}`
  }

  /** Return the number with ones or tens after it: added where its last digits are 0, else appended. */
  with(own: bigint, previous: string | undefined): Value {
    const { value } = this
    if (value === undefined) return own
    const isUnit = own < 20n
    if (typeof value === 'string' || (isUnit && previous !== undefined && ones.has(previous))) {
      const replaces = isUnit && own < 10n && previous !== undefined && tens.has(previous)
      return replaces ? `${`${value}`.slice(0, -1)}${own}` : `${value}${own}`
    }
    return value % (own < 10n ? 10n : 100n) === 0n ? value + own : `${value}${own}`
  }
}

/** Return words with spelled-out numbers as digits. */
function numbersInWords(words: readonly string[]): string[] {
  const state = new NumberWriter()
  let skips = false
  for (const [i, word] of words.entries()) {
    if (skips) {
      skips = false
      continue
    }
    const [previous, next] = [words[i - 1], words[i + 1]]
    const canContinue = (next !== undefined && isKnown(next)) || isNumeric(next)
    const sign = prefixes.has(word[0] as string) ? (word[0] as string) : ''
    const bare = word.slice(sign.length)
    const { value } = state
    if (isNumeric(bare)) {
      if (typeof value === 'string' && value.endsWith('.')) {
        state.value = value + word
        continue
      }
      state.flush()
      if (sign !== '') state.prefix = sign
      const whole = bare.length > MOST_DIGITS ? undefined : product(bare, 1n)
      state.value = whole ?? bare
    } else if (!isKnown(word)) {
      state.flush()
      state.put(word)
    } else if (zeros.has(word)) {
      state.value = `${state.digits}0`
    } else if (ones.has(word) || tens.has(word)) {
      state.value = state.with((ones.get(word) ?? tens.get(word)) as bigint, previous)
    } else if (onesSuffixed.has(word) || tensSuffixed.has(word)) {
      const own = (onesSuffixed.get(word) ?? tensSuffixed.get(word)) as Suffixed
      state.put(`${state.with(own.value, previous)}${own.suffix}`)
    } else if (multipliers.has(word) || multipliersSuffixed.has(word)) {
      multiply(state, multipliersSuffixed.get(word) ?? { value: multipliers.get(word) as bigint, suffix: '' })
    } else if (signs.has(word)) {
      state.flush()
      if (canContinue) state.prefix = signs.get(word) as string
      else state.put(word)
    } else if (currencies.has(word)) {
      if (value !== undefined) state.prefix = currencies.get(word) as string
      state.put(value ?? word)
    } else if (word === 'percent' || word === 'per') {
      const isPercent = word === 'percent' || next === 'cent'
      if (value !== undefined && isPercent) {
        state.put(`${value}%`)
        skips = word === 'per'
      } else {
        state.flush()
        state.put(word)
      }
    } else if (!canContinue) {
      state.flush()
      state.put(word)
    } else if (word === 'and') {
      if (previous === undefined || !multipliers.has(previous)) {
        state.flush()
        state.put(word)
      }
    } else if (word === 'point') {
      if (isDecimal(next as string) || isNumeric(next)) state.value = `${state.digits}.`
    } else if (ones.has(next as string) || zeros.has(next as string)) {
      const digit = ones.get(next as string) ?? 0n
      state.value = state.digits + `${digit}`.repeat(word === 'double' ? 2 : 3)
      skips = true
    } else {
      state.flush()
      state.put(word)
    }
  }
  state.flush()
  return state.written
}

/** Multiply the number so far by `hundred` and so on. With a suffix, write it. */
function multiply(state: NumberWriter, { value: factor, suffix }: Suffixed): void {
  const { value } = state
  const isText = typeof value === 'string' || (value === 0n && suffix === '')
  let result: bigint
  if (value === undefined) result = factor
  else if (isText) {
    const whole = `${value}`.length > MOST_DIGITS ? undefined : product(value, factor)
    if (whole === undefined) state.put(value)
    result = whole ?? factor
  } else {
    const number = value as bigint
    result = (number / 1000n) * 1000n + (number % 1000n) * factor
  }
  if (suffix === '') state.value = result
  else state.put(`${result}${suffix}`)
}

const WORD = '[\\p{L}\\p{N}_]'
const HALF = new RegExp(`(?<!${WORD})and a half(?!${WORD})`, 'gu')
const ORDINAL_SPACE = new RegExp(`([0-9]) (st|nd|rd|th|s)(?!${WORD})`, 'gu')
const CENTS_AFTER = new RegExp(`([€£$])([0-9]+) (?:and )?¢([0-9]{1,2})(?!${WORD})`, 'gu')
const CENTS_ALONE = new RegExp(`[€£$]0.([0-9]{1,2})(?!${WORD})`, 'gu')
const ONE = new RegExp(`(?<!${WORD})1(s?)(?!${WORD})`, 'gu')

/** Return a text, whose spaces are single, with numbers in digits. */
export function standardizeNumbers(text: string): string {
  const segments = text.split(HALF)
  const parts = segments.flatMap((segment, i) => {
    const words = segment.split(' ').filter((word) => word !== '')
    if (words.length === 0) return []
    if (i === segments.length - 1) return [segment]
    const last = words.at(-1) as string
    return [segment, isDecimal(last) || multipliers.has(last) ? 'point five' : 'and a half']
  })
  const spaced = parts
    .join(' ')
    .replace(/([a-z])([0-9])/g, '$1 $2')
    .replace(/([0-9])([a-z])/g, '$1 $2')
    .replace(/ +/g, ' ')
    .replace(ORDINAL_SPACE, '$1$2')
  return numbersInWords(spaced.split(' ').filter((word) => word !== ''))
    .join(' ')
    .replace(CENTS_AFTER, (_, currency, integer, cents) => `${currency}${integer}.${cents.padStart(2, '0')}`)
    .replace(CENTS_ALONE, (_, cents) => `¢${Number(cents)}`)
    .replace(ONE, 'one$1')
}
