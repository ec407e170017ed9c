import { quoted } from '../files/byte-source.js'
import { fromByteCharacters } from './byte-level.js'
import type { Fields } from './fields.js'
import { readPattern } from './patterns.js'
import { drained } from './steps.js'

/** Decoder step: converts tokens to texts, which are joined at the end. */
export type Decoder = (tokens: string[]) => string[]

/** Read the `decoder` of a tokenizer.json (https://huggingface.co/docs/tokenizers/api/decoders). */
export function readDecoder(fields: Fields): Decoder {
  const step = readStep(fields)
  return (tokens) => {
    const outer = longest
    longest = ALWAYS + MOST_GROWTH * lengthOf(tokens)
    try {
      const texts = step(tokens)
      requireLength(lengthOf(texts), fields)
      return texts
    } finally {
      longest = outer
    }
  }
}

// Decoders of a file may lengthen texts, also in combination.
const MOST_GROWTH = 64
const ALWAYS = 2 ** 14
let longest = ALWAYS

function lengthOf(texts: readonly string[]): number {
  let length = 0
  for (const text of texts) length += text.length
  return length
}

function requireLength(length: number, fields: Fields): void {
  if (length > longest) fields.fail(`expected at most ${longest} decoded characters, got more`)
}

function readStep(fields: Fields): Decoder {
  const type = fields.string('type')
  switch (type) {
    case 'Sequence': {
      const steps = fields.objects('decoders').map(readStep)
      return (tokens) =>
        steps.reduce((changed, step) => {
          const texts = step(changed)
          requireLength(lengthOf(texts), fields)
          return texts
        }, tokens)
    }
    case 'ByteLevel':
      return (tokens) => [Buffer.concat(tokens.map(fromByteCharacters)).toString('utf8')]
    case 'ByteFallback':
      return byteFallback
    case 'Fuse':
      return (tokens) => [tokens.join('')]
    case 'Metaspace':
      return metaspace(fields)
    case 'Replace': {
      const pattern = readPattern(fields)
      const content = fields.string('content')
      return (tokens) => {
        let length = 0
        return tokens.map((token) => {
          const matches = drained(pattern.matches(token))
          length += token.length + (matches.length / 2) * content.length
          requireLength(length, fields)
          return replaced(token, matches, content)
        })
      }
    }
    case 'Strip': {
      const content = fields.character('content', ' ')
      const [start, stop] = [fields.whole('start', 0), fields.whole('stop', 0)]
      return (tokens) => tokens.map((token) => stripped(token, content, start, stop))
    }
    case 'WordPiece':
      return wordPiece(fields.string('prefix', '##'), fields.boolean('cleanup', true))
    case 'BPEDecoder': {
      const suffix = fields.string('suffix', '</w>')
      return (tokens) => tokens.map((token, i) => token.replaceAll(suffix, i === tokens.length - 1 ? '' : ' '))
    }
    case 'CTC':
      return ctc(fields)
    default:
      return fields.fail(`expected a known type, got ${quoted(type)}`)
  }
}

/** Decode bytes of the form `<0xE2>`. A run that is not UTF-8 gives one replacement character per byte. */
function byteFallback(tokens: string[]): string[] {
  const texts: string[] = []
  let bytes: number[] = []
  const flush = (): void => {
    if (bytes.length === 0) return
    texts.push(strictUtf8(bytes) ?? '\ufffd'.repeat(bytes.length))
    bytes = []
  }
  for (const token of tokens) {
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)
    if (byte !== null) bytes.push(Number.parseInt(byte[1]!, 16))
    else {
      flush()
      texts.push(token)
    }
  }
  flush()
  return texts
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function strictUtf8(bytes: readonly number[]): string | undefined {
  try {
    return utf8.decode(Uint8Array.from(bytes))
  } catch {
    return undefined
  }
}

function metaspace(fields: Fields): Decoder {
  const mark = fields.character('replacement', '\u2581')
  const always = fields.boolean('add_prefix_space', true) ? 'always' : 'never'
  const strips = fields.string('prepend_scheme', always) !== 'never'
  return (tokens) => tokens.map((token, i) => token.replaceAll(mark, i === 0 && strips ? '' : ' '))
}

function replaced(text: string, matches: readonly number[], content: string): string {
  let result = ''
  let kept = 0
  for (let i = 0; i < matches.length; i += 2) {
    result += text.slice(kept, matches[i]) + content
    kept = matches[i + 1]!
  }
  return result + text.slice(kept)
}

function stripped(text: string, content: string, start: number, stop: number): string {
  let from = 0
  for (let i = 0; i < start && text.startsWith(content, from); i++) from += content.length
  let to = text.length
  for (let i = 0; i < stop && to > from && text.endsWith(content, to); i++) to -= content.length
  return text.slice(from, to)
}

function wordPiece(prefix: string, cleansUp: boolean): Decoder {
  return (tokens) =>
    tokens.map((token, i) => {
      let text = token
      if (i > 0) text = prefix !== '' && token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`
      return cleansUp ? cleanUpSpaces(text).replaceAll(' do not', " don't") : text
    })
}

function ctc(fields: Fields): Decoder {
  const pad = fields.string('pad_token', '<pad>')
  const delimiter = fields.string('word_delimiter_token', '|')
  const cleansUp = fields.boolean('cleanup', true)
  return (tokens) =>
    tokens
      .filter((token, i) => token !== tokens[i - 1])
      .map((token) => {
        const text = token.replaceAll(pad, '')
        return cleansUp ? cleanUpSpaces(text).replaceAll(' do not', " don't").replaceAll(delimiter, ' ') : text
      })
      .filter((token) => token !== '')
}

/** Remove spaces before punctuation and inside English contractions, as `clean_up_tokenization_spaces` does. */
export function cleanUpSpaces(text: string): string {
  return text
    .replaceAll(' .', '.')
    .replaceAll(' ?', '?')
    .replaceAll(' !', '!')
    .replaceAll(' ,', ',')
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re")
}
