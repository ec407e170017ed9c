import { InternVL, type InternVLConfig, type Tensor } from '../../lib/index.js'
import { type Fixture, tensorsOf } from '../helpers.js'
import { get } from './decoder.js'
import { camelKeys, loadParameters } from './networks.js'

/** A case of test/reference/internvl.py. */
export interface InternVLCase {
  name: string
  text: Record<string, unknown>
  vision: Record<string, unknown>
  tokens: number[] | null
}

/** Its id of pictures. */
export const IMAGE = 26

/** The configuration of a case. */
export function internVLConfigOf(file: Fixture<InternVLCase>, name: string): InternVLConfig {
  const { text, vision } = get(file.cases.find((one) => one.name === name))
  const { imageSize, patchSize, useQkNorm, attentionBias, normType, ...sizes } = camelKeys(vision) as Record<
    string,
    never
  >
  return {
    visionConfig: {
      hiddenSize: sizes.hiddenSize,
      numHiddenLayers: sizes.numHiddenLayers,
      numAttentionHeads: sizes.numAttentionHeads,
      intermediateSize: sizes.intermediateSize,
      numChannels: sizes.numChannels,
      imageSize: imageSize[0],
      patchSize: patchSize[0],
      qkvBias: attentionBias,
      qkNormalization: useQkNorm,
      normType,
    },
    llmConfig: camelKeys(text),
    imgContextTokenId: IMAGE,
  }
}

/** A network with the weights of a case, and what it is given and answers. */
export function openInternVL(file: Fixture<InternVLCase>, name: string) {
  const model = new InternVL(internVLConfigOf(file, name)).eval()
  loadParameters(model, file, name)
  const inputs = camelKeys(tensorsOf(file, name, 'in')) as Record<
    'inputIds' | 'attentionMask' | 'labels' | 'pixelValues',
    Tensor
  >
  return { model, inputs, expected: tensorsOf(file, name, 'out'), real: inputs.attentionMask.to({ dtype: 'float32' }) }
}
