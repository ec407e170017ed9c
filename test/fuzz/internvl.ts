/** Correct calls of InternVL and of its text and image preprocessing. */
import { add, exported, lib, many, of, options } from './define.js'
import { dense, indices, list, made } from './values.js'

const picture = dense([5, 9, 3], 'indices', 'uint8')
exported('tileImage', of(picture), of(picture, options({ size: 4, maxTiles: 3, thumbnail: false, pillow: 13 })))
exported('tileGrid', of(640, 360), of(30, 700, options({ size: 14, minTiles: 2, maxTiles: 6 })))

// Letters and what stands in angle brackets are tokens.
const words = made('a tokenizer of letters', () => letters())
const known: string[] = ['<s>', '<img>', '</img>', '<IMG_CONTEXT>', '<|im_end|>']
function letters(): unknown {
  const idOf = (text: string): number =>
    known.includes(text) ? known.indexOf(text) : 5 + ((text.codePointAt(0) ?? 0) % 20)
  const split = (text: string) =>
    text.split(/(<[^<>]*>)/).flatMap((part) => (known.includes(part) ? [part] : [...part]))
  return {
    bosTokenId: null,
    eosToken: '<|im_end|>',
    tokenToId: (text: unknown) => (known.includes(String(text)) ? known.indexOf(String(text)) : undefined),
    encode: (text: string) => ({ inputIds: split(text).map(idOf) }),
    decode: (ids: number[]) => ids.map((id) => known[id] ?? String.fromCodePoint(60 + id)).join(''),
  }
}
exported(
  'internVLPrompt',
  of(words, options({ turns: many(list(['hi', 'yes']), list(['go', null])) }), options({ template: 'phi3' })),
  of(
    words,
    options({ turns: many(list(['<image>a<video>', 'b'])), images: list([2]), videos: list([3]), system: 's' }),
    options({ template: 'hermes2', tileTokens: 2, imgContextTokenId: 3 }),
  ),
)
exported('internVLTemplate', of('Hermes-2'), of('phi3'))
add(
  'listGrammar',
  (own, given) => [...lib.listGrammar(own, given)(0, [5, 6])],
  of(words, options({ items: list(['1_joy', '2_joy']), separator: ';', most: 2, empty: true })),
)

const sizes = { hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 8 }
const network = made('an InternVL', () =>
  lib.InternVL.fromConfig(
    {
      visionConfig: { ...sizes, imageSize: 4, patchSize: 1, numChannels: 1 },
      llmConfig: { ...sizes, vocabSize: 12 },
      imgContextTokenId: 11,
    },
    { seed: 1 },
  ).eval(),
)
const [pixels, text] = [dense([1, 1, 2, 2]), indices([1, 3])]
for (const [name, ...right] of [
  [
    'forward',
    of(network, options({ inputIds: text })),
    of(network, options({ inputIds: text, labels: text, logitsToKeep: 1 })),
  ],
  ['embed', of(network, text)],
  ['encodeImages', of(network, pixels)],
  ['projectImages', of(network, dense([1, 2, 32]))],
  ['generate', of(network, options({ inputIds: text }))],
  ['tileTokens', of(network), of(network, 4, 8)],
] as const) {
  add(
    `InternVL.${name}`,
    (model, ...rest) => {
      if (!(model instanceof lib.InternVL)) throw new lib.ConfigError('the fuzz spoiled the object itself')
      return model[name](...rest)
    },
    ...right,
  )
}
exported(
  'scoreLabels',
  of(network, options({ inputIds: text }), many(list([1]), list([2, 3])), options({ perToken: true })),
)
