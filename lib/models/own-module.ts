import { join } from 'node:path'
import { writeAtomicallySync } from '../base/atomic.js'
import { writeFolderAtomically } from '../base/atomic-folder.js'
import { argumentError, requireFunction, requireObject, requireString } from '../base/check.js'
import { CheckpointError } from '../base/errors.js'
import { readCheckpointJson } from '../files/json/json.js'
import { loadSafetensors, saveSafetensors } from '../files/safetensors/safetensors.js'
import { weightFiles } from '../files/safetensors/sharded.js'
import { Module } from '../nn/module.js'
import { loadParts, saveParts } from '../peft/parts.js'
import type { Tensor } from '../tensor/index.js'

/**
 * Save a module of your own to a directory: `config.json` with `config` as JSON, and `model.safetensors` with the state dictionary.
 * All files are replaced together or none, and other files of the directory stay. Adapters of submodules (`getPeftModel(model.encoder, …)`) are
 * saved in PEFT's layout in `adapters/<path of the submodule>`, those of the module itself in the directory; `adapters.json` lists
 * them.
 *
 * ```ts
 * class Tagger extends Module {
 *   constructor(readonly config: { dim: number }) { … }
 *   static fromPretrained = (directory: string) => loadPretrained(directory, (config: { dim: number }) => new Tagger(config))
 *   save = (directory: string) => savePretrained(directory, this, this.config)
 * }
 * ```
 *
 * @throws ConfigError for a config that JSON cannot represent, and for adapters that belong to a module around this one;
 *   CheckpointError if a file cannot be written
 */
export async function savePretrained(directory: string, module: Module, config: object): Promise<void> {
  const where = 'savePretrained'
  requireString(where, 'directory', directory)
  if (!(module instanceof Module)) throw argumentError(where, 'module', 'a Module', module)
  requireObject(where, 'config', config)
  const json = `${jsonOf(config)}\n`
  await writeFolderAtomically(
    directory,
    CheckpointError,
    async (folder) => {
      await saveSafetensors(join(folder, 'model.safetensors'), module.stateDict(), { format: 'pt' })
      await saveParts(where, folder, module)
      writeAtomicallySync(join(folder, 'config.json'), CheckpointError, json)
    },
    weightFiles,
  )
}

function jsonOf(config: object): string {
  let json: string | undefined
  try {
    json = JSON.stringify(config, null, 2)
  } catch {
    json = undefined // circular, or a bigint
  }
  if (!json?.startsWith('{'))
    throw argumentError('savePretrained', 'config', 'an object that JSON can represent', config)
  return json
}

/**
 * Load a module that `savePretrained` wrote, in evaluation mode. `build` creates it from the configuration, which is untrusted: check
 * its values. The weights of the file then replace the initial ones. Saved adapters are attached, frozen, unless `build` has attached
 * them.
 *
 * @throws CheckpointError with the file if one is missing or damaged, or if the weights do not match the module (with `missing`,
 *   `unexpected` and `mismatched`); errors of `build` are passed on
 */
export async function loadPretrained<M extends Module, C extends object>(
  directory: string,
  build: (config: C) => M,
): Promise<M> {
  const where = 'loadPretrained'
  requireString(where, 'directory', directory)
  requireFunction(where, 'build', build)
  const config = await readCheckpointJson(join(directory, 'config.json'))
  return withTensors(join(directory, 'model.safetensors'), async (tensors) => {
    const module = build(config as C)
    if (!(module instanceof Module)) throw argumentError(where, 'build', 'a function that returns a Module', module)
    try {
      module.loadStateDict(tensors)
      await loadParts(directory, module)
      return module.eval()
    } catch (error) {
      module.dispose()
      throw error
    }
  })
}

/** Call `load` with the tensors of a file, which are then freed. Its CheckpointErrors name the file. */
export async function withTensors<T>(
  file: string,
  load: (tensors: Record<string, Tensor>) => T | Promise<T>,
): Promise<T> {
  const { tensors } = await loadSafetensors(file)
  try {
    return await load(tensors)
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error
    const { missing, unexpected, mismatched } = error as CheckpointError & Record<string, unknown>
    throw new CheckpointError(`${file}: ${error.message}`, { file, missing, unexpected, mismatched, cause: error })
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose()
  }
}
