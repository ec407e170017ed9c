import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { EMOVERSE_LABEL_OPTIONS, EMOVERSE_MODEL_OPTIONS, numbersOf } from '../configuration/arguments.js'
import { SWIFT_FOREIGN } from '../published/swift.js'

export const infer = commandRule({
  name: 'infer',
  summary: 'Answer instruction data into a result file, with the option names of swift infer.',
  details: `  voxtorch emoverse infer --model runs/emoverse/model --val_dataset meld_test_data.json --result_dir results --max-new-tokens 8
  voxtorch emoverse score results/20260101-120000.jsonl

Each line of the result file has system, query, response, label, history and media. Decoding is greedy unless options say otherwise.
Running the same command again continues an unfinished file.`,
  options: {
    ...EMOVERSE_MODEL_OPTIONS,
    valDataset: { kind: 'texts', help: 'files of questions to answer', value: 'file', aliases: ['dataset', 'data'] },
    resultDir: {
      kind: 'text',
      help: 'folder for the result file, which is named by the time',
      value: 'dir',
      preset: 'infer_result',
    },
    output: { kind: 'text', help: 'path of the result file', value: 'file.jsonl', aliases: ['result_path'] },
    maxLength: {
      kind: 'whole',
      help: 'maximum prompt length; longer ones are an error; each image or video counts as one token',
      preset: 'no limit',
    },
    maxExpandedLength: {
      kind: 'whole',
      help: 'maximum prompt length with all tokens of images and videos',
      preset: 'no limit',
    },
    maxNewTokens: { kind: 'whole', help: 'maximum number of tokens of an answer', preset: 2048 },
    batchSize: {
      kind: 'whole',
      help: 'questions per batch',
      preset: 8,
      aliases: ['max_batch_size', 'eval_batch_size'],
    },
    doSample: { kind: ['true', 'false'], help: 'sample tokens instead of taking the most likely', preset: 'false' },
    temperature: { kind: 'number', help: 'sampling temperature' },
    topK: { kind: 'whole', help: 'sample from the k most likely tokens' },
    topP: { kind: 'number', help: 'sample from the top tokens of this cumulative probability' },
    repetitionPenalty: { kind: 'number', help: 'penalty of repeated tokens, if above 1' },
    numBeams: { kind: 'whole', help: 'number of beams of beam search', preset: 1 },
    seed: { kind: 'whole', help: 'random seed of sampling', preset: 42 },
    byLabels: {
      kind: 'flag',
      help: 'answer with the most likely label or causes, and write all probabilities',
    },
    ...EMOVERSE_LABEL_OPTIONS,
    constrained: {
      kind: 'flag',
      help: 'constrain answers to what their question allows: a label, or pairs of target and cause',
    },
    onBadRecord: { kind: ['stop', 'skip'], help: 'stop at, or skip, a record that cannot be used', preset: 'skip' },
    compat: { kind: ['published'], help: "answer a prompt that is too long with '' instead of failing" },
  },
  foreign: SWIFT_FOREIGN,
  async run(values) {
    const {
      valDataset,
      resultDir,
      output,
      maxLength,
      maxExpandedLength,
      maxNewTokens,
      batchSize,
      doSample,
      temperature,
      topK,
      topP,
    } = values
    const {
      repetitionPenalty,
      numBeams,
      seed = 42,
      onBadRecord,
      byLabels,
      constrained,
      compat,
      mediaRoot,
      visionCache,
      thresholds,
      fallback,
      causeThreshold,
    } = values
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
    using model = await emoverseOfArguments(values)
    const { file, records, continued, notes } = await inferEmoVerse(model, {
      ...{ data: valDataset, output: output ?? resultDir ?? 'infer_result' },
      ...defined({ maxLength, maxNewTokens, batchSize, temperature, topK, topP, repetitionPenalty, numBeams }),
      ...defined({ maxExpandedLength, mediaRoot, visionCache, fallback, causeThreshold }),
      ...(thresholds && { thresholds: numbersOf('--thresholds', thresholds) }),
      ...defined({
        onBadRecord,
        byLabels,
        constrained,
        compat,
        doSample: doSample === undefined ? undefined : doSample === 'true',
        seed: doSample === 'true' ? seed : undefined,
      }),
      onProgress: (done, all) => console.error(`${done} of ${all}`),
    })
    for (const note of notes) console.error(note)
    console.log(`${file}: ${records} results${continued > 0 ? `, ${continued} of them from an earlier run` : ''}`)
    return 0
  },
})
