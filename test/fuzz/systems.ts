/** Right calls of pipelines, and of what SPECTRA, its state tracking, SALMONN and their scoring export. */
import { type Args, add, exported, type Loose, lib, many, of, options } from './define.js'
import { dense, indices, list, made, type Spec } from './values.js'

const floats = made('new Float32Array(3000)', () => new Float32Array(3000))
const texts = (...items: string[]): Spec => list(items)

// ---- pipelines

const wavlm = made('a WavLM', () =>
  lib.WavLM.fromConfig({
    ...{ hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 12 },
    ...{ convDim: [8], convKernel: [10], convStride: [5], numConvPosEmbeddings: 8, numConvPosEmbeddingGroups: 2 },
  }),
)
add(
  'pipeline',
  async (task, model, audio, given) => {
    const run = await lib.pipeline(task, model, typeof model === 'string' ? { offline: true } : {})
    return run(audio, given)
  },
  of('feature-extraction', wavlm, floats, options({ pooling: 'mean', normalize: true })),
)

// ---- LanguageBind

const encoder = { hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 8 }
async function bound(call: (model: Loose) => unknown): Promise<unknown> {
  const model = lib.LanguageBind.fromConfig({
    image: {
      textConfig: { ...encoder, vocabSize: 12, maxPositionEmbeddings: 6 },
      visionConfig: { ...encoder, imageSize: 8, patchSize: 4 },
      projectionDim: 4,
    },
  })
  try {
    return await call(model)
  } finally {
    model.dispose()
  }
}
add(
  'LanguageBind.embed',
  (inputs, given) => bound((model) => model.embed(inputs, given)),
  of(options({ image: dense([2, 3, 8, 8]) }), options({ useTemp: false, batchSize: 1, compat: 'published' })),
  of(options({ text: options({ inputIds: indices([2, 4]) }) }), options({})),
)
add(
  'LanguageBind.similarity',
  (first, second) => bound((model) => model.similarity(first, second)),
  of(dense([2, 4]), dense([3, 4])),
)
exported(
  'contrastiveLoss',
  of(dense([3, 4]), dense([3, 4])),
  of(dense([3, 4]), dense([3, 4]), options({ logitScale: 2 })),
)
exported('resizePositions', of(dense([5, 4]), list([3, 2])), of(dense([7, 4]), list([2, 2]), list([2, 3])))
exported(
  'languageBindAudio',
  of(floats),
  of(many(floats, floats), options({ nMels: 20, targetLength: 8, mean: 0, std: 1, crop: 'first' })),
)

// ---- SALMONN

const turn = options({ text: 'hello', emotion: 'happy', reply: 'hi', audio: 'a.wav' })
const dialog = options({ id: 'd', turns: many(turn, turn) })
const entry = options({
  id: 'd',
  task: 'QA',
  audio: texts('a.wav'),
  target: 'yes',
  question: 'q',
  dialog: 'd',
  source: 'f, item 1',
})
const trains = made('new Map([["a", true], ["b", false]])', () => new Map(Object.entries({ a: true, b: false })))

