import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { filesIn, finalPath, writeFolderAtomically } from '../base/atomic-folder.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import { readJson, writeJson } from '../files/json/json.js'
import { adaptersOf, type Module } from '../nn/module.js'
import { listed } from '../nn/text.js'
import { ADAPTER_FILES } from './files.js'
import { PeftModel, peftModelOf } from './model.js'

/** File next to a module's own file that lists the parts with adapters, by path, and the adapters' names. */
export const PARTS_INDEX = 'adapters.json'
const FOLDER = 'adapters'

/** @throws ConfigError that names the layers of `module` whose adapters belong to a parent module */
function partsOf(where: string, module: Module): [string, PeftModel][] {
  const modules = module.namedModules()
  const parts = modules.flatMap(([path, part]): [string, PeftModel][] => {
    const peft = peftModelOf(part)
    return peft && peft.adapterNames.length > 0 ? [[path, peft]] : []
  })
  const owned = new Set(parts.flatMap(([, peft]) => peft.model.modules()))
  const lost = modules.filter(([, layer]) => adaptersOf(layer) && !owned.has(layer)).map(([path]) => path)
  if (lost.length === 0) return parts
  throw new ConfigError(
    `${where}: expected a module with its own adapters, but those of ${listed(lost, 4)} belong to a network that contains this ${module.constructor.name} and would not ` +
      'be saved. Save that network, or its PeftModel',
    { paths: lost },
  )
}

/** Warn about adapters of a network that the written files do not contain. */
export function warnOfAdapters(module: Module, directory: string): void {
  const paths = module.namedModules().flatMap(([path, layer]) => (adaptersOf(layer) ? [path] : []))
  if (paths.length === 0) return
  process.emitWarning(
    `${directory}: contains the weights of ${module.constructor.name} without its adapters (${listed(paths, 4)}). Write those with ` +
      'savePretrained() of its PeftModel, or mergeAndUnload() them first',
    'AdapterWarning',
  )
}

/** Write all adapters of a module and its parts in peft's layout, and an index of them. They replace those of an earlier save. */
export async function saveParts(where: string, directory: string, module: Module): Promise<void> {
  const parts = partsOf(where, module)
  // Adapters of the module itself are in the directory, where only the old index tells whether an earlier save wrote them.
  const old = await readIndex(join(finalPath(directory), PARTS_INDEX)).catch(() => ({}) as Record<string, string[]>)
  const earlier = (folder: string) => [
    ...(existsSync(join(folder, PARTS_INDEX)) ? [PARTS_INDEX] : []),
    ...filesIn(folder, ADAPTER_FILES, FOLDER),
    ...(old['']?.includes('default') ? filesIn(folder, ADAPTER_FILES) : []),
    ...(old[''] ?? []).flatMap((name) => filesIn(folder, ADAPTER_FILES, name)),
  ]
  const save = async (folder: string) => {
    for (const [path, peft] of parts) await peft.savePretrained(folderOf(folder, path))
    const index = Object.fromEntries(parts.map(([path, { adapterNames }]) => [path, adapterNames]))
    if (parts.length > 0) await writeJson(join(folder, PARTS_INDEX), index, { indent: 2 })
  }
  await writeFolderAtomically(directory, CheckpointError, save, earlier)
}

/** Load the files of `saveParts`: existing adapters get their values, missing ones are created. */
export async function loadParts(directory: string, module: Module): Promise<void> {
  const file = join(directory, PARTS_INDEX)
  for (const [path, names] of Object.entries(await readIndex(file))) {
    const part = module.get(path)
    const peft = peftModelOf(part) ?? new PeftModel(part)
    const folder = folderOf(directory, path)
    for (const name of names.filter((name) => !peft.adapterNames.includes(name))) {
      await peft.loadAdapter(name === 'default' ? folder : join(folder, name), { adapterName: name })
    }
    if (peft.adapterNames.every((name) => names.includes(name))) await peft.restore(folder)
    else
      throw new CheckpointError(`${file}: expected the adapters of '${path}' in it: ${peft.adapterNames.join(', ')}`, {
        file,
      })
  }
}

const folderOf = (directory: string, path: string): string => (path === '' ? directory : join(directory, FOLDER, path))

async function readIndex(file: string): Promise<Record<string, string[]>> {
  if (!existsSync(file)) return {}
  const index = await readJson(file)
  const isName = (name: unknown) => typeof name === 'string' && !/[/\\]|^\.*$/.test(name)
  const isEntry = ([path, names]: [string, unknown]) =>
    (path === '' || isName(path)) && Array.isArray(names) && names.every(isName)
  if (typeof index !== 'object' || index === null || !Object.entries(index).every(isEntry)) {
    throw new CheckpointError(`${file}: expected an index of adapters: lists of names by the path of a part`, { file })
  }
  return index as Record<string, string[]>
}
