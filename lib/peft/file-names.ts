import type { Module } from '../nn/module.js'
import type { Tensor } from '../tensor/index.js'
import type { ResolvedLoraConfig } from './config.js'
import type { AdapterFile } from './files.js'

/** Names in PEFT's files of a network whose own names differ from those of transformers' class. A network has them as `adapterFileNames`. */
export interface AdapterFileNames {
  /** Return the name of a module, or of a tensor in one, in files. */
  toFile(name: string): string
  /** Return the network's name of a tensor in a file. */
  toModel(name: string): string
  /** Convert names of `modulesToSave` to those in files, and back. */
  savedToFile(names: readonly string[]): string[]
  savedToModel(names: readonly string[]): string[]
}

export const fileNamesOf = (model: Module): AdapterFileNames | undefined =>
  (model as { adapterFileNames?: AdapterFileNames }).adapterFileNames

const PREFIX = 'base_model.model.'

/** Return an adapter's tensors with other names after PEFT's prefix. */
export const renamed = (tensors: Record<string, Tensor>, to: (name: string) => string): Record<string, Tensor> =>
  Object.fromEntries(
    Object.entries(tensors).map(([name, tensor]) => [
      name.startsWith(PREFIX) ? PREFIX + to(name.slice(PREFIX.length)) : name,
      tensor,
    ]),
  )

/** Return an adapter's configuration, whose `targetModules` are those of files, and its tensors with the names of files. */
export function namedForFile(
  model: Module,
  config: ResolvedLoraConfig,
  tensors: Record<string, Tensor>,
): [ResolvedLoraConfig, Record<string, Tensor>] {
  const names = fileNamesOf(model)
  if (names === undefined) return [config, tensors]
  const { modulesToSave } = config
  const changed = {
    ...config,
    ...(modulesToSave && { modulesToSave: names.savedToFile(modulesToSave) }),
  }
  return [changed, renamed(tensors, (name) => names.toFile(name))]
}

/** Return a file with the names of the network. */
export function namedForModel(model: Module, file: AdapterFile): AdapterFile {
  const names = fileNamesOf(model)
  if (names === undefined) return file
  const { modulesToSave } = file.config
  const config = { ...file.config, ...(modulesToSave && { modulesToSave: names.savedToModel(modulesToSave) }) }
  return { ...file, config, tensors: renamed(file.tensors, (name) => names.toModel(name)) }
}
