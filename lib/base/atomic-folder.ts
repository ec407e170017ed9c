import {
  closeSync,
  copyFileSync,
  type Dirent,
  existsSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
} from 'node:fs'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { type Failure, makeDirectory, refused, syncPath, takeOver, targetOf, temporaryNextTo } from './atomic.js'
import { VoxtorchError } from './errors.js'

/** List the files of an earlier save in `folder`, relative to it. Those that the new save does not write are removed. */
export type EarlierFiles = (folder: string) => readonly string[]

/**
 * Write files into a folder so that all of them appear, or none: `fill` writes into a temporary folder on the same file system,
 * then its files are synced and moved into place. If anything fails, the folder keeps its old files and the temporary folder is
 * removed. Files that neither `fill` writes nor `earlier` lists stay. Links to folders and files stay links, and replaced files
 * keep their mode and owner.
 *
 * `fill` may call savers that use this function: inside of the temporary folder they write directly, and what they list in
 * `earlier` is removed with the rest. The move itself is a few renames without a pause. A process killed between them leaves a
 * folder without config.json, which loaders refuse, and not a mixed one.
 *
 * @throws the errors of `fill`, with the folder's path in place of the temporary one; `Failure` that names the folder if the file
 *   system refuses
 */
export async function writeFolderAtomically(
  path: string,
  Failure: Failure,
  fill: (folder: string) => Promise<void>,
  earlier: EarlierFiles = () => [],
): Promise<void> {
  const staged = begin(path, Failure, earlier)
  if (staged === undefined) return fill(path)
  try {
    await fill(staged.temporary)
    try {
      for (const entry of entriesIn(staged.temporary)) if (!entry.isSymbolicLink()) await syncPath(pathOf(entry))
      await syncPath(staged.temporary)
    } catch (cause) {
      throw refused(path, Failure, cause)
    }
    commit(staged, Failure)
  } catch (error) {
    throw withFinalPath(error, staged)
  } finally {
    discard(staged)
  }
}

/** Write small files into a folder synchronously, like {@link writeFolderAtomically}. `fill` must sync them itself. */
export function writeFolderAtomicallySync(
  path: string,
  Failure: Failure,
  fill: (folder: string) => void,
  earlier: EarlierFiles = () => [],
): void {
  const staged = begin(path, Failure, earlier)
  if (staged === undefined) return fill(path)
  try {
    fill(staged.temporary)
    commit(staged, Failure)
  } catch (error) {
    throw withFinalPath(error, staged)
  } finally {
    discard(staged)
  }
}

/** Return the path that a file or folder inside a temporary folder will have, or the path itself. For messages. */
export function finalPath(path: string): string {
  const outer = outerOf(path)
  return outer ? join(outer.path, relative(outer.temporary, resolve(path))) : path
}

/** List files in a folder, or in a subfolder and those inside it, whose names match. Paths are relative to `folder`. */
export function filesIn(folder: string, names: RegExp, subfolder = ''): string[] {
  const from = join(folder, subfolder)
  if (!existsSync(from)) return []
  return entriesIn(from, subfolder !== '')
    .filter((entry) => !entry.isDirectory() && names.test(entry.name))
    .map((entry) => relative(folder, pathOf(entry)))
}

/** List the files in subfolders, such as `llm/`, whose names savers write. A user's other files are not listed. */
export const partFiles = (folder: string, subfolders: readonly string[]): string[] =>
  subfolders.flatMap((subfolder) => filesIn(folder, SAVED, subfolder))

const SAVED =
  /^(?:\w+\.safetensors|model-\d{5}-of-\d{5}\.safetensors|model\.safetensors\.index\.json|(?:\w+_)?config\.json|(?:adapters|encoder|special_tokens_map|tokenizer|vocab)\.json|tokenizer\.model)$/

/** Tell whether two paths lead to the same file or folder. */
export function isSamePlace(a: string, b: string): boolean {
  return existsSync(a) && existsSync(b) && realpathSync(a) === realpathSync(b)
}

interface Staged {
  /** Folder as the caller named it. */
  path: string
  /** Folder that the path leads to. */
  target: string
  /** Folder to fill. */
  temporary: string
  /** Created parents of the target, and of the temporary folder. */
  created: string[]
  /** Lists of earlier files, each of a subfolder. */
  earlier: { subfolder: string; list: EarlierFiles }[]
}

/** Folders that are being filled. */
const filling = new Set<Staged>()

const outerOf = (path: string): Staged | undefined =>
  [...filling].find(({ temporary }) => `${resolve(path)}${sep}`.startsWith(`${temporary}${sep}`))

