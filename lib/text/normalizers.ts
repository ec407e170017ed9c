import { quoted } from '../files/byte-source.js'
import { AlignedText, limitedGrowth, mapCharacters, prepend, replaceMatches } from './aligned.js'
import type { Fields } from './fields.js'
import { readPattern } from './patterns.js'
import { graphemeCharsmap } from './sentencepiece/charsmap.js'
import { drained, type Steps } from './steps.js'
import { unicode } from './unicode-forms.js'

/** Normalizer: changes text before it is split into tokens, in steps for long texts. */
export interface Normalizer {
  (text: AlignedText): AlignedText | Steps<AlignedText>
  /** Whether texts before and after a word end (a letter followed by a character other than letter, mark or digit) are independent. */
  readonly keepsWords?: true
}

/** Normalize a text without yielding. */
export function normalized(normalizer: Normalizer, text: AlignedText): AlignedText {
  const made = normalizer(text)
  return made instanceof AlignedText ? made : drained(made)
}

/** Read the `normalizer` of a tokenizer.json (https://huggingface.co/docs/tokenizers/api/normalizers). */
export function readNormalizer(fields: Fields): Normalizer {
  const change = readStep(fields)
  const limited: Normalizer = (text) => limitedGrowth(fields.file, text, change)
  return ['NFC', 'Lowercase'].includes(fields.string('type'))
    ? Object.assign(limited, { keepsWords: true } as const)
    : limited
}

function readStep(fields: Fields): Normalizer {
  const type = fields.string('type')
  switch (type) {
    case 'Sequence':
      return sequence(fields.objects('normalizers').map(readStep))
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD':
      return unicode(type)
    case 'Lowercase':
      return lowercase
    case 'Nmt':
      return nmt
    case 'Prepend': {
      const front = fields.string('prepend')
      return (text) => prepend(text, front)
    }
    case 'Replace': {
      const pattern = readPattern(fields)
      const content = fields.string('content')
      return function* (text) {
        return yield* replaceMatches(text, yield* pattern.matches(text.text), content)
      }
    }
    case 'Strip':
      return strip(fields.boolean('strip_left', true), fields.boolean('strip_right', true))
    case 'StripAccents':
      return stripAccents
    case 'BertNormalizer':
      return bert(fields)
    case 'Precompiled':
      return graphemeCharsmap(Buffer.from(fields.string('precompiled_charsmap'), 'base64'), fields.file)
    case 'ByteLevel':
      return fields.fail('expected another type than ByteLevel, which is supported as a pre_tokenizer only')
    default:
      return fields.fail(`expected a known type, got ${quoted(type)}`)
  }
}

export function sequence(steps: readonly Normalizer[]): Normalizer {
  return function* (text) {
    let changed = text
    for (const step of steps) {
      const made = step(changed)
      changed = made instanceof AlignedText ? made : yield* made
      yield
    }
    return changed
  }
}

const ascii = /^[\0-\x7f]*$/

/** Lowercase each character separately, as the reference does: a final sigma becomes a normal one. */
const lowercase: Normalizer = (source) =>
  ascii.test(source.text)
    ? source.exchanged(source.text.toLowerCase())
    : mapCharacters(source, (character) => character.toLowerCase())

/** Apply SentencePiece's NMT rules: remove control characters, replace special spaces by spaces. */
function nmt(text: AlignedText): Steps<AlignedText> {
  return mapCharacters(text, (character) => {
    const code = character.codePointAt(0)!
    if (code === 9 || code === 10 || code === 12 || code === 13) return ' '
    if ((code >= 1 && code <= 0x1f) || code === 0x7f || code === 0x8f || code === 0x9f) return ''
    if (code === 0x1680 || (code >= 0x200b && code <= 0x200f) || code === 0x2028 || code === 0x2029) return ' '
    if (code === 0x2581 || code === 0xfeff || code === 0xfffd) return ' '
    return character
  })
}

function strip(left: boolean, right: boolean): Normalizer {
  return (text) => {
    const from = left ? (/^\p{White_Space}+/u.exec(text.text)?.[0].length ?? 0) : 0
    let to = text.text.length
    while (right && to > from && /\p{White_Space}/u.test(text.text[to - 1]!)) to--
    return from === 0 && to === text.text.length ? text : text.slice(from, to)
  }
}

const mark = /^\p{M}$/u
const stripAccents: Normalizer = (text) => mapCharacters(text, (one) => (mark.test(one) ? '' : one))

const flatMark = /^\p{Mn}$/u
const stripFlatAccents: Normalizer = (text) => mapCharacters(text, (one) => (flatMark.test(one) ? '' : one))

const control = /^[\p{Cc}\p{Cf}\p{Cn}\p{Co}\p{Cs}]$/u
const space = /^[\p{White_Space}]$/u

function bert(fields: Fields): Normalizer {
  const lowers = fields.boolean('lowercase', true)
  const steps: Normalizer[] = []
  if (fields.boolean('clean_text', true)) {
    steps.push((text) =>
      mapCharacters(text, (one) => {
        if (one === '\t' || one === '\n' || one === '\r') return ' '
        if (one === '\0' || one === '\ufffd' || control.test(one)) return ''
        return space.test(one) ? ' ' : one
      }),
    )
  }
  if (fields.boolean('handle_chinese_chars', true)) {
    steps.push((text) => mapCharacters(text, (one) => (isChinese(one.codePointAt(0)!) ? ` ${one} ` : one)))
  }
  if (fields.boolean('strip_accents', lowers)) steps.push(unicode('NFD'), stripFlatAccents)
  if (lowers) steps.push(lowercase)
  return sequence(steps)
}

function isChinese(code: number): boolean {
  return (
    (code >= 0x4e00 && code <= 0x9fff) ||
    (code >= 0x3400 && code <= 0x4dbf) ||
    (code >= 0x20000 && code <= 0x2a6df) ||
    (code >= 0x2a700 && code <= 0x2b73f) ||
    (code >= 0x2b740 && code <= 0x2b81f) ||
    (code >= 0x2b920 && code <= 0x2ceaf) ||
    (code >= 0xf900 && code <= 0xfaff) ||
    (code >= 0x2f800 && code <= 0x2fa1f)
  )
}
