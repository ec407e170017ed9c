import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { makeDirectory, writeAtomically } from '../base/atomic.js'
import { misuse, requireFunction, requireObject, requireString } from '../base/check.js'
import { CheckpointError } from '../base/errors.js'
import { readJson } from '../files/json/json.js'
import { loadSafetensors, saveSafetensors } from '../files/safetensors/safetensors.js'
import { Module } from '../nn/module.js'
import { loadParts, saveParts } from '../peft/parts.js'

/**
 * Writes a module of your own as a directory: `config.json`, which is `config` as JSON has it, and `model.safetensors`,
 * the state dictionary. Each file appears whole or not at all, and other files of the directory stay. Adapters of parts
 * (`getPeftModel(model.encoder, …)`) go in PEFT's layout into `adapters/<path of the part>`, those of the module itself into
 * the directory, and `adapters.json` lists them.
 *
 * ```ts
 * class Tagger extends Module {
 *   constructor(readonly config: { dim: number }) { … }
 *   static fromPretrained = (directory: string) => loadPretrained(directory, (config: { dim: number }) => new Tagger(config))
 *   save = (directory: string) => savePretrained(directory, this, this.config)
 * }
 * ```
 *
 * @throws ConfigError for a config that JSON cannot hold, and for adapters that belong to a module around this one, naming
 *   them; CheckpointError when a file cannot be written
 */
export async function savePretrained(directory: string, module: Module, config: object): Promise<void> {
  const where = 'savePretrained'
  requireString(where, 'directory', directory)
  if (!(module instanceof Module)) throw misuse(where, 'module', 'a Module', module)
  requireObject(where, 'config', config)
  const json = Buffer.from(`${jsonOf(config)}\n`)
  const weights = join(directory, 'model.safetensors')
  makeDirectory(directory, CheckpointError)
  await saveSafetensors(weights, module.stateDict(), { format: 'pt' })
  await saveParts(where, directory, module)
  await writeAtomically(join(directory, 'config.json'), CheckpointError, (write) => write(json))
}

function jsonOf(config: object): string {
  let json: string | undefined
  try {
    json = JSON.stringify(config, null, 2)
  } catch {
    json = undefined // a circle, or a bigint
  }
  if (!json?.startsWith('{')) throw misuse('savePretrained', 'config', 'an object that JSON can hold', config)
  return json
}

/**
 * The module that `savePretrained` wrote, in evaluation mode. `build` makes one from the configuration, which is whatever
 * the file says: check what a stranger could have changed. Its values are then replaced by those of the file. Adapters that
 * were saved with it get theirs too, and are attached where `build` has not done so; those do not train.
 *
 * @throws CheckpointError naming the file, when one is missing or broken, or when the weights are not those of the module
 *   (with `missing`, `unexpected` and `mismatched`); what `build` throws, as it is
 */
export async function loadPretrained<M extends Module, C extends object>(
  directory: string,
  build: (config: C) => M,
): Promise<M> {
  const where = 'loadPretrained'
  requireString(where, 'directory', directory)
  requireFunction(where, 'build', build)
  const config = await readConfig(join(directory, 'config.json'))
  const file = join(directory, 'model.safetensors')
  const { tensors } = await loadSafetensors(file)
  let module: M | undefined
  try {
    module = build(config as C)
    if (!(module instanceof Module)) throw misuse(where, 'build', 'a function that returns a Module', module)
    module.loadStateDict(tensors)
    await loadParts(directory, module)
    return module.eval()
  } catch (error) {
    if (module instanceof Module) module.dispose()
    if (!(error instanceof CheckpointError)) throw error
    const { missing, unexpected, mismatched } = error as CheckpointError & Record<string, unknown>
    throw new CheckpointError(`${file}: ${error.message}`, { file, missing, unexpected, mismatched, cause: error })
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose()
  }
}

const LONGEST_CONFIG = 2 ** 24

async function readConfig(file: string): Promise<object> {
  try {
    const { size } = await stat(file)
    if (size > LONGEST_CONFIG) throw new Error(`it has ${size} bytes, more than ${LONGEST_CONFIG}`)
    const config = await readJson(file)
    if (typeof config !== 'object' || config === null || Array.isArray(config)) throw new Error('it is not an object')
    return config
  } catch (cause) {
    throw new CheckpointError(`${file} cannot be read as a configuration: ${(cause as Error).message}`, { file, cause })
  }
}
