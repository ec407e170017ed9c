/** Right calls of CLIP, BERT and what makes texts ready for them. */
import { fileURLToPath } from 'node:url'
import { add, exported, type Loose, lib, of, options } from './define.js'
import { dense, indices, list, made } from './values.js'

const place = fileURLToPath(new URL('../fixtures/models/clip-tokenizer', import.meta.url))
let read: Promise<Loose> | undefined
const tokenizer = (): Promise<Loose> => (read ??= lib.ClipTokenizer.fromPretrained(place))

add(
  'ClipTokenizer.encode',
  async (texts, given) => (await tokenizer()).encode(texts, given),
  of('a dog'),
  of(list(['a dog', 'A cat !']), options({ padding: 'longest', maxLength: 5 })),
)

const sizes = { hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 8 }
const bert = made('a Bert', () => lib.Bert.fromConfig({ ...sizes, vocabSize: 1000 }, { seed: 1 }).eval())
const inputs = { inputIds: indices([2, 4]), attentionMask: dense([2, 4], 'ones', 'int64') }
for (const [name, network, ...right] of [
  [
    'ClipTextModel',
    made('a ClipTextModel', () =>
      lib.ClipTextModel.fromConfig({ ...sizes, vocabSize: 12, maxPositionEmbeddings: 6 }, { seed: 1 }).eval(),
    ),
    options({ inputIds: inputs.inputIds }),
    options({ ...inputs, outputHiddenStates: true }),
  ],
  [
    'ClipVisionModel',
    made('a ClipVisionModel', () =>
      lib.ClipVisionModel.fromConfig({ ...sizes, imageSize: 8, patchSize: 4 }, { seed: 1 }).eval(),
    ),
    options({ pixelValues: dense([2, 3, 8, 8]) }),
    options({ pixelValues: dense([1, 3, 8, 8]), outputHiddenStates: true }),
  ],
  ['Bert', bert, options({ inputIds: inputs.inputIds }), options(inputs)],
] as const) {
  add(
    `${name}.forward`,
    (model, ...rest) => {
      if (!(model instanceof lib[name])) throw new lib.ConfigError('the fuzz spoiled the object itself')
      return model.forward(...rest)
    },
    ...right.map((one) => of(network, one)),
  )
}
add(
  'embedSentences',
  async (model, texts, given) => lib.embedSentences(model, (await tokenizer()).tokenizer, texts, given),
  of(bert, list(['a dog'])),
  of(bert, list(['a dog', 'a cat']), options({ pooling: 'cls', normalize: true, batchSize: 1, maxLength: 4 })),
)
const samples = made('new Float32Array(300)', () => new Float32Array(300))
exported('videoAudio', of('talk.wav'), of(samples, options({ maxSeconds: 2 })))
