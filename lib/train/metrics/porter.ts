/**
 * Return the stem of an English word in lower case (Porter 1980, "An algorithm for suffix stripping"), with the default changes
 * of NLTK's stemmer: a few irregular words, -ies and -ied of short words, y after consonants, -alli before -bli, -fulli and
 * -logi.
 */
export function porterStem(word: string): string {
  const irregular = IRREGULAR.get(word)
  if (irregular !== undefined) return irregular
  if (word.length <= 2) return word
  return [
    plural,
    pastOrGerund,
    finalY,
    doubleSuffix,
    byRule(STEP_3, above(0)),
    byRule(STEP_4, above(1)),
    finalE,
    finalL,
  ].reduce((stem, step) => step(stem), word)
}

const IRREGULAR = new Map(
  Object.entries({
    ...{
      sky: 'sky',
      skies: 'sky',
      dying: 'die',
      lying: 'lie',
      tying: 'tie',
      news: 'news',
      innings: 'inning',
      inning: 'inning',
    },
    ...{ outings: 'outing', outing: 'outing', cannings: 'canning', canning: 'canning', howe: 'howe' },
    ...{ proceed: 'proceed', exceed: 'exceed', succeed: 'succeed' },
  }),
)

/** Return for each letter whether it is a consonant; y is one unless a consonant precedes it. */
function consonants(word: string): boolean[] {
  const flags: boolean[] = []
  for (const letter of word) {
    flags.push(letter === 'y' ? flags.length === 0 || !flags.at(-1) : !'aeiou'.includes(letter))
  }
  return flags
}

/** Count the vowel-consonant sequences of a stem, m in the paper. */
function measure(stem: string): number {
  const flags = consonants(stem)
  return flags.filter((consonant, i) => consonant && i > 0 && !flags[i - 1]).length
}

const above = (least: number) => (stem: string) => measure(stem) > least

/** Return whether a word ends with consonant, vowel and consonant (not w, x, y), or is a vowel and a consonant. */
function isShort(stem: string): boolean {
  const flags = consonants(stem)
  const [a, b, c] = flags.slice(-3)
  if (flags.length === 2) return a === false && b === true
  return a === true && b === false && c === true && !/[wxy]$/.test(stem)
}

const endsDouble = (stem: string): boolean =>
  stem.length >= 2 && stem.at(-1) === stem.at(-2) && consonants(stem).at(-1) === true

type Rule = readonly [suffix: string, replacement: string, when?: (stem: string) => boolean]

/** Apply a list of rules: only the first rule whose suffix the word has is tried. */
function byRule(rules: readonly Rule[], usual: (stem: string) => boolean) {
  return (word: string): string => {
    const rule = rules.find(([suffix]) => word.endsWith(suffix))
    if (!rule) return word
    const [suffix, replacement, when = usual] = rule
    const stem = word.slice(0, word.length - suffix.length)
    return when(stem) ? stem + replacement : word
  }
}

function plural(word: string): string {
  if (word.endsWith('ies') && word.length === 4) return word.slice(0, -1)
  if (word.endsWith('sses') || word.endsWith('ies')) return word.slice(0, -2)
  return word.endsWith('s') && !word.endsWith('ss') ? word.slice(0, -1) : word
}

function pastOrGerund(word: string): string {
  if (word.endsWith('ied')) return word.slice(0, word.length === 4 ? -1 : -2)
  if (word.endsWith('eed')) return measure(word.slice(0, -3)) > 0 ? word.slice(0, -1) : word
  const suffix = ['ed', 'ing'].find(
    (one) => word.endsWith(one) && consonants(word.slice(0, -one.length)).includes(false),
  )
  if (suffix === undefined) return word
  const stem = word.slice(0, -suffix.length)
  if (/(?:at|bl|iz)$/.test(stem)) return `${stem}e`
  if (endsDouble(stem)) return /[lsz]$/.test(stem) ? stem : stem.slice(0, -1)
  return measure(stem) === 1 && isShort(stem) ? `${stem}e` : stem
}

function finalY(word: string): string {
  const stem = word.slice(0, -1)
  return word.endsWith('y') && stem.length > 1 && consonants(stem).at(-1) ? `${stem}i` : word
}

function doubleSuffix(word: string): string {
  const stem = word.slice(0, -4)
  if (word.endsWith('alli') && measure(stem) > 0) return doubleSuffix(`${stem}al`)
  return byRule(STEP_2, above(0))(word)
}

/** Parse rules `from:to`; a rule without `to` removes the suffix. */
const rulesOf = (text: string): Rule[] =>
  text
    .split(/\s+/)
    .map((pair) => pair.split(':') as [string, string])
    .map(([from, to = '']) => [from, to])

const STEP_2: readonly Rule[] = [
  ...rulesOf(
    'ational:ate tional:tion enci:ence anci:ance izer:ize bli:ble alli:al entli:ent eli:e ousli:ous ization:ize',
  ),
  ...rulesOf('ation:ate ator:ate alism:al iveness:ive fulness:ful ousness:ous aliti:al iviti:ive biliti:ble fulli:ful'),
  ['logi', 'log', (stem) => measure(`${stem}l`) > 0],
]
const STEP_3 = rulesOf('icate:ic ative alize:al iciti:ic ical:ic ful ness')
const STEP_4: readonly Rule[] = [
  ...rulesOf('al ance ence er ic able ible ant ement ment ent'),
  ['ion', '', (stem) => measure(stem) > 1 && /[st]$/.test(stem)],
  ...rulesOf('ou ism ate iti ous ive ize'),
]

function finalE(word: string): string {
  if (!word.endsWith('e')) return word
  const stem = word.slice(0, -1)
  return measure(stem) > 1 || (measure(stem) === 1 && !isShort(stem)) ? stem : word
}

const finalL = (word: string): string => {
  const stem = word.slice(0, -1)
  return word.endsWith('ll') && measure(stem) > 1 ? stem : word
}
