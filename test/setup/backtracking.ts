/**
 * Tells whether JavaScript's backtracking engine can need more than linear time for a regular expression.
 *
 * The pattern becomes an automaton without empty steps (Glushkov's), whose states are the pattern's characters and character
 * classes. Backtracking is exponential where a state leads back to itself in two ways with one text, and polynomial where
 * two different loops p and q take one text each and it also leads from p to q (Weideman et al., "Analyzing Matching Time
 * Behavior of Backtracking Regular Expression Matchers by Using Ambiguity of NFA", CIAA 2016). The search for a match at each
 * place of a text is a loop of its own in front of the pattern.
 *
 * It errs on one side only: assertions count as if they could always hold and always fail, a back reference as any text.
 * A sticky pattern is tried at one place: a caller that tries one at every place of a text makes a search of its own.
 */
export function backtracking(source: string, flags = ''): string | undefined {
  let automaton: Automaton
  try {
    automaton = new Automaton(source, flags)
  } catch (error) {
    if (error instanceof TooHard) return error.message
    throw error
  }
  return automaton.ambiguity()
}

/** A pattern that the analysis does not decide: it counts as one that backtracks. */
class TooHard extends Error {}

type Node =
  | { type: 'atom'; source: string }
  | { type: 'any'; source: string }
  | { type: 'sequence'; items: Node[] }
  | { type: 'choice'; items: Node[] }
  | { type: 'repeat'; item: Node; least: number; most: number }
  | { type: 'assertion'; source: string }
  | { type: 'look'; item: Node }

/** Reads a pattern that JavaScript has accepted. */
class Reader {
  at = 0
  readonly #units: string[]

  constructor(
    source: string,
    readonly flags: string,
  ) {
    this.#units = /[uv]/.test(flags) ? [...source] : source.split('')
  }

  choice(): Node {
    const items = [this.#sequence()]
    while (this.#take('|')) items.push(this.#sequence())
    return items.length === 1 ? (items[0] as Node) : { type: 'choice', items }
  }

  #sequence(): Node {
    const items: Node[] = []
    for (;;) {
      const unit = this.#units[this.at]
      if (unit === undefined || unit === '|' || unit === ')') return { type: 'sequence', items }
      items.push(this.#quantified(this.#term()))
    }
  }

  #term(): Node {
    const unit = this.#next()
    if (unit === '^' || unit === '$') return { type: 'assertion', source: unit }
    if (unit === '[') return { type: 'atom', source: this.#classBody() }
    if (unit === '\\') return this.#escape()
    if (unit === '(') return this.#group()
    return { type: 'atom', source: unit }
  }

  #group(): Node {
    if (!this.#take('?')) return this.#closed()
    const kind = this.#next()
    if (kind === ':') return this.#closed()
    if (kind === '=' || kind === '!') return { type: 'look', item: this.#closed() }
    if (kind !== '<') throw new TooHard('a group with flags of its own')
    const behind = this.#units[this.at]
    if (behind === '=' || behind === '!') {
      this.at += 1
      const item = this.#closed()
      if (isUnbounded(item)) throw new TooHard('a repetition without end in a lookbehind')
      return { type: 'assertion', source: '(?<' }
    }
    while (this.#next() !== '>') {}
    return this.#closed()
  }

  #closed(): Node {
    const inside = this.choice()
    this.at += 1
    return inside
  }

  #classBody(): string {
    let body = '['
    for (let depth = 1; depth > 0; ) {
      const unit = this.#next()
      body += unit
      if (unit === '\\') body += this.#next()
      else if (unit === '[' && this.flags.includes('v')) depth += 1
      else if (unit === ']') depth -= 1
    }
    return body
  }

  #escape(): Node {
    const unit = this.#next()
    if (unit === 'b' || unit === 'B') return { type: 'assertion', source: `\\${unit}` }
    if (unit === 'k' || /[1-9]/.test(unit)) {
      if (unit === 'k') while (this.#next() !== '>') {}
      return { type: 'any', source: `\\${unit}` }
    }
    const braced = /[uv]/.test(this.flags) && /[upP]/.test(unit) && this.#units[this.at] === '{'
    let rest = ''
    if (braced) {
      do rest += this.#next()
      while (!rest.endsWith('}'))
    } else {
      const length = { u: 4, x: 2, c: 1 }[unit] ?? 0
      for (let i = 0; i < length; i++) rest += this.#next()
    }
    return { type: 'atom', source: `\\${unit}${rest}` }
  }

  #quantified(item: Node): Node {
    const unit = this.#units[this.at]
    const simple = unit === '*' ? [0, Infinity] : unit === '+' ? [1, Infinity] : unit === '?' ? [0, 1] : undefined
    let [least, most] = simple ?? [1, 1]
    if (simple) this.at += 1
    else if (unit === '{') {
      const [whole, from, comma, to] =
        /^\{(\d+)(,?)(\d*)\}/.exec(this.#units.slice(this.at, this.at + 40).join('')) ?? []
      if (whole === undefined) return item
      this.at += whole.length
      least = Number(from)
      most = comma === '' ? least : to === '' ? Infinity : Number(to)
    } else return item
    this.#take('?')
    return { type: 'repeat', item, least, most }
  }

  #next(): string {
    const unit = this.#units[this.at++]
    if (unit === undefined) throw new TooHard('a pattern that cannot be read')
    return unit
  }

  #take(unit: string): boolean {
    const found = this.#units[this.at] === unit
    if (found) this.at += 1
    return found
  }
}

