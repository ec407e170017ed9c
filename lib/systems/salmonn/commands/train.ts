import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { commandRule } from '../../../kit/command.js'
import type { DType } from '../../../tensor/index.js'
import {
  configurationOfArguments,
  printIgnored,
  SALMONN_OPTIONS,
  salmonnArguments,
} from '../configuration/arguments.js'

export const train = commandRule({
  name: 'train',
  summary:
    'Train SALMONN on annotated clips, or on dialogs of several clips, with a voxtorch or published configuration.',
  details: `  voxtorch salmonn train --config salmonn.yaml --options data.train=dialogs.json
  voxtorch salmonn train --cfg-path configs/config.yaml --stage 1 --output runs/stage-1
  voxtorch salmonn train --cfg-path configs/config.yaml --stage 2 --model runs/stage-1/model

OUTPUT/model has the weights with the best token accuracy. It contains only the trained parts; the others are loaded from their own
files. The same command continues a killed run. --options training.evaluateOnly=true (run.evaluate=true in a published configuration)
evaluates without training, on the test data or, if there are none, on the validation data. Answers go to OUTPUT/answers.jsonl.`,
  options: SALMONN_OPTIONS,
  async run(options) {
    const values = salmonnArguments(options)
    const configuration = await configurationOfArguments(values)
    const { data: settings, recipe, stage = 2, args, generation, outputDir = 'runs/salmonn', compat } = configuration
    const { evaluateOnly = false } = configuration
    const printed = printIgnored(configuration)
    const { writeFolderAtomically } = await import('../../../base/atomic-folder.js')
    const { CheckpointError } = await import('../../../base/errors.js')
    const { writeJson } = await import('../../../files/json/json.js')
    const { writeJsonl } = await import('../../../files/json/jsonl.js')
    const { manualSeed } = await import('../../../tensor/index.js')
    const { openSalmonnData, salmonnDatasetOptions } = await import('../data/open.js')
    const { salmonnOfConfiguration } = await import('../configuration/apply.js')

    const seed = recipe.seed ?? 42
    const data = await openSalmonnData(settings, { seed, evaluateOnly, compat })
    for (const note of data.notes) console.log(note)
    manualSeed(seed)
    const dtype = (values.dtype ?? 'bfloat16') as DType
    using model = await salmonnOfConfiguration(configuration, { dtype, model: values.model })
    printIgnored(configuration, printed)
    if (evaluateOnly) {
      const { measureSalmonn } = await import('../evaluation/evaluate.js')
      const { answers, ...measured } = await measureSalmonn(model, data.test.length > 0 ? data.test : data.valid, {
        generation,
        batchSize: recipe.evalBatchSize ?? 8,
      })
      await mkdir(outputDir, { recursive: true })
      await writeJsonl(join(outputDir, 'answers.jsonl'), answers)
      console.log(JSON.stringify(measured, null, 2))
      return 0
    }
    const { trainSalmonn } = await import('../training/train.js')
    const { train, valid, test } = data
    const results = await trainSalmonn(model, {
      ...{ train, valid, test, outputDir, recipe, stage, args, compat, score: { generation } },
    })
    const asked = { data: salmonnDatasetOptions(settings), training: { ...(compat && { compat }) } }
    await writeFolderAtomically(join(outputDir, 'model'), CheckpointError, async (folder) => {
      await model.save(folder)
      // `salmonn trajectory` reads this file, so that it prepares dialogs as in training.
      await writeJson(join(folder, 'data.json'), asked)
    })
    console.log(JSON.stringify(results, null, 2))
    return 0
  },
})
