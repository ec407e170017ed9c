import { argumentError, requireOptions, requireString } from '../../../base/check.js'

/** TripPy's normalization of utterances and labels, which SpokenWOZ's labels depend on. */

type Rule = readonly [pattern: RegExp, to: (...groups: string[]) => string]

const apply = (text: string, rules: readonly Rule[]): string =>
  rules.reduce((now, [pattern, to]) => now.replace(pattern, (_match, ...groups) => to(...groups)), text)

const timeRules: readonly Rule[] = [
  // '5pm' -> '5 pm' -> '5:00 pm'
  [/(\d)(a\.?m\.?|p\.?m\.?)/g, (hour, half) => `${hour} ${half}`],
  [/(^| )(\d{1,2}) (a\.?m\.?|p\.?m\.?)/g, (before, hour, half) => `${before}${hour}:00 ${half}`],
  // 'at 1130' -> 'at 11:30'
  [
    /(^| )(at|from|by|until|after) ?(\d{1,2}) ?(\d{2})([^0-9]|$)/g,
    (before, word, hour, minute, after) => `${before}${word} ${hour}:${minute}${after}`,
  ],
  // '11.30' -> '11:30'
  [/(^| )(\d{2})[;.,](\d{2})/g, (before, hour, minute) => `${before}${hour}:${minute}`],
  // 'at 5' -> 'at 5:00'
  [
    /(^| )(at|from|by|until|after) ?(\d{1,2})([;., ]|$)/g,
    (before, word, hour, after) => `${before}${word} ${hour}:00${after}`,
  ],
  [/(^| )(\d:\d{2})/g, (before, time) => `${before}0${time}`],
  [/(\d{2})(:\d{2}) ?p\.?m\.?/g, (hour, minute) => `${Number(hour) < 12 ? Number(hour) + 12 : Number(hour)}${minute}`],
  [/(^| )24:(\d{2})/g, (before, minute) => `${before}00:${minute}`],
]

/** Normalize times of day in lowercase text to 24-hour HH:MM: 'at 5pm' -> 'at 17:00', 'by 1130' -> 'by 11:30'. */
export function normalizeDstTime(text: string): string {
  requireString('normalizeDstTime', 'text', text)
  return apply(text, timeRules)
}

const textRules: readonly Rule[] = [
  [/n't/g, () => ' not'],
  ...['zero', 'one', 'two', 'three', 'four', 'five'].map(
    (word, digit): Rule => [
      new RegExp(`(^| )${word}[- ]star([s.,? ]|$)`, 'g'),
      (before, after) => `${before}${digit} star${after}`,
    ],
  ),
  [/archaelogy/g, () => 'archaeology'],
  [/guesthouse/g, () => 'guest house'], // language: a value of SpokenWOZ
  [/(^| )b ?& ?b([.,? ]|$)/g, (before, after) => `${before}bed and breakfast${after}`],
  [/bed & breakfast/g, () => 'bed and breakfast'],
  [/[\t\n]/g, () => ' '],
]

/** Normalize an utterance: lower case, and one form of times, hotel stars and a few words. */
export function normalizeDstText(text: string): string {
  requireString('normalizeDstText', 'text', text)
  return apply(normalizeDstTime(text.toLowerCase()), textRules)
}

// Python's \W: characters other than letters, numbers and underscores of any script.
const boundaries = /([^\p{L}\p{N}_]+)/u

/** Split an utterance into words like TripPy: runs of word characters, and the characters between them without spaces. */
export const dstWords = (text: string): string[] =>
  normalizeDstText(text)
    .split(boundaries)
    .map((piece) => piece.replace(/\s/g, ''))
    .filter((piece) => piece !== '')

/** Split a normalized value into words. */
export const valueWords = (value: string): string[] =>
  value
    .split(boundaries)
    .map((piece) => piece.trim())
    .filter((piece) => piece !== '')

export interface DstLabelOptions {
  /**
   * `'published'` does not normalize the times of `arriveby` and `leaveat` slots: the original looks for `arriveBy` and `leaveAt`, which
   * are not the names in SpokenWOZ.
   */
  compat?: 'published' | undefined
}

/** Normalize a label: 'not mentioned' -> 'none', parking 'yes' -> 'true'; the first of several values. */
export function normalizeDstLabel(slot: string, label: unknown, options: DstLabelOptions = {}): string {
  requireString('normalizeDstLabel', 'slot', slot)
  requireOptions('normalizeDstLabel', options, ['compat'])
  const odd = (Array.isArray(label) ? label : [label]).find((one) => typeof one === 'object' && one !== null)
  if (odd !== undefined || typeof label === 'symbol') {
    throw argumentError('normalizeDstLabel', 'label', 'a string, or a list of strings', odd ?? label)
  }
  const first = Array.isArray(label) ? (label[0] ?? '') : label
  // The original does not lowercase the items of a list.
  const value = Array.isArray(label) && options.compat ? String(first) : String(first).toLowerCase().trim()
  if (value === '' || value === 'not mentioned') return 'none'
  if (value === 'dont care' || (!options.compat && value === "don't care")) return 'dontcare'
  if (isTimeSlot(slot, options)) return normalizeDstTime(value)
  if (slot === 'hotel-parking' || slot === 'hotel-internet')
    return value === 'yes' ? 'true' : value === 'no' ? 'false' : value
  const named = /type|name|destination|departure/.test(slot)
    ? value.replace(/ ?'s/g, 's').replace(/guesthouse/g, 'guest house') // language: a value of SpokenWOZ
    : value
  if (slot === 'hotel-type' && named === 'hotel') return 'true'
  if (slot === 'hotel-type' && named === 'guest house') return 'false' // language: a value of SpokenWOZ
  return named
}

const isTimeSlot = (slot: string, { compat }: DstLabelOptions): boolean =>
  slot === 'restaurant-book time' || (compat ? /leaveAt|arriveBy/ : /leaveat|arriveby/i).test(slot)
