import { type Tensor, Whisper, type WhisperConfig, type WhisperInputs } from '../../lib/index.js'
import { fixture, tensorsOf } from '../helpers.js'
import { camelKeys, loadParameters } from './networks.js'

export const file = await fixture<{ name: string; config: WhisperConfig }>('models/whisper')

/** A case's network with its weights, its inputs and its answers. */
export function open(name: string) {
  const found = file.cases.find((one) => one.name === name)
  const model = new Whisper(camelKeys(found?.config ?? {})).eval()
  loadParameters(model, file, name)
  const { real, ...inputs } = camelKeys(tensorsOf(file, name, 'in'))
  return { model, real: real as Tensor, inputs: inputs as WhisperInputs, expected: tensorsOf(file, name, 'out') }
}
