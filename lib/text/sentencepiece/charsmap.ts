import { DataError } from '../../base/errors.js'
import { AlignedBuilder, type AlignedText } from '../aligned.js'
import { STEP, type Steps } from '../steps.js'

/**
 * SentencePiece's compiled normalization rules: the size of a double-array trie, the trie (32-bit units in the layout of
 * https://github.com/s-yata/darts-clone), then the replacements, each terminated by a zero byte.
 */
export class Charsmap {
  readonly #units: Uint32Array
  readonly #replacements: Buffer
  /** End of the longest match of the last search. */
  end = 0

  /** @throws DataError for inconsistent sizes */
  constructor(bytes: Uint8Array, file: string) {
    const fail = (what: string): never => {
      throw new DataError(`${file}: precompiled_charsmap: ${what}`, { file, entry: 'precompiled_charsmap' })
    }
    if (bytes.length < 8) fail(`expected at least 8 bytes, got ${bytes.length}`)
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const size = view.getUint32(0, true)
    if (size % 4 !== 0 || size < 4 || size > bytes.length - 4) {
      fail(`expected a trie within the ${bytes.length} bytes, got a size of ${size}`)
    }
    this.#units = new Uint32Array(size / 4)
    for (let i = 0; i < this.#units.length; i++) this.#units[i] = view.getUint32(4 + 4 * i, true)
    this.#replacements = Buffer.from(bytes.buffer, bytes.byteOffset + 4 + size, bytes.length - 4 - size)
    if (this.#replacements.length > 0 && this.#replacements.at(-1) !== 0) fail('expected a zero byte at the end')
  }

  /** Return the replacement of the longest or first rule at `start`, or undefined; sets `end`. */
  search(bytes: Uint8Array, start: number, limit: number, which: 'longest' | 'first'): string | undefined {
    const units = this.#units
    let found = -1
    let node = 0
    let unit = units[0]!
    node ^= offset(unit)
    for (let i = start; i < limit; i++) {
      const byte = bytes[i]!
      node = (node ^ byte) >>> 0
      if (node >= units.length) break
      unit = units[node]!
      if ((unit & 0x800000ff) !== byte) break
      node = (node ^ offset(unit)) >>> 0
      if (((unit >>> 8) & 1) === 1) {
        if (node >= units.length) break
        found = units[node]! & 0x7fffffff
        this.end = i + 1
        if (which === 'first') break
      }
    }
    return found === -1 || found >= this.#replacements.length ? undefined : this.#text(found)
  }

  #text(start: number): string {
    const end = this.#replacements.indexOf(0, start)
    return this.#replacements.toString('utf8', start, end === -1 ? undefined : end)
  }
}

function offset(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6)
}

/**
 * Return the `Precompiled` normalizer of a tokenizer.json. Unlike SentencePiece it looks up whole graphemes of up to five bytes, then
 * single characters, and the first rule that matches the start of either replaces all of it.
 */
export function graphemeCharsmap(bytes: Uint8Array, file: string): (text: AlignedText) => Steps<AlignedText> {
  const charsmap = new Charsmap(bytes, file)
  const graphemes = new Intl.Segmenter('und', { granularity: 'grapheme' })
  const known = new Map<string, string | undefined>()
  const lookUp = (text: string): string | undefined => {
    if (known.has(text)) return known.get(text)
    const encoded = Buffer.from(text)
    const found = charsmap.search(encoded, 0, encoded.length, 'first')
    if (known.size < 10_000) known.set(text, found)
    return found
  }
  return function* (source) {
    const builder = new AlignedBuilder(source)
    let next = STEP
    for (const { segment, index } of graphemes.segment(source.text)) {
      if (index >= next) {
        yield
        next = index + STEP
      }
      const whole = Buffer.byteLength(segment) < 6 ? lookUp(segment) : undefined
      if (whole !== undefined) {
        replace(builder, segment, whole, index)
        continue
      }
      let at = index
      for (const character of segment) {
        const replaced = lookUp(character)
        if (replaced === undefined) builder.keep(at, at + character.length)
        else replace(builder, character, replaced, at)
        at += character.length
      }
    }
    return builder.done()
  }
}

/** Align a replacement character by character; additional characters stand for the last one. */
function replace(builder: AlignedBuilder, old: string, changed: string, base: number): void {
  const characters = [...old]
  let from = base
  let i = 0
  for (const character of changed) {
    builder.add(character, from, from + characters[i]!.length)
    if (i + 1 < characters.length) from += characters[i++]!.length
  }
}
