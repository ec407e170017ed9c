/**
 * Trains SALMONN on annotated clips or on dialogs of several clips, by a configuration of ours or the published one:
 *
 * `npx tsx examples/salmonn-train.ts --config examples/configs/salmonn-finetune.yaml --options data.train=dialogs.json`
 * `npx tsx examples/salmonn-train.ts --cfg-path configs/config.yaml --stage 1 --output runs/stage-1`
 * `npx tsx examples/salmonn-train.ts --cfg-path configs/config.yaml --stage 2 --model runs/stage-1/model`
 *
 * The best weights by token accuracy end up in OUTPUT/model, which holds what trains; the parts stay where they are. The
 * same command goes on where a killed run was.
 */
import { join } from 'node:path'
import * as vt from 'voxtorch'

const given = vt.parseSalmonnArguments(process.argv.slice(2))
const configuration = await vt.configurationOfArguments(given)
const { data: settings, recipe, stage = 2, args, generation, outputDir = 'runs/salmonn', compat } = configuration
for (const { key, reason } of configuration.ignored) console.log(`${key} has no effect: ${reason}`)

const seed = recipe.seed ?? 42
const data = await vt.openSalmonnData(settings, { seed, ...(compat && { compat }) })
for (const note of data.notes) console.log(note)
if (data.badItems > 0) console.log(`${data.badItems} items are left out: ${data.badItemErrors[0]?.message}`)

vt.manualSeed(seed)
const dtype = (process.env.SALMONN_DTYPE ?? 'bfloat16') as vt.DType
using model = await vt.salmonnOfConfiguration(configuration, { dtype, model: given.model })

if (configuration.evaluateOnly) {
  const { scores } = await vt.scoreSalmonn(model, data.test.length > 0 ? data.test : data.valid, { generation })
  console.log(JSON.stringify(scores, null, 2))
} else {
  const results = await vt.trainSalmonn(model, {
    train: data.train,
    valid: data.valid,
    test: data.test,
    outputDir,
    recipe,
    stage,
    args,
    score: { generation },
    ...(compat && { compat }),
  })
  await model.save(join(outputDir, 'model'))
  console.log(JSON.stringify(results, null, 2))
}
