import { ConfigError } from '../../../base/errors.js'
import { settings } from '../../../base/settings.js'
import { commandRule } from '../../../kit/command.js'
import { EMOVERSE_LABEL_OPTIONS, EMOVERSE_MODEL_OPTIONS, numbersOf } from '../configuration/arguments.js'
import { ON_BAD_RECORD } from '../configuration/settings.js'
import { SWIFT_ORIGINAL_OPTIONS } from '../published/swift.js'

/** Options of `inferEmoVerse`. */
const INFER = settings({
  mediaRoot: { type: 'string' },
  visionCache: { type: 'string' },
  maxLength: {
    ...{ type: 'integer', min: 1, defaultText: 'no limit' },
    help: 'maximum prompt length; longer ones are an error; each image or video counts as one token',
  },
  maxExpandedLength: {
    ...{ type: 'integer', min: 1, defaultText: 'no limit' },
    help: 'maximum prompt length with all tokens of images and videos',
  },
  maxNewTokens: { type: 'integer', defaultText: '2048', help: 'maximum number of tokens of an answer' },
  batchSize: {
    ...{ type: 'integer', min: 1, default: 8, help: 'questions per batch' },
    aliases: ['max_batch_size', 'eval_batch_size'],
  },
  doSample: {
    ...{ type: 'boolean', takesValue: true, defaultText: 'false' },
    help: 'sample tokens instead of taking the most likely',
  },
  temperature: { type: 'number', help: 'sampling temperature' },
  topK: { type: 'integer', help: 'sample from the k most likely tokens' },
  topP: { type: 'number', help: 'sample from the top tokens of this cumulative probability' },
  repetitionPenalty: { type: 'number', help: 'penalty of repeated tokens, if above 1' },
  numBeams: { type: 'integer', defaultText: '1', help: 'number of beams of beam search' },
  /** Random seed of sampling. */
  seed: { type: 'integer', default: 42, help: 'random seed of sampling' },
  byLabels: { type: 'boolean', help: 'answer with the most likely label or causes, and write all probabilities' },
  fallback: { type: 'string' },
  causeThreshold: { type: 'number' },
  constrained: {
    type: 'boolean',
    help: 'constrain answers to what their question allows: a label, or pairs of target and cause',
  },
  onBadRecord: ON_BAD_RECORD,
  compat: { type: ['published'], help: "answer a prompt that is too long with '' instead of failing" },
})

export const infer = commandRule({
  name: 'infer',
  summary: 'Answer instruction data into a result file, with the option names of swift infer.',
  details: `  voxtorch emoverse infer --model runs/emoverse/model --val_dataset meld_test_data.json --result_dir results --max-new-tokens 8
  voxtorch emoverse score results/20260101-120000.jsonl

Each line of the result file has system, query, response, label, history and media. Decoding is greedy unless options say otherwise.
Running the same command again continues an unfinished file.`,
  options: {
    ...EMOVERSE_MODEL_OPTIONS,
    valDataset: {
      type: 'strings',
      help: 'files of questions to answer',
      placeholder: 'file',
      aliases: ['dataset', 'data'],
    },
    resultDir: {
      type: 'string',
      help: 'folder for the result file, which is named by the time',
      placeholder: 'dir',
      default: 'infer_result',
    },
    output: { type: 'string', help: 'path of the result file', placeholder: 'file.jsonl', aliases: ['result_path'] },
    ...INFER.options,
    ...EMOVERSE_LABEL_OPTIONS,
  },
  originalOptions: SWIFT_ORIGINAL_OPTIONS,
  async run(values) {
    const { valDataset, resultDir, output, thresholds } = values
    if (valDataset === undefined)
      throw new ConfigError(
        'emoverse infer --val-dataset: expected a file of questions, got none. Pass --val-dataset FILE.',
        { argument: 'valDataset' },
      )
    if (output !== undefined && resultDir !== undefined) {
      throw new ConfigError(
        'emoverse infer: expected --output (file) or --result-dir (folder), got both. Pass one of them.',
        { argument: 'output' },
      )
    }
    const { emoverseOfArguments } = await import('../configuration/apply.js')
    const { inferEmoVerse } = await import('../answer/infer.js')
    const { seed = INFER.defaults.seed, ...changes } = INFER.fromOptions(values)
    using model = await emoverseOfArguments(values)
    const { file, records, continued, notes } = await inferEmoVerse(model, {
      ...{ data: valDataset, output: output ?? resultDir ?? 'infer_result' },
      ...changes,
      ...(changes.doSample && { seed }),
      ...(thresholds && { thresholds: numbersOf('--thresholds', thresholds) }),
      onProgress: (done, all) => console.error(`${done} of ${all}`),
    })
    for (const note of notes) console.error(note)
    console.log(`${file}: ${records} results${continued > 0 ? `, ${continued} of them from an earlier run` : ''}`)
    return 0
  },
})