exported('convertHumDial', of(dialog), of(dialog, options({ task: 't', language: 'en', style: 'plain' })))
exported('trajectoryRequest', of(dialog), of(dialog, options({ language: 'en', style: 'plain' })))
exported('joinClips', of(many(floats, floats)), of(many(floats), options({ gapSeconds: 0.5, trailingGap: false })))
exported('fitClip', of(floats), of(floats, options({ leastSamples: 10, mostSamples: 100, longAudio: 'cut' })))
exported('judgeInput', of(dialog, 'an answer'))
exported('judgePrompt', of(options({ history: texts('user: x'), question: 'q', answer: 'a' }), 'task1'))
exported(
  'judgePrompts',
  of(many(options({ id: 'd', dialog })), many(options({ id: 'd', prediction: 'p' })), options({ task: 'task1' })),
)
exported('judgeSummary', of(texts('{"a": 5}', 'none'), 'task1'), of(list([])))
exported('parseJudgeReply', of('{"a": 5}'))
exported('judgeScore', of(4))
exported('parseAudioInput', of('a.wav,b.wav'), of('["a.wav"]'))
exported('parseEmotionSuffix', of('text\nEmotion sequence: a -> b'))
exported('splitEmotions', of('a -> b'))
exported('writeEmotionSuffix', of('text', texts('a', 'b'), 'en'), of('text', list([])))
exported('parseSalmonnArguments', of(texts('--config', 'a.yaml', '--stage', '1')), of(list([])))
exported('configurationOfArguments', of(options({ options: texts(), config: 'nowhere.yaml' })))
exported('publishedCheckpointNames', of(texts('a', 'b'), trains))
exported('trainedNames', of(trains))
exported('rougeL', of('a b c', 'a c'))
exported(
  'salmonnAdapterTensors',
  of(options({ hiddenSize: 8, layers: 1, loraRank: 2, qformer: options({ hiddenSize: 4, layers: 1 }) })),
)
exported('salmonnCollate', of(many(options({ prompt: options({}), target: 'x' }))))
exported('salmonnConfiguration', of(options({ outputDir: 'out' }), texts('seed=3')), of(options({})))
exported('salmonnQuestion', of('Which word is spoken?'))
exported('sharedDialogs', of(many(entry), many(entry)))
exported(
  'splitSalmonn',
  of(
    many(
      entry,
      options({ id: 'e', task: 'QA', audio: texts('b.wav'), target: 'no', question: 'q', dialog: 'e', source: 's' }),
    ),
    options({ valid: 0.5, seed: 1 }),
  ),
)
exported('pairTrajectories', of(many(options({ id: 'd', prediction: 'p' })), many(options({ id: 'd', entry }))))
exported(
  'trajectoryScores',
  of(
    many(
      options({
        id: 'd',
        prediction: 'Emotion sequence: a',
        reference: 'Emotion sequence: a -> b',
        emotions: texts('a', 'b'),
      }),
    ),
  ),
)
add(
  'salmonnLearningRate',
  (settings, ...at) => lib.salmonnLearningRate(settings)(...at),
  of(options({ learningRate: 1e-3, warmupSteps: 3, epochs: 2, iterationsPerEpoch: 5, compat: 'published' }), 1, 2),
)
exported(
  'salmonnScheduler',
  of(options({ groups: many(options({ lr: 0.1 })) }), options({ accumulation: 2, epochs: 2 })),
)
exported('readSalmonnAnnotations', of(texts(), options({ targets: 'optional', onBadItem: 'skip' })))
add(
  'keepFrozenInEval',
  (model) => {
    lib.keepFrozenInEval(model)
    model.dispose?.()
  },
  of(made('new Linear(2, 2)', () => new lib.Linear(2, 2))),
)

// ---- state tracking

const config = options({
  classTypes: texts('none', 'dontcare', 'copy_value', 'true', 'false', 'refer', 'inform'),
  slots: texts('hotel-name', 'hotel-parking'),
  labelMaps: options({ cheap: texts('cheap', 'budget') }),
})
const tokenizer = made('a tokenizer', () => ({
  bosTokenId: 0,
  eosTokenId: 2,
  padTokenId: 1,
  encode: () => ({ inputIds: [5] }),
  decode: () => 'words',
}))
const numbers = {
  classIds: list([2, 0]),
  startPositions: list([1, 0]),
  endPositions: list([1, 0]),
  referIds: list([0, 0]),
}
const prediction = options(numbers)
const features = options({
  ...numbers,
  dialog: 'd',
  turn: 0,
  inputIds: list([0, 5, 2]),
  userLength: 3,
  informs: options({}),
  values: options({ 'hotel-name': 'x' }),
})
const result = options({ features, prediction, state: options({ 'hotel-name': 'x' }) })
const utterance = options({ text: 'a cheap room', audio: null })
const dstDialog = options({
  id: 'd',
  turns: many(
    options({ user: utterance, system: utterance, informed: options({}), changes: options({ 'hotel-name': 'cheap' }) }),
  ),
})
const decoding = options({ config, tokenizer })

