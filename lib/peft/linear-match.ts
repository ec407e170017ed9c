/**
 * Patterns in Python's syntax, matched in linear time: all ways through a pattern are followed at once (Thompson, "Regular
 * Expression Search Algorithm", CACM 1968), so that none is tried again. Lookbehind, back references, conditions, atomic
 * groups and possessive repetitions have no such form.
 */

/** Error for a pattern that has no equivalent that is matched in linear time. */
export class NotLinear extends Error {}

/** Error for an invalid pattern. */
export class BadPattern extends Error {}

type Test = (character: string) => boolean

type Step =
  | { type: 'character'; test: Test }
  | { type: 'split'; to: number; other: number }
  | { type: 'assert'; holds: (text: readonly string[], at: number) => boolean }
  | { type: 'look'; program: Step[]; negative: boolean }
  | { type: 'end' }

/** Maximum number of steps of a program with repetitions expanded: published patterns have some hundred. */
const MOST_STEPS = 20_000
const DEEPEST = 100

const isWord: Test = (one) => /[\p{L}\p{N}_]/u.test(one)
const isDigit: Test = (one) => /\p{Nd}/u.test(one)
const isSpace: Test = (one) => /\s/u.test(one)
const not =
  (test: Test): Test =>
  (one) =>
    !test(one)
const CLASSES: Record<string, Test> = {
  ...{ w: isWord, W: not(isWord), d: isDigit, D: not(isDigit), s: isSpace, S: not(isSpace) },
}
const CODES: Record<string, number> = { x: 2, u: 4, U: 8 }
const CONTROLS: Record<string, string> = { n: '\n', r: '\r', t: '\t', f: '\f', v: '\v', a: '\x07', '0': '\0' }

const isWordAt = (text: readonly string[], at: number) => at >= 0 && at < text.length && isWord(text[at] as string)
const isEdge = (text: readonly string[], at: number) => isWordAt(text, at - 1) !== isWordAt(text, at)
const isEnd = (text: readonly string[], at: number) => at === text.length
const isLastLine = (text: readonly string[], at: number) =>
  at === text.length || (at === text.length - 1 && text[at] === '\n')

/** A piece of a program whose last step is followed by the next. */
type Fragment = Step[]

class Reader {
  #at = 0
  #depth = 0
  readonly #units: string[]

  constructor(source: string) {
    this.#units = [...source]
  }

  whole(): Fragment {
    const program = this.#choice()
    if (this.#at < this.#units.length) throw new BadPattern('unbalanced parenthesis')
    return program
  }

  #peek(text: string): boolean {
    return this.#units.slice(this.#at, this.#at + text.length).join('') === text
  }

  #take(text: string): boolean {
    if (!this.#peek(text)) return false
    this.#at += text.length
    return true
  }

