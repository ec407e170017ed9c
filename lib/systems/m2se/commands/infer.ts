import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { EMOVERSE_LABEL_OPTIONS, EMOVERSE_MODEL_OPTIONS, numbersOf } from '../configuration/arguments.js'
import { SWIFT_FOREIGN } from '../published/swift.js'

export const infer = commandRule({
  name: 'infer',
  summary: 'Answers instruction data into a result file, with the names of swift infer.',
  details: `  voxtorch emoverse infer --model runs/emoverse/model --val_dataset meld_test_data.json --result_dir results --max-new-tokens 8
  voxtorch emoverse score results/20260101-120000.jsonl

A line of the result file has system, query, response, label, history and media. The likeliest token is taken each time unless options say
otherwise. The same command goes on with a file that is not finished.`,
  options: {
    ...EMOVERSE_MODEL_OPTIONS,
    valDataset: { kind: 'texts', help: 'what to answer', value: 'file', aliases: ['dataset', 'data'] },
    resultDir: {
      kind: 'text',
      help: 'where the result file goes, called by the time',
      value: 'dir',
      preset: 'infer_result',
    },
    output: { kind: 'text', help: 'the result file itself', value: 'file.jsonl', aliases: ['result_path'] },
    maxLength: {
      kind: 'whole',
      help: 'longer prompts are refused; each of their media counts as one token',
      preset: 'no limit',
    },
    maxExpandedLength: {
      kind: 'whole',
      help: 'the same with all tokens that media become',
      preset: 'no limit',
    },
    maxNewTokens: { kind: 'whole', help: 'most tokens of an answer', preset: 2048 },
    batchSize: { kind: 'whole', help: 'answered at a time', preset: 8, aliases: ['max_batch_size', 'eval_batch_size'] },
    doSample: { kind: ['true', 'false'], help: 'whether tokens are drawn', preset: 'false' },
    temperature: { kind: 'number', help: 'while sampling' },
    topK: { kind: 'whole', help: 'while sampling' },
    topP: { kind: 'number', help: 'while sampling' },
    repetitionPenalty: { kind: 'number', help: 'above 1: what stands there already becomes less likely' },
    numBeams: { kind: 'whole', help: 'texts that are looked for together', preset: 1 },
    seed: { kind: 'whole', help: 'while sampling', preset: 42 },
    byLabels: {
      kind: 'flag',
      help: 'the likeliest label, or causes that are likely enough, with the probabilities of all',
    },
    ...EMOVERSE_LABEL_OPTIONS,
    constrained: {
      kind: 'flag',
      help: 'holds answers to what their questions allow: a label, or pairs of target and cause',
    },
    onBadRecord: { kind: ['stop', 'skip'], help: 'what a record that cannot be used does', preset: 'skip' },
    compat: { kind: ['published'], help: "a prompt that is too long is answered with ''" },
  },
  foreign: SWIFT_FOREIGN,
  async run(given) {
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
    } = given
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
    } = given
    if (valDataset === undefined)
      throw new ConfigError('Say what to answer: --val-dataset FILE', { argument: 'valDataset' })
    if (output !== undefined && resultDir !== undefined) {
      throw new ConfigError('--output names the file, --result-dir its folder: give one', { argument: 'output' })
    }
    const { emoverseOfArguments } = await import('../configuration/apply.js')
    const { inferEmoVerse } = await import('../answer/infer.js')
    using model = await emoverseOfArguments(given)
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
    console.log(`${file}: ${records} results${continued > 0 ? `, ${continued} of them from before` : ''}`)
    return 0
  },
})
