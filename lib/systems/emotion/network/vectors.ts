import { argumentError, shown } from '../../../base/check.js'
import { ShapeError } from '../../../base/errors.js'
import { type Module, ModuleDict } from '../../../nn/index.js'
import { noGrad, Tensor, zeros } from '../../../tensor/index.js'
import type { EmotionModality } from './config.js'
import type { EmotionEncoder } from './encoders.js'
import type { EmotionInputs } from './network.js'

type Encoders = Readonly<Partial<Record<EmotionModality, EmotionEncoder>>>

/** Check mask and speakers of a batch. @throws ShapeError unless both are [dialogs, utterances] */
export function checkMask(where: string, tensors: Readonly<Record<'mask' | 'speakers', Tensor>>): void {
  for (const [name, tensor] of Object.entries(tensors)) {
    if (!(tensor instanceof Tensor) || tensor.ndim !== 2) {
      const value = tensor instanceof Tensor ? `a tensor [${tensor.shape}]` : shown(tensor)
      throw new ShapeError(
        `${where}: ${name}: expected a tensor [dialogs, utterances], got ${value}. Use \`emotionCollate\` to make batches.`,
        { argument: name },
      )
    }
  }
}

/** Return the networks of encoders, after a check of their sizes. */
export function encoderNetworks(
  where: string,
  encoders: Encoders,
  sizes: Readonly<Partial<Record<EmotionModality, number>>>,
): ModuleDict {
  const networks: [string, Module][] = []
  for (const [name, encoder] of Object.entries(encoders)) {
    const size = sizes[name as EmotionModality]
    if (encoder.modality !== name)
      throw argumentError(where, `encoders.${name}`, `an encoder of ${name}`, encoder.modality)
    if (encoder.size !== size) {
      const message = `${where}: sizes.${name}: expected ${encoder.size}, the size of the ${name} encoder's vectors, got ${size}. Change it.`
      throw new ShapeError(message, { modality: name })
    }
    if (encoder.network) networks.push([name, encoder.network])
  }
  return new ModuleDict(Object.fromEntries(networks))
}

/** Return the vectors of one modality, from the batch or from its encoder, 0 where missing: [dialogs, utterances, size]. */
export async function utteranceVectors(
  where: string,
  name: EmotionModality,
  size: number,
  encoder: EmotionEncoder | undefined,
  { mask, present, vectors, inputs }: EmotionInputs,
): Promise<Tensor> {
  const shape = [...mask.shape, size]
  const fits = (tensor: unknown, expected: readonly number[]) =>
    tensor instanceof Tensor &&
    tensor.shape.length === expected.length &&
    tensor.shape.every((n, i) => n === expected[i])
  const there = present[name]
  if (!there || !fits(there, mask.shape)) {
    const value = there instanceof Tensor ? `[${there.shape}]` : shown(there)
    throw new ShapeError(
      `${where}: present.${name}: expected [${mask.shape}], the shape of the mask, got ${value}. Use \`emotionCollate\` to make batches.`,
      { modality: name },
    )
  }
  const batchVectors = vectors?.[name]
  if (batchVectors !== undefined) {
    if (fits(batchVectors, shape)) return batchVectors
    throw new ShapeError(
      `${where}: vectors.${name}: expected [${shape}], got [${batchVectors.shape}]. Check sizes.${name}.`,
      { modality: name },
    )
  }
  const items = inputs?.[name]
  if (!encoder || items === undefined) {
    const expected = encoder
      ? `vectors.${name} or inputs.${name}`
      : `vectors.${name}, because there is no ${name} encoder`
    throw new ShapeError(`${where}: expected ${expected}, got a batch without. Add it to the batch.`, {
      modality: name,
    })
  }
  const empty = zeros(shape, { device: mask.device })
  if (items.length === 0) return empty
  const rows = await encoder.encode(items) // [items, size]
  const places = noGrad(() => there.reshape([-1]).nonzero().reshape([-1]))
  if (places.numel() !== items.length) {
    throw new ShapeError(
      `${where}: inputs.${name}: expected ${places.numel()} items, one for each true value of present.${name}, got ${items.length}. Make both from the same utterances.`,
      { modality: name },
    )
  }
  return empty.reshape([-1, size]).to({ dtype: rows.dtype }).indexAdd(0, places, rows).reshape(shape)
}