exported('decodeDst', of(many(features), many(prediction), decoding))
exported(
  'nextDstState',
  of(options({}), prediction, features, decoding),
  of(options({ 'hotel-name': 'y' }), prediction, features, options({ config, tokenizer, compat: 'published' })),
)
exported('dstScores', of(many(result), config))
exported('trippyScores', of(many(result), config))
exported('dstPredictionRecords', of(many(result), config))
exported('dstValueMatches', of(config, 'budget', 'cheap'), of(config, '15:00', '15 : 00'))
exported('dstWords', of("a table at 5pm, isn't it"))
exported('normalizeDstText', of('At 5pm'))
exported('normalizeDstTime', of('at 5pm'))
exported(
  'normalizeDstLabel',
  of('hotel-parking', 'yes'),
  of('hotel-name', texts('A'), options({ compat: 'published' })),
)
exported('dstExamples', of(dstDialog, options({ config })), of(dstDialog, options({ config, compat: 'published' })))
exported('readDstAudio', of(null), of(options({ path: 'nowhere.wav', start: 0, end: 1 })))
exported('parseDstArguments', of(texts('--data', 'x')))
add(
  'dstCollate',
  (settings, samples) => Object.values(lib.dstCollate(settings)(samples)),
  of(options({ padId: 1, textLength: 5 }), many(options({ features, userSamples: floats, systemSamples: floats }))),
)
for (const name of ['readDstExamples', 'readDstFeatures'])
  exported(name, of('nowhere.pkl', options({ config, audio: 'folder' })))
exported('readSpokenWoz', of('nowhere.json', options({ config })))
add(
  'DstHeads',
  (settings) => {
    const heads = new lib.DstHeads(settings)
    heads.dispose()
  },
  of(options({ config, hiddenSize: 4, dropout: 0 })),
)

// ---- fine-tuning SPECTRA

const task = options({ name: 'mine', kind: 'classification', numLabels: 3, keyMetric: 'accuracy' })
const commandLine = options({ data: 'd', task: 'mosi', device: 'cpu', fp16: true, mode: 'finetune' })
const spectra: [string, ...Args[]][] = [
  ['parseSpectraArguments', of(texts('--task', 'mosi', '--data', 'x'))],
  ['publishedSpectraTask', of('mosi')],
  ['spectraTask', of(task), of(options({ name: 'r', kind: 'regression' }))],
  ['spectraPreset', of(task)],
  ['spectraTaskOfArguments', of(commandLine)],
  ['spectraDataOfArguments', of(commandLine)],
  ['spectraFinetuningOfArguments', of(commandLine)],
  ['unusedSpectraArguments', of(commandLine)],
  ['spectraSteps', of(100, options({ epochs: 2, batchSize: 8, accumulation: 2, worldSize: 1 }))],
  ['spectraSchedule', of(100, 0.1), of(100, 0, 'published')],
  ['spectraMetrics', of(task, list([0, 1, 2, 1]), list([0, 2, 2, 1]))],
  ['spectraSentimentMetrics', of(list([0.5, -1, 2]), list([0.2, -2, 1]))],
  ['spectraIntentMetrics', of(list([1, 15, 3]), list([1, 12, 4]))],
  ['spectraEmotionMetrics', of(list([1, 2, 3]), list([1, 2, 2]))],
  [
    'spectraReport',
    of(
      options({
        task: 'mine',
        keyMetric: 'accuracy',
        bestStep: 3,
        valid: options({ accuracy: 0.5 }),
        test: null,
        samples: options({ train: 3, valid: 1, test: 0 }),
        cut: options({ audio: 0, historyAudio: 0, text: 0 }),
        notes: texts('note'),
      }),
    ),
  ],
]
for (const [name, ...right] of spectra) exported(name, ...right)
