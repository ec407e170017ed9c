import { expect } from 'vitest'
import { DecoderLM, type DecoderLMInputs, type Tensor } from '../../lib/index.js'
import { fixture, tensorsOf } from '../helpers.js'
import { camelKeys, loadParameters } from './networks.js'

export const file = await fixture<{ name: string; config: Record<string, unknown> }>('models/decoder-lm')

/** A case's network with its weights, its inputs and its answers. */
export function open(name: string, from = file) {
  const found = from.cases.find((one) => one.name === name)
  const model = new DecoderLM(camelKeys(found?.config ?? {})).eval()
  loadParameters(model, from, name)
  const { real, prompts, ...inputs } = camelKeys(tensorsOf(from, name, 'in'))
  return {
    model,
    real: real as Tensor,
    prompts: prompts as Tensor | undefined,
    inputs: inputs as DecoderLMInputs,
    expected: tensorsOf(from, name, 'out'),
  }
}

/** Without what stands at padding, whose rows are those of `dim`. */
export const atReal = (value: Tensor, real: Tensor, dim: number): Tensor => {
  const shape = value.shape.map((size, i) => (i === 0 || i === dim ? size : 1))
  return value.mul(real.reshape(shape))
}

export const get = <T>(value: T | null | undefined): T => {
  expect(value).toBeTruthy()
  return value as T
}
