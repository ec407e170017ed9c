import { misuse } from '../../../base/check.js'
import { ShapeError } from '../../../base/errors.js'
import { type Module, ModuleDict } from '../../../nn/index.js'
import { noGrad, Tensor, zeros } from '../../../tensor/index.js'
import type { EmotionModality } from './config.js'
import type { EmotionInputs } from './network.js'
import type { EmotionTower } from './towers.js'

type Towers = Readonly<Partial<Record<EmotionModality, EmotionTower>>>

/** @throws ShapeError for what is no table of utterances */
export function checkMask(where: string, tensors: Readonly<Record<'mask' | 'speakers', Tensor>>): void {
  for (const [name, tensor] of Object.entries(tensors)) {
    if (!(tensor instanceof Tensor) || tensor.ndim !== 2) {
      throw new ShapeError(`${where}: ${name} must be a tensor [dialogs, utterances]`, { argument: name })
    }
  }
}

/** The networks of towers, checked against the sizes that are promised. */
export function towerNetworks(
  where: string,
  towers: Towers,
  sizes: Readonly<Partial<Record<EmotionModality, number>>>,
): ModuleDict {
  const networks: [string, Module][] = []
  for (const [name, tower] of Object.entries(towers)) {
    const size = sizes[name as EmotionModality]
    if (tower.modality !== name) throw misuse(where, `towers.${name}`, `a tower of ${name}`, tower.modality)
    if (tower.size !== size) {
      const message = `${where}: the tower of ${name} gives vectors of ${tower.size}, and sizes.${name} is ${size}`
      throw new ShapeError(message, { modality: name })
    }
    if (tower.network) networks.push([name, tower.network])
  }
  return new ModuleDict(Object.fromEntries(networks))
}

/** Vectors of a modality, those of the batch or its tower's, 0 where an utterance lacks it: [dialogs, utterances, size]. */
export async function utteranceVectors(
  where: string,
  name: EmotionModality,
  size: number,
  tower: EmotionTower | undefined,
  { mask, present, vectors, inputs }: EmotionInputs,
): Promise<Tensor> {
  const shape = [...mask.shape, size]
  const fits = (tensor: unknown, wanted: readonly number[]) =>
    tensor instanceof Tensor && tensor.shape.length === wanted.length && tensor.shape.every((n, i) => n === wanted[i])
  const there = present[name]
  if (!there || !fits(there, mask.shape)) {
    throw new ShapeError(`${where}: present.${name} must be [${mask.shape}], as the mask is`, { modality: name })
  }
  const given = vectors?.[name]
  if (given !== undefined) {
    if (fits(given, shape)) return given
    throw new ShapeError(`${where}: vectors.${name} is [${given.shape}], expected [${shape}]`, { modality: name })
  }
  const items = inputs?.[name]
  if (!tower || items === undefined) {
    const what = tower ? 'nothing that its tower reads' : 'no vectors, and there is no tower'
    throw new ShapeError(`${where}: the batch has ${what} for ${name}`, { modality: name })
  }
  const empty = zeros(shape, { device: mask.device })
  if (items.length === 0) return empty
  const rows = await tower.encode(items) // [items, size]
  const places = noGrad(() => there.reshape([-1]).nonzero().reshape([-1]))
  if (places.numel() !== items.length) {
    throw new ShapeError(
      `${where}: present.${name} has ${places.numel()} utterances, and there are ${items.length} to read`,
      { modality: name },
    )
  }
  return empty.reshape([-1, size]).to({ dtype: rows.dtype }).indexAdd(0, places, rows).reshape(shape)
}
