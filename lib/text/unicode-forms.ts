import { DataError } from '../base/errors.js'
import { AlignedBuilder, type AlignedText, characterAt } from './aligned.js'
import { STEP, type Steps } from './steps.js'

export type Form = 'NFC' | 'NFD' | 'NFKC' | 'NFKD'

// Limit on consecutive marks, because sorting them takes quadratic time. Unicode's stream-safe texts have at most 30.
const MOST_MARKS = 10_000

// A character that is not a mark, with the marks after it.
const stretch = /\P{M}\p{M}*/gu

/**
 * Return a normalizer for a Unicode normalization form (https://unicode.org/reports/tr15/). Ranges that can be normalized separately
 * are, to keep offsets narrow.
 */
export function unicode(form: Form): (text: AlignedText) => Steps<AlignedText> {
  return function* (source) {
    const { text } = source
    for (const [marks] of text.matchAll(/\p{M}+/gu)) {
      if (marks.length > MOST_MARKS) {
        throw new DataError(`text: expected at most ${MOST_MARKS} marks on one character, got ${marks.length}`)
      }
    }
    const whole = text.normalize(form)
    if (whole === text) return source
    const builder = new AlignedBuilder(source)
    let next = STEP
    for (const [from, to] of stretches(text, form)) {
      const part = text.slice(from, to)
      if (part.normalize(form) === part) builder.keep(from, to)
      else yield* align(builder, part, from, form)
      if (to < next) continue
      yield
      next = to + STEP
    }
    const made = builder.done()
    if (made.text === whole) return made
    const all = new AlignedBuilder(source)
    yield* align(all, text, 0, form)
    return all.done()
  }
}

/** Keep neighbors together if they compose although neither is a mark, such as the letters of Hangul. */
function* stretches(text: string, form: Form): Generator<[number, number]> {
  let from = 0
  let to = 0
  for (const match of text.matchAll(stretch)) {
    const part = match[0]
    const apart = text.slice(from, to).normalize(form) + part.normalize(form)
    if (to > from && text.slice(from, match.index + part.length).normalize(form) === apart) {
      yield [from, to]
      from = match.index
    }
    to = match.index + part.length
  }
  yield [from, text.length]
}

/** A character of normalized text, and the change of the number of characters at it. */
interface Made {
  character: string
  change: number
}

/**
 * Compute offsets as the tokenizers library does: it decomposes, sorts and composes, and counts added or removed characters at each
 * character. Added characters get the offset of the previous one; after removed ones, characters are skipped.
 */
function* align(builder: AlignedBuilder, part: string, base: number, form: Form): Steps<void> {
  const old: number[] = []
  for (let i = 0; i < part.length; i += characterAt(part, i).length) old.push(i)
  let next = 0
  let count = 0
  for (const { character, change } of yield* composed(part, form)) {
    if (++count % STEP === 0) yield
    const index = Math.min(change > 0 ? Math.max(next - 1, 0) : next, old.length - 1)
    builder.add(character, base + old[index]!, base + (old[index + 1] ?? part.length))
    if (change <= 0) next += 1 - change
  }
}

function* composed(part: string, form: Form): Steps<Made[]> {
  const single = form === 'NFKC' || form === 'NFKD' ? 'NFKD' : 'NFD'
  const apart: Made[] = []
  for (const character of part) {
    for (const [i, piece] of [...character.normalize(single)].entries()) {
      apart.push({ character: piece, change: i === 0 ? 0 : 1 })
      if (apart.length % STEP === 0) yield
    }
  }
  // Sorting is stable, so the first unused equal character is the right one.
  const ordered = yield* inOrder(part.normalize(single), apart)
  if (form === single) return ordered
  const waiting = yield* queued(ordered)
  const all: Made[] = []
  for (const character of part.normalize(form)) {
    const pieces = Array.from(character.normalize('NFD'), (piece) => waiting.take(piece)?.change ?? 0)
    all.push({ character, change: pieces.reduce((sum, change) => sum + change, 1 - pieces.length) })
    if (all.length % STEP === 0) yield
  }
  return all
}

function* inOrder(text: string, made: readonly Made[]): Steps<Made[]> {
  const waiting = yield* queued(made)
  const ordered: Made[] = []
  for (const character of text) {
    ordered.push(waiting.take(character) ?? { character, change: 0 })
    if (ordered.length % STEP === 0) yield
  }
  return ordered
}

function* queued(all: readonly Made[]): Steps<Waiting> {
  const waiting = new Waiting()
  for (let from = 0; from < all.length; from += STEP) {
    waiting.put(all.slice(from, from + STEP))
    if (from > 0) yield
  }
  return waiting
}

/** Return the positions of each character, in order. */
class Waiting {
  readonly #queues = new Map<string, { made: Made[]; next: number }>()

  put(all: readonly Made[]): void {
    for (const one of all) {
      const queue = this.#queues.get(one.character)
      if (queue === undefined) this.#queues.set(one.character, { made: [one], next: 0 })
      else queue.made.push(one)
    }
  }

  take(character: string): Made | undefined {
    const queue = this.#queues.get(character)
    return queue?.made[queue.next++]
  }
}