function isUnbounded(node: Node): boolean {
  if (node.type === 'repeat') return node.most === Infinity || isUnbounded(node.item)
  if (node.type === 'sequence' || node.type === 'choice') return node.items.some(isUnbounded)
  return node.type === 'any' || (node.type === 'look' && isUnbounded(node.item))
}

/** Characters of every kind that patterns tell apart: all of Latin-1, and some of each Unicode category and script. */
const SAMPLES = [
  ...Array.from({ length: 256 }, (_, i) => String.fromCodePoint(i)),
  ...'ĀāıİſǅʰͰͅΣςאبकाกあアー漢한Ⅷ²०٣‿—–‘’“”„…•′€№™←∑①\u200b\u200d\u2028\u2029\u3000\ufeff\u1680\u0300\u0901\ue000\ufffd　。、「」',
  ...'😀👩🇩𝒳𐐀𠀀\u{e0041}\u{10ffff}',
]

/** Which samples a character class takes. */
type Bits = Uint8Array

interface Piece {
  first: number[]
  last: number[]
  /** Those of `last` behind which nothing can fail any more. */
  sure: number[]
  isNullable: boolean
  isSurelyNullable: boolean
}

const MOST_STATES = 1500
const SEARCH = 0

class Automaton {
  readonly #flags: string
  readonly #samples: string[]
  readonly #sets: Bits[] = []
  readonly #names: string[] = []
  /** How often a state follows another. */
  readonly #next: Map<number, number>[] = []
  readonly #classes = new Map<string, Bits>()
  /** Which kinds of characters a state takes. */
  readonly #masks: bigint[]
  readonly #reached: Set<number>[]

