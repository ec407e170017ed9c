import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { noGrad, type Tensor } from '../../../lib/index.js'
import { readOptions } from '../../../lib/kit/options.js'
import { sft } from '../../../lib/systems/emoverse/commands/sft.js'
import { stagesOfArguments } from '../../../lib/systems/emoverse/configuration/apply.js'
import {
  EMOVERSE_RECIPE,
  type EmoVerse,
  emoverseRecipe,
  inferEmoVerse,
  readSwiftDataset,
  writeSwiftDataset,
} from '../../../lib/systems/emoverse/index.js'
import { withVisionCache } from '../../../lib/systems/emoverse/network/vision-cache.js'
import { stageAdapter } from '../../../lib/systems/emoverse/training/adapter.js'
import { asked, ppm, seeingEmoVerse } from './tiny.js'

const home = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-published-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

describe('what the scripts leave out', () => {
  it('is what ms-swift 2.6.1 takes then', async () => {
    expect(EMOVERSE_RECIPE).toEqual({
      ...{ optim: 'adamw_torch', learningRate: 1e-4, schedule: 'cosine', warmupRatio: 0.05, epochs: 2, betas: [0.9, 0.95], eps: 1e-8 },
      ...{ weightDecay: 0.1, maxGradNorm: 1, batchSize: 1, evalBatchSize: 1, accumulation: 8, maxLength: 2048 },
      ...{ maxExpandedLength: null, gradientCheckpointing: true, validationShare: 0.01, seed: 42 },
      ...{ logSteps: 10, evalSteps: 1000, saveSteps: 500, saveTotalLimit: 3 },
      // Its best checkpoint is recorded there, not loaded.
      loadBest: false,
    })
    using model = await seeingEmoVerse()
    const { targetModules, ...lora } = stageAdapter(model, {}, undefined)
    expect(lora).toEqual({ r: 8, loraAlpha: 32, loraDropout: 0.05, taskType: 'CAUSAL_LM' })
    const pattern = new RegExp(`^(?:${targetModules as string})$`)
    const names = model.model.namedParameters().map(([name]) => name.replace(/\.(weight|bias)$/, ''))
    const hit = [...new Set(names.filter((name) => pattern.test(name)))]
    expect(hit.some((name) => name.startsWith('vision_model') || /lm_head|embed/.test(name))).toBe(false)
    for (const part of ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj', 'mlp1.1', 'mlp1.3']) {
      expect(hit.some((name) => name.endsWith(part)), part).toBe(true)
    }
  }) // biome-ignore format: long lines

  const read = (line: string) => readOptions('emoverse sft', sft.options, line.split(' '), sft.originalOptions)
  const recipeOf = async (line: string) =>
    emoverseRecipe((await stagesOfArguments(read(line).options as never))[0]?.recipe)

  it('has the names of ms-swift 3.x too, and each says the same', async () => {
    const older = '--model_id_or_path m --dataset a.json --val_dataset b.json --sft_type lora --batch_size 2 --eval_batch_size 3 --dataset_test_ratio 0.1 --lora_dropout_p 0.2 --lora_target_modules q_proj'
    const newer = '--model m --dataset a.json --val_dataset b.json --train_type lora --per_device_train_batch_size 2 --per_device_eval_batch_size 3 --split_dataset_ratio 0.1 --lora_dropout 0.2 --target_modules q_proj'
    expect(await stagesOfArguments(read(newer).options as never)).toEqual(await stagesOfArguments(read(older).options as never))
    expect(await recipeOf(newer)).toEqual({ ...EMOVERSE_RECIPE, batchSize: 2, evalBatchSize: 3, validationShare: 0.1 })
    expect(await recipeOf('--model m --dataset a.json --max_length 1024 --max_expanded_length 4096')).toEqual({ ...EMOVERSE_RECIPE, maxLength: 1024, maxExpandedLength: 4096 })
    expect(read('--model_type internvl2-2b --dataset a.json').options).toMatchObject({ modelType: 'internvl2-2b' })
    expect(() => read('--dataset a.json --resume_from x')).toThrow(/known option, got --resume_from/)
  }) // biome-ignore format: long lines

  it('is said by files of stages as well, from any of them on', async () => {
    const files = ['first', 'second'].map((name) => join(home, `${name}.yaml`))
    for (const [i, file] of files.entries()) writeFileSync(file, `name: s${i}\ndata: d${i}.json\nrecipe:\n  maxExpandedLength: ${1000 + i}\n`)
    const { options } = read(`--model m --stages ${files.join(' ')} --start-at 2`)
    expect(options).toMatchObject({ startAt: 2 })
    expect(await stagesOfArguments(options as never)).toEqual([0, 1].map((i) => ({ name: `s${i}`, data: `d${i}.json`, recipe: { maxExpandedLength: 1000 + i } })))
  }) // biome-ignore format: long lines
})

it('a record gives way in 20 attempts, of 30 that cannot be used', async () => {
  const file = join(home, 'bad.json')
  writeFileSync(file, JSON.stringify(Array.from({ length: 30 }, (_, i) => ({ query: `${i}`, response: null }))))
  const data = await readSwiftDataset(file, { compat: 'published' })
  expect(data.length).toBe(30)
  await expect(data.get(3)).rejects.toThrow(/^data: expected a usable record within 20 draws/)
  expect(data.dropped).toEqual({ response: 20 })
})

it('what the vision part made is kept by the bytes, how they are cut, and the weights', async () => {
  const picture = join(home, 'face.ppm')
  const draw = (shade: number) =>
    writeFileSync(
      picture,
      ppm(56, 28, (x, y) => [x, y, shade]),
    )
  draw(1)
  const folder = join(home, 'features')
  const made = (model: EmoVerse) =>
    withVisionCache(model, folder, async () => {
      const [found] = (await model.vision?.read({ query: '<image>', images: [picture] })) ?? []
      const isKept = found?.features !== null
      if (!isKept) (await model.vision?.features([found as never]))?.dispose()
      return isKept
    })
  using model = await seeingEmoVerse({ seed: 1 })
  const twice = async (one: EmoVerse) => [await made(one), await made(one)]
  expect(await twice(model)).toEqual([false, true])
  draw(200)
  expect(await twice(model)).toEqual([false, true])
  using fewer = await seeingEmoVerse({ seed: 1, vision: { maxTiles: 1 } })
  expect(await twice(fewer)).toEqual([false, true])
  using other = await seeingEmoVerse({ seed: 2 })
  expect(await twice(other)).toEqual([false, true])
  noGrad(() => (model.model.stateDict()['vision_model.encoder.layers.0.ls1'] as Tensor).mul_(2))
  expect(await twice(model)).toEqual([false, true])
})

it('results have the question with the markers that were put in front', async () => {
  const data = join(home, 'asked.json')
  writeFileSync(join(home, 'one.ppm'), ppm(28, 28, () => [1, 2, 3]))
  const [record] = asked(1)
  const { query } = record as { query: string }
  await writeSwiftDataset(data, [{ query, response: 'Joy.', images: ['one.ppm'] }, { query, response: 'Joy.', images: ['one.ppm'], history: [['a', 'b']] }])
  const output = join(home, 'asked.jsonl')
  using model = await seeingEmoVerse()
  await inferEmoVerse(model, { data, output, mediaRoot: home, maxNewTokens: 2 })
  const lines = readFileSync(output, 'utf8').trim().split('\n').map((line) => JSON.parse(line))
  expect(lines.map((line) => [line.query, line.history])).toEqual([[`<image>${query}`, []], [query, [['<image>a', 'b']]]])
}) // biome-ignore format: long lines
