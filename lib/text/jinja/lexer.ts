import { JinjaError, LIMITS } from './errors.js'
import { isSpace, pointAt, trimEnd } from './unicode.js'

export type TokenType =
  | 'data'
  | 'variable_begin'
  | 'variable_end'
  | 'block_begin'
  | 'block_end'
  | 'name'
  | 'string'
  | 'integer'
  | 'float'
  | 'operator'
  | 'eof'

export interface Token {
  type: TokenType
  /** Source of an operator, a name or a number; value of a string or data. */
  value: string
  line: number
  column: number
}

const operators = new Set('+ - / // * % ** ~ [ ] ( ) { } == != > >= < <= = . : | , ;'.split(' '))
const closing: Record<string, string> = { '(': ')', '[': ']', '{': '}' }

const name = /[\p{L}\p{N}\p{M}\p{Pc}·]+/uy
const identifier = /^[\p{ID_Start}_]\p{ID_Continue}*$/u
const digits = /\d(?:_?\d)*/y
const exponent = /[eE][+-]?\d(?:_?\d)*/y
const integer = /0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0[xX](?:_?[\da-fA-F])+|[1-9](?:_?\d)*|0(?:_?0)*/y
const tag = /\{[{%#]/g
const rawBegin = /\{%[-+]?/y
const endraw = /\{%([-+]?)\s*endraw\s*(?:\+%\}|-%\}|%\}\n?)/g

/**
 * Tokenize a template as jinja2 does with `trim_blocks` and `lstrip_blocks`: line ends become `\n`; a line end at the end of the
 * template or after a block tag is dropped, as are blanks before a block tag on its line.
 * @throws JinjaError TemplateSyntaxError
 */
export function tokenize(template: string): Token[] {
  return new Lexer(template.replace(/\r\n?/g, '\n').replace(/\n$/, '')).run()
}

class Lexer {
  readonly #tokens: Token[] = []
  #at = 0
  /** Whether the current position is at the start of a line. */
  #lineStarts = true
  #line = 1
  #lineBegin = 0
  #lineEnd: number

  constructor(readonly source: string) {
    this.#lineEnd = lineEnd(source, 0)
  }

  run(): Token[] {
    const { source } = this
    while (this.#at < source.length) {
      tag.lastIndex = this.#at
      const found = tag.exec(source)
      if (found === null) {
        this.#push('data', source.slice(this.#at), this.#at)
        this.#at = source.length
        break
      }
      const begin = found.index
      const kind = found[0]
      let open = begin + 2
      const sign = source[open] === '-' || source[open] === '+' ? source[open++]! : ''
      this.#data(this.#at, begin, sign, kind !== '{{')
      this.#lineStarts = false
      if (kind === '{#') this.#comment(begin, open)
      else if (kind === '{%' && this.#raw(begin)) continue
      else {
        const block = kind === '{%'
        this.#push(block ? 'block_begin' : 'variable_begin', source.slice(begin, open), begin)
        this.#at = open
        this.#inside(block)
      }
    }
    this.#push('eof', '', source.length)
    return this.#tokens
  }

  #push(type: TokenType, value: string, at: number): void {
    this.#tokens.push({ type, value, ...this.#place(at) })
  }

  #place(at: number): { line: number; column: number } {
    // Positions are requested in order, so each line end is searched once.
    while (this.#lineEnd < at) {
      this.#line++
      this.#lineBegin = this.#lineEnd + 1
      this.#lineEnd = lineEnd(this.source, this.#lineBegin)
    }
    return { line: this.#line, column: at - this.#lineBegin + 1 }
  }

  #fail(message: string, at: number): never {
    throw new JinjaError('TemplateSyntaxError', message, this.#place(at))
  }

  /** Read the text before a tag. */
  #data(from: number, to: number, sign: string, strips: boolean): void {
    let text = this.source.slice(from, to)
    if (sign === '-') text = trimEnd(text)
    else if (sign !== '+' && strips) {
      const line = text.lastIndexOf('\n') + 1
      if (line > 0 || this.#lineStarts) {
        let blank = line
        while (blank < text.length && isSpace(text.charCodeAt(blank))) blank++
        if (blank === text.length) text = text.slice(0, line)
      }
    }
    if (text !== '') this.#push('data', text, from)
  }

  #comment(begin: number, open: number): void {
    const end = this.source.indexOf('#}', open)
    if (end === -1) {
      // As in jinja2, a tag at the end of a template may be unclosed.
      if (open < this.source.length) this.#fail('Missing end of comment tag', begin)
      this.#at = open
      return
    }
    this.#finishTag(end + 2, end > open ? this.source[end - 1]! : '', true)
  }

  /** Skip a closing tag; `-` skips following white space, and without `+` one line end is trimmed. */
  #finishTag(end: number, sign: string, trims: boolean): void {
    this.#at = end
    if (sign === '-') this.#skipSpace()
    else if (trims && sign !== '+' && this.source[end] === '\n') this.#at++
    this.#lineStarts = this.source[this.#at - 1] === '\n'
  }

  #skipSpace(): void {
    while (this.#at < this.source.length && isSpace(this.source.charCodeAt(this.#at))) this.#at++
  }

  #raw(begin: number): boolean {
    const { source } = this
    rawBegin.lastIndex = begin
    rawBegin.exec(source)
    let at = rawBegin.lastIndex
    while (at < source.length && isSpace(source.charCodeAt(at))) at++
    if (!source.startsWith('raw', at)) return false
    at += 3
    while (at < source.length && isSpace(source.charCodeAt(at))) at++
    const sign = source[at] === '-' ? '-' : ''
    if (!source.startsWith('%}', at + sign.length)) return false
    this.#finishTag(at + sign.length + 2, sign, false)
    const from = this.#at
    endraw.lastIndex = from
    const found = endraw.exec(source)
    if (found === null) {
      if (from < source.length) this.#fail('Missing end of raw directive', begin)
      return true
    }
    this.#data(from, found.index, found[1]!, true)
    const end = found.index + found[0].length
    this.#finishTag(end, found[0].endsWith('-%}') ? '-' : '+', false)
    return true
  }

  /** Read the tokens of a tag, up to its end. */
  #inside(block: boolean): void {
    const { source } = this
    const end = block ? '%}' : '}}'
    const open: string[] = []
    for (;;) {
      this.#skipSpace()
      const at = this.#at
      if (at >= source.length) return
      const character = source[at]!
      if (open.length === 0) {
        const signed = character === '-' || (block && character === '+')
        if (source.startsWith(end, signed ? at + 1 : at)) {
          this.#push(block ? 'block_end' : 'variable_end', end, at)
          this.#finishTag((signed ? at + 1 : at) + 2, signed ? character : '', block)
          return
        }
      }
      if (this.#number(at) || this.#name(at)) continue
      if (character === "'" || character === '"') {
        this.#string(at, character)
        continue
      }
      const two = source.slice(at, at + 2)
      const operator = operators.has(two) ? two : character
      if (!operators.has(operator))
        this.#fail(`unexpected char ${shownCharacter(character)} at ${pointAt(source, at)}`, at)
      if (operator in closing && open.push(closing[operator]!) > LIMITS.nesting) {
        throw new JinjaError('Limit', `nests deeper than ${LIMITS.nesting}`, this.#place(at))
      }
      if (operator === ')' || operator === ']' || operator === '}') {
        const expected = open.pop()
        if (expected === undefined) this.#fail(`unexpected '${operator}'`, at)
        if (expected !== operator) this.#fail(`unexpected '${operator}', expected '${expected}'`, at)
      }
      this.#push('operator', operator, at)
      this.#at = at + operator.length
    }
  }

  #match(pattern: RegExp, at: number): number {
    pattern.lastIndex = at
    return pattern.test(this.source) ? pattern.lastIndex : at
  }

  #number(at: number): boolean {
    const { source } = this
    const whole = this.#match(digits, at)
    if (whole === at) return false
    if (source[at - 1] !== '.') {
      const fraction = source[whole] === '.' ? this.#match(digits, whole + 1) : whole + 1
      const behind = fraction > whole + 1 ? fraction : whole
      const stop = this.#match(exponent, behind)
      if (stop > whole) {
        this.#push('float', source.slice(at, stop), at)
        this.#at = stop
        return true
      }
    }
    const stop = this.#match(integer, at)
    this.#push('integer', source.slice(at, stop), at)
    this.#at = stop
    return true
  }

  #name(at: number): boolean {
    const stop = this.#match(name, at)
    if (stop === at) return false
    const value = this.source.slice(at, stop)
    if (!identifier.test(value)) this.#fail('Invalid character in identifier', at)
    this.#push('name', value, at)
    this.#at = stop
    return true
  }

  #string(at: number, quote: string): void {
    const { source } = this
    let end = at + 1
    while (end < source.length && source[end] !== quote) end += source[end] === '\\' ? 2 : 1
    if (end >= source.length) this.#fail(`unexpected char ${shownCharacter(quote)} at ${pointAt(source, at)}`, at)
    this.#push('string', this.#unescape(source.slice(at + 1, end), at), at)
    this.#at = end + 1
  }

  /** Decode Python's `unicode-escape`. */
  #unescape(text: string, at: number): string {
    if (!text.includes('\\')) return text
    let result = ''
    let from = 0
    for (let i = text.indexOf('\\'); i !== -1; i = text.indexOf('\\', from)) {
      result += text.slice(from, i)
      const letter = String.fromCodePoint(text.codePointAt(i + 1)!)
      from = i + 1 + letter.length
      if (letter in simpleEscapes) result += simpleEscapes[letter]
      else if (letter >= '0' && letter <= '7') {
        while (from < i + 4 && text[from]! >= '0' && text[from]! <= '7') from++
        result += String.fromCharCode(Number.parseInt(text.slice(i + 1, from), 8))
      } else if (letter in hexEscapes) {
        const size = hexEscapes[letter]!
        const code = text.slice(from, from + size)
        if (code.length < size || !/^[\da-fA-F]+$/.test(code)) {
          this.#fail(`truncated \\${letter}${'X'.repeat(size)} escape`, at)
        }
        const point = Number.parseInt(code, 16)
        if (point > 0x10ffff) this.#fail('illegal Unicode character', at)
        result += String.fromCodePoint(point)
        from += size
      } else if (letter === 'N') {
        throw new JinjaError('Unsupported', 'the escape \\N is not supported in a chat template', this.#place(at))
      } else if (letter > '\x7f') {
        // jinja2 escapes other characters before it unescapes all, which separates their escape from its backslash.
        const code = letter.codePointAt(0)!.toString(16)
        const size = code.length <= 2 ? 2 : code.length <= 4 ? 4 : 8
        result += `\\${size === 2 ? 'x' : size === 4 ? 'u' : 'U'}${code.padStart(size, '0')}`
      } else result += `\\${letter}`
    }
    return result + text.slice(from)
  }
}

const lineEnd = (source: string, from: number): number => {
  const at = source.indexOf('\n', from)
  return at === -1 ? source.length : at
}

const shownCharacter = (character: string): string => (character === "'" ? `"'"` : `'${character}'`)

const simpleEscapes: Record<string, string> = {
  '\n': '',
  '\\': '\\',
  "'": "'",
  '"': '"',
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
}
const hexEscapes: Record<string, number> = { x: 2, u: 4, U: 8 }
