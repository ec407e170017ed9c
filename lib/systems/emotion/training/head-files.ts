import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { requireString, shown } from '../../../base/check.js'
import { CheckpointError } from '../../../base/errors.js'
import { readCheckpointJson } from '../../../files/json/json.js'
import { loadPretrained } from '../../../models/own-module.js'
import type { Module } from '../../../nn/index.js'

/** Identity of the folders of one kind of head. */
export interface HeadKind {
  /** `modelType` in config.json. */
  modelType: string
  /** Functions that save and load such a folder, for error messages. */
  savedBy: string
  loadedBy: string
}

/**
 * Load a head that a training saved with `savePretrained`, in evaluation mode.
 * @param build create the head from its configuration
 * @throws CheckpointError for a folder of another kind, and for weights that do not match
 */
export async function loadHead<M extends Module, C extends object>(
  { modelType, savedBy, loadedBy }: HeadKind,
  folder: string,
  build: (config: C) => M,
): Promise<M> {
  requireString(loadedBy, 'folder', folder)
  const file = join(folder, 'config.json')
  if (!existsSync(file))
    throw new CheckpointError(
      `${file}: expected a file, got a path that does not exist. Name a folder that \`${savedBy}\` saved.`,
      { file },
    )
  const found = (await readCheckpointJson(file)).modelType
  if (found !== modelType)
    throw new CheckpointError(
      `${file}: modelType: expected '${modelType}', got ${shown(found)}. Load a folder that \`${savedBy}\` saved.`,
      { file },
    )
  return loadPretrained(folder, ({ modelType: _, ...config }: C & { modelType: string }) =>
    build(config as unknown as C),
  )
}