/** Create the temporary folder. Returns undefined for a folder inside one that is being filled. */
function begin(path: string, Failure: Failure, list: EarlierFiles): Staged | undefined {
  const created: string[] = []
  try {
    const outer = outerOf(path)
    if (outer) {
      makeDirectory(path, Failure)
      outer.earlier.push({ subfolder: relative(outer.temporary, resolve(path)), list })
      return undefined
    }
    const target = targetOf(resolve(path))
    const exists = statSync(target, { throwIfNoEntry: false }) !== undefined
    created.push(...makeDirectory(exists ? target : dirname(target), Failure))
    // Inside an existing folder, which may be on a file system of its own, in a parent that is read-only.
    const temporary = temporaryNextTo(exists ? join(target, 'file') : target)
    mkdirSync(temporary)
    const staged = { path, target, temporary, created, earlier: [{ subfolder: '', list }] }
    filling.add(staged)
    return staged
  } catch (cause) {
    created.reverse().forEach(removeEmpty)
    if (cause instanceof Failure) throw cause
    throw new Failure(`${path} cannot be created: ${(cause as Error).message}`, { file: path, cause })
  }
}

/** Remove what is left of the temporary folder, and the created parents of a target that was not written. */
function discard(staged: Staged): void {
  filling.delete(staged)
  rmSync(staged.temporary, { recursive: true, force: true })
  staged.created.reverse().forEach(removeEmpty)
}

/** Move the files into place. If anything fails, move them back. */
function commit({ path, target, temporary, earlier }: Staged, Failure: Failure): void {
  const undo: (() => void)[] = []
  const replaced: string[] = []
  const stale: string[] = []
  try {
    if (!existsSync(target)) {
      renameSync(temporary, target)
      return syncDirectories([dirname(target)])
    }
    const names = entriesIn(temporary)
      .filter((entry) => !entry.isDirectory())
      .map((entry) => relative(temporary, pathOf(entry)))
      .sort((a, b) => Number(MARKER.test(a)) - Number(MARKER.test(b)))
    const written = new Set(names)
    for (const { subfolder, list } of earlier) {
      const files = list(join(target, subfolder)).map((file) => join(subfolder, file))
      stale.push(...files.filter((file) => !written.has(file)))
    }
    for (const name of names) {
      const folders = makeDirectory(dirname(join(target, name)), Failure)
      undo.push(...folders.map((folder) => () => rmdirSync(folder)))
    }
    const places = names.map((name) => targetOf(join(target, name)))
    const setAside = (place: string, successor?: string) => {
      const old = lstatSync(place, { throwIfNoEntry: false })
      if (old === undefined) return
      if (!old.isFile() && !old.isSymbolicLink()) throw new Error(`expected a file at ${place}, got something else`)
      if (successor !== undefined) keepOwnerAndMode(successor, place)
      const aside = temporaryNextTo(place)
      renameSync(place, aside)
      undo.push(() => renameSync(aside, place))
      replaced.push(aside)
    }
    for (const file of stale) setAside(join(target, file))
    for (const [i, name] of [...names.entries()].reverse()) setAside(places[i] as string, join(temporary, name))
    for (const [i, name] of names.entries()) {
      const place = places[i] as string
      move(join(temporary, name), place)
      undo.push(() => rmSync(place))
    }
    syncDirectories(new Set([...places, ...stale.map((file) => join(target, file))].map(dirname)))
  } catch (cause) {
    for (const step of undo.reverse()) {
      try {
        step()
      } catch (error) {
        const { message } = error as Error
        throw new Failure(`${path}: the old files could not be restored: ${message}`, { file: path, cause })
      }
    }
    throw cause instanceof Failure ? cause : refused(path, Failure, cause)
  }
  for (const aside of replaced) rmSync(aside, { force: true })
  for (const file of stale) {
    for (let folder = dirname(file); folder !== '.'; folder = dirname(folder)) removeEmpty(join(target, folder))
  }
}

/** Files without which no folder loads: the first that leave it, and the last that enter it. */
const MARKER = /config\.json$/

/** Rename a file; copy it if the place is on another file system, through a link. */
function move(from: string, to: string): void {
  try {
    renameSync(from, to)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EXDEV') throw error
    const near = temporaryNextTo(to)
    try {
      copyFileSync(from, near)
      withOpen(near, fsyncSync)
      renameSync(near, to)
    } finally {
      rmSync(near, { force: true })
    }
  }
}

function keepOwnerAndMode(file: string, old: string): void {
  withOpen(file, (descriptor) => takeOver(descriptor, statSync(old)))
}

function syncDirectories(paths: Iterable<string>): void {
  for (const path of paths) withOpen(path, fsyncSync)
}

function withOpen(path: string, work: (descriptor: number) => void): void {
  const descriptor = openSync(path, 'r')
  try {
    work(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

function removeEmpty(folder: string): void {
  try {
    rmdirSync(folder)
  } catch {
    // It holds files, or is gone.
  }
}

const entriesIn = (folder: string, recursive = true): Dirent[] =>
  readdirSync(folder, { recursive, withFileTypes: true })

const pathOf = (entry: Dirent): string => join(entry.parentPath, entry.name)

/** Name the final path instead of the temporary one in an error. */
function withFinalPath(error: unknown, { path, temporary }: Staged): unknown {
  if (!(error instanceof VoxtorchError)) return error
  for (const [key, value] of Object.entries({ ...error, message: error.message, stack: error.stack })) {
    if (typeof value === 'string') Object.assign(error, { [key]: value.replaceAll(temporary, path) })
  }
  return error
}
