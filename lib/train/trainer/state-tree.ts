import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { CheckpointError } from '../../base/errors.js'
import { readJson, writeJson } from '../../files/json/json.js'
import { loadSafetensors, saveSafetensors } from '../../files/safetensors/safetensors.js'
import { scope, Tensor } from '../../tensor/index.js'

// A state of an optimizer or the like is a tree of plain values and tensors. On disk it is two files: the plain values as JSON,
// where a tensor is { "$tensor": name }, and the tensors as safetensors.

/** Write `<name>.json`, and `<name>.safetensors` if there are tensors, into a folder. */
export async function saveTree(folder: string, name: string, tree: unknown): Promise<void> {
  const tensors: Record<string, Tensor> = {}
  await scope(async () => {
    const plain = flatten(tree, '', tensors)
    if (Object.keys(tensors).length > 0) await saveSafetensors(join(folder, `${name}.safetensors`), tensors)
    await writeJson(join(folder, `${name}.json`), plain)
  })
}

/** Read the files of `saveTree`. The tensors belong to the caller's scope. */
export async function loadTree(folder: string, name: string): Promise<unknown> {
  const file = join(folder, `${name}.json`)
  const weights = join(folder, `${name}.safetensors`)
  const tensors = existsSync(weights) ? (await loadSafetensors(weights, { device: 'cpu' })).tensors : {}
  return restore(await readJson(file), tensors, file)
}

function flatten(value: unknown, path: string, tensors: Record<string, Tensor>): unknown {
  if (value instanceof Tensor) {
    tensors[path] = value.isContiguous() ? value : value.contiguous()
    return { $tensor: path }
  }
  if (typeof value === 'number' && !Number.isFinite(value)) return { $number: String(value) }
  if (typeof value === 'bigint') return { $bigint: String(value) }
  if (typeof value !== 'object' || value === null) return value
  const inside = (key: string | number, item: unknown) =>
    flatten(item, path === '' ? `${key}` : `${path}.${key}`, tensors)
  if (Array.isArray(value)) return value.map((item, i) => inside(i, item))
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, inside(key, item)]))
}

function restore(value: unknown, tensors: Record<string, Tensor>, file: string): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map((item) => restore(item, tensors, file))
  const { $tensor, $number, $bigint } = value as Record<string, unknown>
  if (typeof $number === 'string') return Number($number)
  if (typeof $bigint === 'string' && /^-?\d+$/.test($bigint)) return BigInt($bigint)
  if (typeof $tensor === 'string') {
    const tensor = Object.hasOwn(tensors, $tensor) ? tensors[$tensor] : undefined
    if (tensor) return tensor
    throw new CheckpointError(
      `${file}: expected the tensor ${$tensor} in the safetensors file of the same name, got none`,
      {
        file,
        tensor: $tensor,
      },
    )
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, restore(item, tensors, file)]))
}