  constructor(source: string, flags: string) {
    this.#flags = flags.replace(/[gyd]/g, '')
    this.#samples = [...new Set([...SAMPLES, ...source])]
    const node = new Reader(source, flags).choice()
    this.#state('the search', this.#all())
    const isMultiline = flags.includes('m')
    const line = isMultiline ? this.#state('\\n', this.#bits('\\n')) : SEARCH
    this.#follow([SEARCH], isMultiline ? [SEARCH, line] : [SEARCH])
    const isSticky = flags.includes('y')
    const sure: number[] = []
    for (const item of node.type === 'choice' ? node.items : [node]) {
      const isAnchored = startsAnchored(item)
      const piece = this.#piece(item)
      if (!isAnchored && !isSticky) this.#follow([SEARCH], piece.first)
      else if (isAnchored && isMultiline && !isSticky) this.#follow([line], piece.first)
      sure.push(...piece.sure)
    }
    // A match is certain there, and nothing is tried again.
    for (const state of sure) this.#next[state]?.clear()
    const ended = new Set(sure)
    for (const next of this.#next) for (const state of next.keys()) if (ended.has(state)) next.delete(state)
    // Samples that all classes take or leave alike count once.
    const kinds = new Map<string, number[]>()
    for (const i of this.#samples.keys()) {
      const takers = [...this.#sets.keys()].filter((state) => this.#sets[state]?.[i] === 1)
      kinds.set(takers.join(), takers)
    }
    this.#masks = this.#sets.map(() => 0n)
    for (const [bit, takers] of [...kinds.values()].entries()) {
      for (const state of takers) this.#masks[state] = (this.#masks[state] as bigint) | (1n << BigInt(bit))
    }
    this.#reached = this.#next.map((_, state) => this.#reachable(state))
  }

  /** Two loops, or two ways of one, that take the same text. */
  ambiguity(): string | undefined {
    const loops = this.#loops()
    const decided = new Set<number>()
    for (const [state, loop] of loops) {
      // Two ways from one state of a loop are two ways from each.
      if (decided.has(state)) continue
      for (const other of loop) decided.add(other)
      if (this.#isTwofold(state, loop)) return `exponential: ${this.#names[state]} repeats inside a repetition`
    }
    for (const [p, loop] of loops) {
      for (const [q, other] of loops) {
        // In one loop that would be two ways from p to p: by v, v to q and back, and by v to q, v and back.
        if (!loop.has(q) && this.#reached[p]?.has(q) && this.#leads(p, loop, q, other)) {
          return `polynomial: ${this.#names[p]} and ${this.#names[q]} repeat over the same text`
        }
      }
    }
    return undefined
  }

  #all(): Bits {
    return new Uint8Array(this.#samples.length).fill(1)
  }

  #bits(source: string): Bits {
    let bits = this.#classes.get(source)
    if (bits === undefined) {
      const one = new RegExp(`^(?:${source})$`, this.#flags.replace('m', ''))
      bits = Uint8Array.from(this.#samples, (sample) => (one.test(sample) ? 1 : 0))
      // Without the flag u, a character beyond the first plane is two units.
      if (!/[uv]/.test(this.#flags) && (source === '.' || source.startsWith('[^') || /^\\[SDW]$/.test(source))) {
        bits = bits.map((bit, i) => ((this.#samples[i] as string).length > 1 ? 1 : bit))
      }
      this.#classes.set(source, bits)
    }
    return bits
  }

  #state(name: string, bits: Bits): number {
    if (this.#sets.length >= MOST_STATES) throw new TooHard(`more than ${MOST_STATES} states`)
    this.#names.push(name)
    this.#next.push(new Map())
    return this.#sets.push(bits) - 1
  }

  #follow(from: readonly number[], to: readonly number[]): void {
    for (const one of from) {
      const next = this.#next[one] as Map<number, number>
      for (const other of to) next.set(other, (next.get(other) ?? 0) + 1)
    }
  }

  #piece(node: Node): Piece {
    if (node.type === 'atom' || node.type === 'any') {
      const isAny = node.type === 'any'
      const state = this.#state(node.source, isAny ? this.#all() : this.#bits(node.source))
      const all = [state]
      if (isAny) this.#follow(all, all)
      return { first: all, last: all, sure: isAny ? [] : all, isNullable: isAny, isSurelyNullable: false }
    }
    if (node.type === 'assertion') return { ...EMPTY, isSurelyNullable: false }
    if (node.type === 'look') return { ...EMPTY, first: this.#piece(node.item).first, isSurelyNullable: false }
    if (node.type === 'sequence') return node.items.reduce((piece, item) => this.#joined(piece, item), EMPTY)
    if (node.type === 'choice') {
      const pieces = node.items.map((item) => this.#piece(item))
      return {
        first: pieces.flatMap(({ first }) => first),
        last: pieces.flatMap(({ last }) => last),
        sure: pieces.flatMap(({ sure }) => sure),
        isNullable: pieces.some(({ isNullable }) => isNullable),
        isSurelyNullable: pieces.some(({ isSurelyNullable }) => isSurelyNullable),
      }
    }
    const { item, least, most } = node
    let piece = EMPTY
    const needed = most === Infinity ? Math.max(0, least - 1) : least
    for (let i = 0; i < needed; i++) piece = this.#joined(piece, item)
    if (most === Infinity) return this.#joined(piece, () => this.#loop(item, least === 0))
    const optional = (left: number): Piece => {
      if (left === 0) return EMPTY
      const inner = this.#joined(this.#piece(item), () => optional(left - 1))
      return { ...inner, isNullable: true, isSurelyNullable: true }
    }
    return this.#joined(piece, () => optional(most - least))
  }

  #loop(item: Node, isOptional: boolean): Piece {
    const piece = this.#piece(item)
    this.#follow(piece.last, piece.first)
    return isOptional ? { ...piece, isNullable: true, isSurelyNullable: true } : piece
  }

  #joined(before: Piece, item: Node | (() => Piece)): Piece {
    const after = typeof item === 'function' ? item() : this.#piece(item)
    this.#follow(before.last, after.first)
    return {
      first: before.isNullable ? [...before.first, ...after.first] : before.first,
      last: after.isNullable ? [...before.last, ...after.last] : after.last,
      sure: after.isSurelyNullable ? [...before.sure, ...after.sure] : after.sure,
      isNullable: before.isNullable && after.isNullable,
      isSurelyNullable: before.isSurelyNullable && after.isSurelyNullable,
    }
  }

  #reachable(from: number): Set<number> {
    const found = new Set<number>()
    const open = [from]
    for (let state = open.pop(); state !== undefined; state = open.pop()) {
      for (const next of (this.#next[state] as Map<number, number>).keys()) {
        if (found.has(next)) continue
        found.add(next)
        open.push(next)
      }
    }
    return found
  }

  /** Each state that leads back to itself, with all that lie on such a way. */
  #loops(): Map<number, Set<number>> {
    const loops = new Map<number, Set<number>>()
    for (const [state, all] of this.#reached.entries()) {
      if (all.has(state)) loops.set(state, new Set([...all].filter((other) => this.#reached[other]?.has(state))))
    }
    return loops
  }

  /** Whether one text leads from a state back to it in two ways. */
  #isTwofold(state: number, loop: Set<number>): boolean {
    for (const from of loop) {
      for (const [to, times] of this.#next[from] as Map<number, number>) if (times > 1 && loop.has(to)) return true
    }
    const isGoal = (a: number, b: number, hasParted: boolean) => hasParted && a === state && b === state
    const seen = new Set<string>()
    const open: [number, number, boolean][] = [[state, state, false]]
    for (let pair = open.pop(); pair !== undefined; pair = open.pop()) {
      const [a, b, hasParted] = pair
      for (const x of this.#steps(a, loop)) {
        for (const y of this.#steps(b, loop)) {
          if (!this.#meet(x, y, y)) continue
          const next: [number, number, boolean] = [x, y, hasParted || x !== y]
          if (isGoal(...next)) return true
          const key = next.join()
          if (seen.has(key)) continue
          seen.add(key)
          open.push(next)
        }
      }
    }
    return false
  }

  /** Whether one text leads from p to p, from p to q, and from q to q. */
  #leads(p: number, loop: Set<number>, q: number, other: Set<number>): boolean {
    const between = new Set([...(this.#reached[p] as Set<number>)].filter((state) => this.#reached[state]?.has(q)))
    const seen = new Set<string>()
    const open: [number, number, number][] = [[p, p, q]]
    for (let triple = open.pop(); triple !== undefined; triple = open.pop()) {
      for (const x of this.#steps(triple[0], loop)) {
        for (const z of this.#steps(triple[2], other)) {
          if (!this.#meet(x, z, z)) continue
          for (const y of this.#steps(triple[1], between)) {
            if (!this.#meet(x, y, z)) continue
            if (x === p && y === q && z === q) return true
            const key = `${x},${y},${z}`
            if (seen.has(key)) continue
            seen.add(key)
            open.push([x, y, z])
          }
        }
      }
    }
    return false
  }

  *#steps(from: number, within: Set<number>): Generator<number> {
    for (const to of (this.#next[from] as Map<number, number>).keys()) if (within.has(to)) yield to
  }

  /** Whether a character is of all three states. */
  #meet(a: number, b: number, c: number): boolean {
    const [one, two, three] = [this.#masks[a], this.#masks[b], this.#masks[c]] as [bigint, bigint, bigint]
    return (one & two & three) !== 0n
  }
}

const EMPTY: Piece = { first: [], last: [], sure: [], isNullable: true, isSurelyNullable: true }

function startsAnchored(node: Node): boolean {
  if (node.type === 'choice') return node.items.every(startsAnchored)
  if (node.type === 'assertion') return node.source === '^'
  return node.type === 'sequence' && node.items.length > 0 && startsAnchored(node.items[0] as Node)
}
