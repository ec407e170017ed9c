/** Correct calls of AudioLM. */
import { fileURLToPath } from 'node:url'
import { add, lib, many, of, options } from './define.js'
import { dense, indices, list, made } from './values.js'

const tokenizer = await lib.Tokenizer.fromPretrained(
  fileURLToPath(new URL('../fixtures/models/audio-lm-folder-qwen2_audio', import.meta.url)),
)
const network = made('an AudioLM', () => {
  const model = lib.AudioLM.fromConfig(
    {
      modelType: 'qwen2_audio',
      audioConfig: {
        ...{ dModel: 8, encoderLayers: 1, encoderAttentionHeads: 2, encoderFfnDim: 8 },
        ...{ numMelBins: 4, maxSourcePositions: 10 },
      },
      textConfig: { hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 8, vocabSize: 263 },
      audioTokenIndex: 260,
    },
    { seed: 1 },
  ).eval()
  model.tokenizer = tokenizer
  return model
})
const [features, mask, text] = [dense([1, 4, 20]), dense([1, 20], 'ones', 'int64'), indices([1, 3])]
const message = (content: unknown) => many(options({ role: 'user', content }))
for (const [name, ...right] of [
  [
    'forward',
    of(network, options({ inputIds: text })),
    of(network, options({ inputIds: text, labels: text, logitsToKeep: 1 })),
  ],
  ['embed', of(network, text)],
  ['generate', of(network, options({ inputIds: text }))],
  ['encodeAudio', of(network, options({ inputFeatures: features, featuresMask: mask }))],
  ['projectAudio', of(network, dense([1, 5, 8])), of(network, dense([1, 5, 8]), mask)],
  ['features', of(network, dense([900])), of(network, dense([5000]), options({ longAudio: 'windows' }))],
  ['prompt', of(network, 'a <|AUDIO|> b', list([2])), of(network, 'a', list([]))],
  [
    'prepare',
    of(network, message('a')),
    of(network, message(many(options({ type: 'audio', audio: dense([900]) }))), options({ paddingSide: 'right' })),
  ],
] as const) {
  add(
    `AudioLM.${name}`,
    (model, ...rest) => {
      if (!(model instanceof lib.AudioLM)) throw new lib.ConfigError('the fuzz spoiled the object itself')
      return model[name](...rest)
    },
    ...right,
  )
}
