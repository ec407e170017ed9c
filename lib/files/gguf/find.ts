import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { CheckpointError } from '../../base/errors.js'

/** Whether a path names a GGUF file that is there. */
export function isGguf(path: string): boolean {
  return /\.gguf$/i.test(path) && (statSync(path, { throwIfNoEntry: false })?.isFile() ?? false)
}

/**
 * The one GGUF file in a folder; null where there is none.
 * @throws CheckpointError where there are several: it is not guessed which is meant
 */
export function ggufIn(folder: string): string | null {
  const facts = statSync(folder, { throwIfNoEntry: false })
  const found = facts?.isDirectory() ? readdirSync(folder).filter((name) => isGguf(join(folder, name))) : []
  if (found.length > 1) {
    throw new CheckpointError(`${folder} has several GGUF files; name one: ${found.slice(0, 10).join(', ')}`, {
      file: folder,
    })
  }
  return found[0] === undefined ? null : join(folder, found[0])
}
