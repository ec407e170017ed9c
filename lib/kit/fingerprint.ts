import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { DataError } from '../base/errors.js'
import type { Module } from '../nn/index.js'
import { tensorBytes } from '../tensor/bytes.js'

/** Hashes of files by path, size and modification time. */
const hashes = new Map<string, string>()
const MOST_HASHES = 200_000

/**
 * Return the SHA-256 of a file's bytes, or of the names and bytes of a folder's files. A file whose size and modification time did
 * not change is read only once.
 * @throws DataError for a path that does not exist
 */
export async function contentHash(path: string): Promise<string> {
  try {
    const facts = await stat(path)
    if (facts.isDirectory()) return await folderHash(path)
    const key = `${path} ${facts.size} ${facts.mtimeMs}`
    const known = hashes.get(key)
    if (known !== undefined) return known
    const hash = createHash('sha256')
    for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer)
    const found = hash.digest('hex')
    if (hashes.size >= MOST_HASHES) hashes.clear()
    hashes.set(key, found)
    return found
  } catch (cause) {
    if (cause instanceof DataError) throw cause
    throw new DataError(
      `${path}: expected a readable file or folder, got ${(cause as Error).message}. Check the path.`,
      {
        ...{ file: path, cause },
      },
    )
  }
}

async function folderHash(folder: string): Promise<string> {
  const hash = createHash('sha256')
  for (const name of (await readdir(folder)).sort()) {
    hash.update(`${name}\0${await contentHash(join(folder, name))}\0`)
  }
  return hash.digest('hex')
}

/**
 * Return the configurations of a network and its submodules as JSON with sorted keys: networks with the same weights may differ
 * in them.
 */
export function configurations(network: Module): string {
  const found = [...network.namedModules()].flatMap(([name, { config }]: [string, Module & { config?: unknown }]) =>
    typeof config === 'object' && config !== null ? [[name, config]] : [],
  )
  return JSON.stringify(found, (_key, value) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  )
}

/** Return the SHA-256 of a network's weights: names, dtypes, shapes and bytes. */
export async function weightsHash(network: Module): Promise<string> {
  const hash = createHash('sha256')
  for (const [name, tensor] of Object.entries(network.stateDict())) {
    hash.update(`${name} ${tensor.dtype} ${tensor.shape} `)
    hash.update(await tensorBytes(tensor))
  }
  return hash.digest('hex')
}
