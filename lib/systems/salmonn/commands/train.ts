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
    'Trains SALMONN on annotated clips, or on dialogs of several clips, by a configuration of ours or the published one.',
  details: `  voxtorch salmonn train --config salmonn.yaml --options data.train=dialogs.json
  voxtorch salmonn train --cfg-path configs/config.yaml --stage 1 --output runs/stage-1
  voxtorch salmonn train --cfg-path configs/config.yaml --stage 2 --model runs/stage-1/model

The best weights by token accuracy end up in OUTPUT/model, which holds what trains; the parts stay where they are. The same
command goes on where a killed run was. With --options training.evaluateOnly=true (run.evaluate=true in the published
configuration) it measures and does not train: on the test data, or without any on what a training keeps to validate with.
The answers go into OUTPUT/answers.jsonl.`,
  options: SALMONN_OPTIONS,
  async run(options) {
    const given = salmonnArguments(options)
    const configuration = await configurationOfArguments(given)
    const { data: settings, recipe, stage = 2, args, generation, outputDir = 'runs/salmonn', compat } = configuration
    const { evaluateOnly = false } = configuration
    const printed = printIgnored(configuration)
    const { writeJson } = await import('../../../files/json/json.js')
    const { writeJsonl } = await import('../../../files/json/jsonl.js')
    const { manualSeed } = await import('../../../tensor/index.js')
    const { openSalmonnData, salmonnDatasetOptions } = await import('../data/open.js')
    const { salmonnOfConfiguration } = await import('../configuration/apply.js')

    const seed = recipe.seed ?? 42
    const data = await openSalmonnData(settings, { seed, evaluateOnly, ...(compat && { compat }) })
    for (const note of data.notes) console.log(note)
    manualSeed(seed)
    const dtype = (given.dtype ?? 'bfloat16') as DType
    using model = await salmonnOfConfiguration(configuration, { dtype, model: given.model })
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
      ...{ train, valid, test, outputDir, recipe, stage, args, score: { generation } },
      ...(compat && { compat }),
    })
    await model.save(join(outputDir, 'model'))
    // How dialogs were heard: `salmonn trajectory` reads it, so that it asks as was trained.
    const asked = { data: salmonnDatasetOptions(settings), training: { ...(compat && { compat }) } }
    await writeJson(join(outputDir, 'model', 'data.json'), asked)
    console.log(JSON.stringify(results, null, 2))
    return 0
  },
})
