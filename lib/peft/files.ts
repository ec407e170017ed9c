import { join } from 'node:path'
import { writeAtomicallySync } from '../base/atomic.js'
import { writeFolderAtomically } from '../base/atomic-folder.js'
import { CheckpointError } from '../base/errors.js'
import { readCheckpointJson } from '../files/json/json.js'
import { loadSafetensors, saveSafetensors } from '../files/safetensors/safetensors.js'
import { areAlike, differences, misfit } from '../nn/text.js'
import { noGrad, scope, type Tensor } from '../tensor/index.js'
import { fromFile, type ResolvedLoraConfig, toFile } from './config.js'

const CONFIG = 'adapter_config.json'
const WEIGHTS = 'adapter_model.safetensors'
export const ADAPTER_FILES = /^adapter_(?:config\.json|model\.safetensors)$/

/** Write an adapter as peft does. */
export async function writeAdapter(
  directory: string,
  config: ResolvedLoraConfig,
  tensors: Record<string, Tensor>,
): Promise<void> {
  await writeFolderAtomically(directory, CheckpointError, async (folder) => {
    await saveSafetensors(join(folder, WEIGHTS), tensors, { format: 'pt' })
    writeAtomicallySync(join(folder, CONFIG), CheckpointError, `${JSON.stringify(toFile(config), null, 2)}\n`)
  })
}

export interface AdapterFile {
  file: string
  config: ResolvedLoraConfig
  /** Tensors by their names in the file; the caller disposes them. */
  tensors: Record<string, Tensor>
}

/** Read a directory that peft or `writeAdapter` wrote. @throws CheckpointError that names the file */
export async function readAdapter(directory: string): Promise<AdapterFile> {
  const config = fromFile(await readCheckpointJson(join(directory, CONFIG)), join(directory, CONFIG))
  const file = join(directory, WEIGHTS)
  const { tensors } = await loadSafetensors(file)
  return { file, config, tensors }
}

/**
 * Copy a file's tensors into an adapter's. Every name and shape is checked before the first copy.
 * @param optional names that the file may have in addition
 */
export function fill(
  targets: Record<string, Tensor>,
  { file, tensors }: AdapterFile,
  optional: Record<string, Tensor> = {},
): void {
  const given = new Map(Object.entries(tensors).map(([name, tensor]) => [plain(name), tensor]))
  const expectedTensors = new Map(Object.entries(targets).map(([name, tensor]) => [plain(name), tensor]))
  for (const [name, tensor] of Object.entries(optional)) if (given.has(name)) expectedTensors.set(name, tensor)
  const found = differences(Object.fromEntries(expectedTensors), given)
  const unexpected = found.unexpected.filter((name) => !isRepeated(name))
  if (!areAlike({ ...found, unexpected })) {
    throw misfit(
      `${file}: expected an adapter of this network`,
      { ...found, unexpected },
      { file },
      (name, actual, expected) => `${name} ${actual} for ${expected}`,
    )
  }
  scope(() =>
    noGrad(() => {
      for (const [name, tensor] of expectedTensors) tensor.copy_(given.get(name) as Tensor)
    }),
  )
}

// The bias of a layer with an adapter has different names in newer and older versions of peft.
const plain = (name: string): string => name.replace(/\.base_layer\.bias$/, '.bias')

// With `bias: 'all'` peft also writes the bias of a module in modulesToSave twice, under the names of its wrapper.
const isRepeated = (name: string): boolean =>
  name.endsWith('.bias') && /\.(?:original_module|modules_to_save)\./.test(name)
