import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { CheckpointError } from '../../base/errors.js'

/** Return whether a path is an existing GGUF file. */
export function isGguf(path: string): boolean {
  return /\.gguf$/i.test(path) && (statSync(path, { throwIfNoEntry: false })?.isFile() ?? false)
}

/** A file of a split model: `NAME-00001-of-00003.gguf`, as llama.cpp and Python's gguf name it. */
export interface GgufShard {
  /** Common beginning of the names of all its files, folder included. */
  readonly prefix: string
  /** Number of the file, from 1. */
  readonly number: number
  readonly count: number
}

const SHARD = /^-(\d{5})-of-(\d{5})\.gguf$/i
const SHARD_LENGTH = '-00001-of-00003.gguf'.length

/** Return the place of a path in a split model; undefined if it is not named like one. */
export function shardOf(path: string): GgufShard | undefined {
  const [, number, count] = SHARD.exec(path.slice(-SHARD_LENGTH)) ?? []
  if (number === undefined || count === undefined) return undefined
  return { prefix: path.slice(0, -SHARD_LENGTH), number: Number(number), count: Number(count) }
}

/** Return the path of a file of a split model. */
export function shardPath({ prefix, count }: Pick<GgufShard, 'prefix' | 'count'>, number: number): string {
  const digits = (value: number): string => String(value).padStart(5, '0')
  return `${prefix}-${digits(number)}-of-${digits(count)}.gguf`
}

/**
 * Return the only GGUF file in a folder, or the first file of a split model; null without one.
 * @throws CheckpointError if there are several models
 */
export function ggufIn(folder: string): string | null {
  const facts = statSync(folder, { throwIfNoEntry: false })
  const found = facts?.isDirectory() ? readdirSync(folder).filter((name) => isGguf(join(folder, name))) : []
  const models = new Map<string, string>()
  for (const name of found.sort()) {
    const shard = shardOf(name)
    const model = shard === undefined ? name : `${shard.prefix} of ${shard.count}`
    if (!models.has(model)) models.set(model, name)
  }
  const [first, second] = models.values()
  if (second !== undefined) {
    throw new CheckpointError(
      `${folder}: expected one GGUF model in the folder, got ${models.size}. Name the file: ${[...models.values()].slice(0, 10).join(', ')}`,
      { file: folder },
    )
  }
  return first === undefined ? null : join(folder, first)
}
