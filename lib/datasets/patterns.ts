import type { Dirent } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { ConfigError, DataError } from '../base/errors.js'
import { unopened } from '../files/byte-source.js'
import { matchingFiles } from '../hub/select.js'

const MOST_FILES = 100_000
const DEEPEST_FOLDER = 16

/**
 * Expand braces as a shell does: `{00000..00003}` counts, with leading zeros, and `{train,test}` lists. Braces may follow each
 * other, not contain each other.
 * @throws ConfigError for more than 100,000 names
 */
export function expandBraces(pattern: string): string[] {
  let results = ['']
  for (let at = 0; at < pattern.length; ) {
    const open = pattern.indexOf('{', at)
    const close = open < 0 ? -1 : pattern.indexOf('}', open)
    const words = close < 0 ? undefined : wordsOf(pattern.slice(open + 1, close), pattern)
    // Other braces are characters of the name.
    const end = close < 0 ? pattern.length : words === undefined ? close + 1 : open
    const text = pattern.slice(at, end)
    const parts = words ?? ['']
    if (results.length * parts.length > MOST_FILES) throw tooMany(pattern)
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
  const width = first.startsWith('0') || last.startsWith('0') ? Math.max(first.length, last.length) : 0
  const step = to < from ? -1 : 1
  return Array.from({ length: Math.abs(to - from) + 1 }, (_, i) => String(from + step * i).padStart(width, '0'))
}

const tooMany = (pattern: string): ConfigError =>
  new ConfigError(`${pattern}: expected a pattern for at most ${MOST_FILES} files, got more`, { pattern })

export const isPattern = (text: string): boolean => /[*?[]/.test(text)

/**
 * Return the paths that match a pattern: `*`, `?` and `[ab]` within a name, `**` for any number of folders, and braces.
 * @param paths relative paths with slashes
 */
export function matching(paths: readonly string[], pattern: string): string[] {
  const alternatives = expandBraces(pattern.replace(/^\.\//, '')).map((one) => one.split('/'))
  return paths.filter((path) => alternatives.some((pieces) => fits(path.split('/'), pieces)))
}

function fits(names: readonly string[], pieces: readonly string[]): boolean {
  // reached[i]: whether the pieces so far match the first i names.
  let reached = names.map(() => false)
  reached.unshift(true)
  for (const piece of pieces) {
    const next = reached.map(() => false)
    let before = false
    for (let i = 0; i <= names.length; i++) {
      if (piece === '**') {
        before ||= reached[i] === true
        next[i] = before
      } else if (i > 0 && reached[i - 1]) next[i] = matchingFiles([names[i - 1] as string], [piece]).length > 0
    }
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
