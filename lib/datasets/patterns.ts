import type { Dirent } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { ConfigError, DataError } from '../base/errors.js'
import { unopened } from '../files/byte-source.js'
import { globOf } from '../hub/select.js'

const MOST_FILES = 100_000
const DEEPEST_FOLDER = 16
const LONGEST_PATTERN = 4096
/** Maximum number of characters of all names that a pattern's braces expand to. */
const MOST_CHARACTERS = 2 ** 23

/**
 * Expand braces as a shell does: `{00000..00003}` counts, with leading zeros, and `{train,test}` lists. Braces may follow each
 * other, not contain each other.
 * @throws ConfigError for more than 100,000 names or 8 million characters of them, or a pattern of more than 4,096 characters
 */
export function expandBraces(pattern: string): string[] {
  if (pattern.length > LONGEST_PATTERN) {
    const shown = `${pattern.slice(0, 100)}…`
    throw new ConfigError(
      `${shown}: expected a pattern of at most ${LONGEST_PATTERN} characters, got ${pattern.length}`,
      { pattern: shown },
    )
  }
  let results = ['']
  let total = 0
  for (let at = 0; at < pattern.length; ) {
    const open = pattern.indexOf('{', at)
    const close = open < 0 ? -1 : pattern.indexOf('}', open)
    const words = close < 0 ? undefined : wordsOf(pattern.slice(open + 1, close), pattern)
    // Other braces are characters of the name.
    const end = close < 0 ? pattern.length : words === undefined ? close + 1 : open
    const text = pattern.slice(at, end)
    const parts = words ?? ['']
    if (results.length * parts.length > MOST_FILES) throw tooMany(pattern)
    const added = parts.reduce((sum, part) => sum + part.length, text.length * parts.length)
    total = total * parts.length + results.length * added
    if (total > MOST_CHARACTERS) {
      throw new ConfigError(
        `${pattern}: expected braces that expand to at most ${MOST_CHARACTERS} characters, got ${total}`,
        { pattern },
      )
    }
    results = results.flatMap((result) => parts.map((word) => result + text + word))
    at = words === undefined ? end : close + 1
  }
  return results
}

function wordsOf(inside: string, pattern: string): string[] | undefined {
  if (inside.includes(',')) return inside.split(',')
  const dots = inside.indexOf('..')
  const first = inside.slice(0, dots)
  const last = inside.slice(dots + 2)
  if (dots < 0 || !/^\d{1,15}$/.test(first) || !/^\d{1,15}$/.test(last)) return undefined
  const from = Number(first)
  const to = Number(last)
  if (Math.abs(to - from) >= MOST_FILES) throw tooMany(pattern)
  const width = /^0\d/.test(first) || /^0\d/.test(last) ? Math.max(first.length, last.length) : 0
  const step = to < from ? -1 : 1
  return Array.from({ length: Math.abs(to - from) + 1 }, (_, i) => String(from + step * i).padStart(width, '0'))
}

const tooMany = (pattern: string): ConfigError =>
  new ConfigError(`${pattern}: expected a pattern for at most ${MOST_FILES} files, got more`, { pattern })

export const isPattern = (text: string): boolean => /[*?[]/.test(text)

/**
 * Limit of the work of a dataset's patterns, which run on the event loop and come from a README.md of another person. A unit is
 * about a step of a comparison; the limit takes about a second.
 */
export class MatchBudget {
  #left = 2 ** 28

  spend(steps: number, pattern: string): void {
    this.#left -= steps
    if (this.#left >= 0) return
    throw new ConfigError(
      `${pattern.slice(0, 100)}: expected patterns that take less time to match with the dataset's files. Name fewer alternatives`,
      { pattern },
    )
  }
}

/** A part of a pattern between slashes. */
interface Piece {
  text: string
  /** Undefined for a name without wildcards. */
  test: ((name: string) => boolean) | undefined
  /** Steps of a test for a character of the name. */
  cost: number
}

/**
 * Return the paths that match a pattern: `*`, `?` and `[ab]` within a name, `**` for any number of folders, and braces.
 * @param paths relative paths with slashes
 * @param budget shared by the patterns of a dataset
 * @throws ConfigError as {@link expandBraces}, and for a pattern that takes too long
 */
export function matching(paths: readonly string[], pattern: string, budget = new MatchBudget()): string[] {
  const names = new Set<string>()
  const compiled: Piece[][] = []
  for (const one of expandBraces(pattern.replace(/^\.\//, ''))) {
    budget.spend(one.length + 64, pattern)
    if (isPattern(one)) compiled.push(one.split('/').map((text) => pieceOf(text, pattern, budget)))
    else names.add(one)
  }
  budget.spend(8 * paths.length, pattern)
  return paths.filter((path) => {
    if (names.has(path)) return true
    if (compiled.length === 0) return false
    const parts = path.split('/')
    return compiled.some((pieces) => fits(parts, pieces, pattern, budget))
  })
}

function pieceOf(text: string, pattern: string, budget: MatchBudget): Piece {
  if (!isPattern(text)) return { text, test: undefined, cost: 1 }
  // A compiled character is a function, so the budget limits the memory too.
  budget.spend(256 * text.length, pattern)
  // A name is read once for one star, and at most once for each character of the pattern otherwise.
  const isLinear = text.indexOf('*') === text.lastIndexOf('*') && !text.includes('[')
  return { text, test: globOf(text), cost: isLinear ? 1 : text.length }
}

function fits(names: readonly string[], pieces: readonly Piece[], pattern: string, budget: MatchBudget): boolean {
  // reached[i]: whether the pieces so far match the first i names.
  let reached = names.map(() => false)
  reached.unshift(true)
  for (const piece of pieces) {
    budget.spend(16 + names.length, pattern)
    const next = reached.map(() => false)
    let before = false
    for (let i = 0; i <= names.length; i++) {
      if (piece.text === '**') {
        before ||= reached[i] === true
        next[i] = before
      } else if (i > 0 && reached[i - 1]) {
        const name = names[i - 1] as string
        budget.spend(name.length * piece.cost, pattern)
        next[i] = piece.test === undefined ? name === piece.text : piece.test(name)
      }
    }
    if (!next.includes(true)) return false
    reached = next
  }
  return reached[names.length] === true
}

/** List the files below a folder as sorted relative paths. Names that begin with a dot, and links to folders, are left out. */
export async function filesBelow(folder: string): Promise<string[]> {
  const found: string[] = []
  const walk = async (relative: string, depth: number): Promise<void> => {
    const entries: Dirent[] = await readdir(join(folder, relative), { withFileTypes: true }).catch((cause: Error) => {
      throw new DataError(`${join(folder, relative)} cannot be read: ${unopened(folder, cause)}`, {
        file: folder,
        cause,
      })
    })
    for (const entry of entries) {
      if (entry.name.startsWith('.')) continue
      const path = relative === '' ? entry.name : `${relative}/${entry.name}`
      if (entry.isDirectory() && depth < DEEPEST_FOLDER) await walk(path, depth + 1)
      // The Hub's cache consists of links to files.
      const isLink = entry.isSymbolicLink() && (await stat(join(folder, path)).catch(() => undefined))?.isFile()
      if (entry.isFile() || isLink) found.push(path)
      if (found.length > MOST_FILES) {
        throw new DataError(`${folder}: expected at most ${MOST_FILES} files, got more. Name a subfolder`, {
          file: folder,
        })
      }
    }
  }
  await walk('', 0)
  return found.sort()
}
