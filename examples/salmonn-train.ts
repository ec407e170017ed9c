/**
 * Trains SALMONN on annotated clips or on dialogs of several clips, by a configuration of ours or the published one:
 *
 * `npx tsx examples/salmonn-train.ts --config examples/configs/salmonn-finetune.yaml --options data.train=dialogs.json`
 * `npx tsx examples/salmonn-train.ts --cfg-path configs/config.yaml --stage 1 --output runs/stage-1`
 * `npx tsx examples/salmonn-train.ts --cfg-path configs/config.yaml --stage 2 --model runs/stage-1/model`
 *
 * The best weights by token accuracy end up in OUTPUT/model, which holds what trains; the parts stay where they are. The
 * same command goes on where a killed run was.
 *
 * `npx tsx examples/salmonn-train.ts --cfg-path configs/config.yaml --model runs/salmonn/model --options run.evaluate=true`
 *
 * measures and does not train (`training.evaluateOnly` in a configuration of ours): on the test data, or without any on what a
 * training keeps to validate with. The answers go into OUTPUT/answers.jsonl.
 */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import * as vt from 'voxtorch'

const given = vt.parseSalmonnArguments(process.argv.slice(2))
const configuration = await vt.configurationOfArguments(given)
const { data: settings, recipe, stage = 2, args, generation, outputDir = 'runs/salmonn', compat } = configuration
const { evaluateOnly = false } = configuration
for (const { key, reason } of configuration.ignored) console.log(`${key} has no effect: ${reason}`)

const seed = recipe.seed ?? 42
const data = await vt.openSalmonnData(settings, { seed, evaluateOnly, ...(compat && { compat }) })
for (const note of data.notes) console.log(note)

vt.manualSeed(seed)
const dtype = (process.env.SALMONN_DTYPE ?? 'bfloat16') as vt.DType
using model = await vt.salmonnOfConfiguration(configuration, { dtype, model: given.model })

if (evaluateOnly) {
  const { answers, ...measured } = await vt.measureSalmonn(model, data.test.length > 0 ? data.test : data.valid, {
    generation,
    batchSize: recipe.evalBatchSize ?? 8,
  })
  await mkdir(outputDir, { recursive: true })
  await vt.writeJsonl(join(outputDir, 'answers.jsonl'), answers)
  console.log(JSON.stringify(measured, null, 2))
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
  // How dialogs were heard: emotional-trajectory.ts reads it, so that it asks as was trained.
  const heard = { data: vt.salmonnDatasetOptions(settings), training: { ...(compat && { compat }) } }
  await vt.writeJson(join(outputDir, 'model', 'data.json'), heard)
  console.log(JSON.stringify(results, null, 2))
}