  #choice(): Fragment {
    if (++this.#depth > DEEPEST) throw new NotLinear(`more than ${DEEPEST} groups inside each other`)
    const branches = [this.#sequence()]
    while (this.#take('|')) branches.push(this.#sequence())
    this.#depth--
    return branches.reduceRight((rest, branch) => either(branch, rest))
  }

  #sequence(): Fragment {
    const made: Fragment = []
    while (this.#at < this.#units.length && !this.#peek('|') && !this.#peek(')')) {
      append(made, this.#repeated(this.#term()))
    }
    return made
  }

  #repeated(item: Fragment): Fragment {
    const bounds = this.#bounds()
    if (bounds === undefined) return item
    const [least, most] = bounds
    if (this.#take('+')) throw new NotLinear('a possessive repetition')
    this.#take('?') // How much is taken first does not change whether the whole matches.
    if (this.#bounds() !== undefined) throw new BadPattern('multiple repeat')
    const made: Fragment = []
    for (let i = 0; i < least; i++) append(made, item)
    if (most === Number.POSITIVE_INFINITY) return append(made, loop(item))
    const optional = either(item, [])
    for (let i = least; i < most; i++) append(made, optional)
    return made
  }

  #bounds(): [number, number] | undefined {
    if (this.#take('*')) return [0, Number.POSITIVE_INFINITY]
    if (this.#take('+')) return [1, Number.POSITIVE_INFINITY]
    if (this.#take('?')) return [0, 1]
    if (!this.#peek('{')) return undefined
    const end = this.#units.indexOf('}', this.#at)
    const inside = end === -1 || end - this.#at > 30 ? '' : this.#units.slice(this.#at + 1, end).join('')
    const parts = inside.split(',')
    const [from = '', to] = parts
    const isBounds = parts.length <= 2 && parts.every((part) => /^\d*$/.test(part)) && inside !== '' && inside !== ','
    if (!isBounds) return undefined
    this.#at = end + 1
    const least = Number(from)
    const most = to === undefined ? least : to === '' ? Number.POSITIVE_INFINITY : Number(to)
    if (most < least) throw new BadPattern('min repeat greater than max repeat')
    return [least, most]
  }

  #term(): Fragment {
    const unit = this.#units[this.#at++] as string
    if (unit === '(') return this.#group()
    if (unit === '[') return [{ type: 'character', test: this.#class() }]
    if (unit === '.') return [{ type: 'character', test: (one) => one !== '\n' }]
    if (unit === '^') return [{ type: 'assert', holds: (_, at) => at === 0 }]
    if (unit === '$') return [{ type: 'assert', holds: isLastLine }]
    if (unit === '\\') return [this.#escape()]
    if ('*+?'.includes(unit)) throw new BadPattern('nothing to repeat')
    return [{ type: 'character', test: (one) => one === unit }]
  }

  #group(): Fragment {
    let look: boolean | undefined
    if (this.#take('?')) {
      if (this.#take('=')) look = false
      else if (this.#take('!')) look = true
      else if (this.#take('P<')) {
        const end = this.#units.indexOf('>', this.#at)
        if (end === -1) throw new BadPattern('missing >, unterminated name')
        this.#at = end + 1
      } else if (!this.#take(':')) throw new NotLinear(`a group that begins with (?${this.#units[this.#at] ?? ''}`)
    }
    const inside = this.#choice()
    if (!this.#take(')')) throw new BadPattern('missing ), unterminated subpattern')
    return look === undefined ? inside : [{ type: 'look', program: [...inside, { type: 'end' }], negative: look }]
  }

  #escape(): Step {
    const unit = this.#units[this.#at++]
    if (unit === undefined) throw new BadPattern('bad escape (end of pattern)')
    if (Object.hasOwn(CLASSES, unit)) return { type: 'character', test: CLASSES[unit] as Test }
    if (unit === 'b') return { type: 'assert', holds: isEdge }
    if (unit === 'B') return { type: 'assert', holds: (text, at) => !isEdge(text, at) }
    if (unit === 'A') return { type: 'assert', holds: (_, at) => at === 0 }
    if (unit === 'Z') return { type: 'assert', holds: isEnd }
    if (/[1-9]/.test(unit)) throw new NotLinear('a back reference')
    const character = this.#literal(unit)
    return { type: 'character', test: (one) => one === character }
  }

  /** The character that an escape stands for. */
  #literal(unit: string): string {
    if (Object.hasOwn(CONTROLS, unit)) return CONTROLS[unit] as string
    const digits = Object.hasOwn(CODES, unit) ? CODES[unit] : undefined
    if (digits === undefined) {
      if (/[a-zA-Z0-9]/.test(unit)) throw new BadPattern(`bad escape \\${unit}`)
      return unit
    }
    const code = this.#units.slice(this.#at, this.#at + digits).join('')
    this.#at += digits
    const isCode = code.length === digits && /^[0-9a-fA-F]+$/.test(code) && Number.parseInt(code, 16) <= 0x10ffff
    if (!isCode) throw new BadPattern(`incomplete escape \\${unit}${code}`)
    return String.fromCodePoint(Number.parseInt(code, 16))
  }

  #class(): Test {
    const negative = this.#take('^')
    const tests: Test[] = []
    for (let first = true; first || !this.#peek(']'); first = false) {
      const low = this.#member()
      const isRange = this.#peek('-') && this.#units[this.#at + 1] !== ']' && this.#at + 1 < this.#units.length
      if (!isRange) {
        tests.push(typeof low === 'string' ? (one) => one === low : low)
        continue
      }
      this.#at++
      const high = this.#member()
      if (typeof low !== 'string' || typeof high !== 'string') throw new BadPattern('bad character range')
      const [from, to] = [low.codePointAt(0) as number, high.codePointAt(0) as number]
      if (to < from) throw new BadPattern('bad character range')
      tests.push((one) => (one.codePointAt(0) as number) >= from && (one.codePointAt(0) as number) <= to)
    }
    this.#at++
    const any: Test = (one) => tests.some((test) => test(one))
    return negative ? not(any) : any
  }

  #member(): string | Test {
    const unit = this.#units[this.#at++]
    if (unit === undefined) throw new BadPattern('unterminated character set')
    if (unit !== '\\') return unit
    const escaped = this.#units[this.#at++]
    if (escaped === undefined) throw new BadPattern('unterminated character set')
    return (Object.hasOwn(CLASSES, escaped) && CLASSES[escaped]) || (escaped === 'b' ? '\b' : this.#literal(escaped))
  }
}

/** Append a fragment to another. */
function append(program: Fragment, more: Fragment): Fragment {
  if (program.length + more.length > MOST_STEPS) throw new NotLinear(`more than ${MOST_STEPS} steps`)
  for (const step of moved(more, program.length)) program.push(step)
  return program
}

/** The steps of a fragment where it begins at another place. */
const moved = (fragment: Fragment, by: number): Fragment =>
  fragment.map((step) => (step.type === 'split' ? { ...step, to: step.to + by, other: step.other + by } : step))

/** A step that is always taken to one place. */
const jump = (to: number): Step => ({ type: 'split', to, other: to })

function either(one: Fragment, two: Fragment): Fragment {
  const second = one.length + 2
  return [{ type: 'split', to: 1, other: second }, ...moved(one, 1), jump(second + two.length), ...moved(two, second)]
}

const loop = (item: Fragment): Fragment => [
  { type: 'split', to: 1, other: item.length + 2 },
  ...moved(item, 1),
  jump(0),
]

/** Number of steps that may still be taken by all patterns with the same budget. */
export interface Work {
  left: number
}

/** A pattern that is matched in linear time. */
export class LinearPattern {
  readonly #program: Step[]
  /** The source, where each of its characters matches itself or is a dot, as in the name of a module. */
  readonly #name: string | undefined

  /** @throws NotLinear, BadPattern */
  constructor(source: string) {
    this.#name = /^[a-zA-Z0-9_.]+$/.test(source) ? source : undefined
    this.#program = this.#name === undefined ? [...new Reader(source).whole(), { type: 'end' }] : []
  }

  /**
   * Return whether the pattern matches the whole text, or all of it after one of its dots.
   * @throws NotLinear where `work` is used up
   */
  matchesEnd(text: string, work: Work): boolean {
    if (this.#name !== undefined) return endsLike(text, this.#name)
    const run = new Run([...text], work)
    return run.from(this.#program, run.startsBehindDots(), true)
  }
}

function endsLike(text: string, name: string): boolean {
  const from = text.length - name.length
  if (from < 0 || (from > 0 && text[from - 1] !== '.')) return false
  for (let i = 0; i < name.length; i++) if (name[i] !== '.' && name[i] !== text[from + i]) return false
  return true
}

class Run {
  /** Results of lookaheads by position. */
  readonly #looks = new Map<Step, Map<number, boolean>>()

  constructor(
    readonly text: readonly string[],
    readonly work: Work,
  ) {}

  startsBehindDots(): readonly number[] {
    return [0, ...this.text.flatMap((one, at) => (one === '.' ? [at + 1] : []))]
  }

  /** @param starts one place, or all of those from which a match may begin; @param whole whether it has to reach the end */
  from(program: readonly Step[], starts: number | readonly number[], whole: boolean): boolean {
    const begins = new Set(typeof starts === 'number' ? [starts] : starts)
    const { text } = this
    const first = Math.min(...begins)
    const last = Math.max(...begins)
    let states: number[] = []
    for (let at = first; at <= text.length; at++) {
      const reached = this.#closure(program, begins.has(at) ? [...states, 0] : states, at)
      if (reached.isOver && (!whole || at === text.length)) return true
      if (reached.states.length === 0 && at >= last) return false
      const character = text[at]
      if (character === undefined) return false
      states = []
      for (const state of reached.states) {
        const step = program[state] as Step
        if (step.type === 'character' && step.test(character)) states.push(state + 1)
      }
    }
    return false
  }

  /** All steps on characters that are reached without one. */
  #closure(program: readonly Step[], from: readonly number[], at: number): { states: number[]; isOver: boolean } {
    const states: number[] = []
    const seen = new Set<number>()
    const open = [...from]
    let isOver = false
    for (let state = open.pop(); state !== undefined; state = open.pop()) {
      if (seen.has(state)) continue
      seen.add(state)
      if (--this.work.left < 0) throw new NotLinear('more work than all patterns of one configuration may have')
      const step = program[state] as Step
      if (step.type === 'end') isOver = true
      else if (step.type === 'character') states.push(state)
      else if (step.type === 'split') open.push(step.to, step.other)
      else if (step.type === 'assert' ? step.holds(this.text, at) : this.#look(step, at)) open.push(state + 1)
    }
    return { states, isOver }
  }

  #look(step: Step & { type: 'look' }, at: number): boolean {
    const places = this.#looks.get(step) ?? new Map<number, boolean>()
    this.#looks.set(step, places)
    let holds = places.get(at)
    if (holds === undefined) {
      holds = this.from(step.program, at, false) !== step.negative
      places.set(at, holds)
    }
    return holds
  }
}
