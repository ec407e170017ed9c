import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { DecoderLM } from '../../../lib/index.js'
import { runCommand } from '../../../lib/kit/command.js'
import { finetune } from '../../../lib/systems/usdm/commands/finetune.js'
import { prepare } from '../../../lib/systems/usdm/commands/prepare.js'
import { pretrain } from '../../../lib/systems/usdm/commands/pretrain.js'
import { type UsdmTokenizer, writeUsdmExamples } from '../../../lib/systems/usdm/index.js'
import { byteTokenizer, tinyDialogs, tinyNetwork } from './tiny.js'

const home = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-commands-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))
const at = (name: string) => join(home, name)
let tokenizer: UsdmTokenizer

beforeAll(async () => {
  tokenizer = await byteTokenizer(at('cache'), 6)
  tokenizer.saveTo(at('cache'))
  using model = tinyNetwork(tokenizer, { modelType: 'mistral', slidingWindow: 8 })
  await model.save(at('base'))
  await writeUsdmExamples(at('train.txt'), tinyDialogs(tokenizer, 6))
  await writeUsdmExamples(at('test.txt'), tinyDialogs(tokenizer, 2, 8))
})

/** What a command prints. */
async function said(work: () => Promise<number>): Promise<{ out: string; err: string }> {
  const log = vi.spyOn(console, 'log').mockImplementation(() => {})
  const error = vi.spyOn(console, 'error').mockImplementation(() => {})
  const write = vi.spyOn(process.stderr, 'write').mockImplementation(() => true)
  try {
    expect(await work()).toBe(0)
    return { out: log.mock.calls.flat().join('\n'), err: error.mock.calls.flat().join('\n') }
  } finally {
    for (const spy of [log, error, write]) spy.mockRestore()
  }
}

it("finetune takes the original's command line, and says what has no effect", async () => {
  const words =
    `--output_dir ${at('sft')} --data_path_train ${at('train.txt')} --data_path_test ${at('test.txt')} --data_path_cache x
    --model_name_or_path ${at('base')} --model_cache_dir ${at('cache')} --train_batch_size 3 --eval_batch_size 1
    --gradient_accumulation_steps 1 --learning_rate 1e-3 --lr_scheduler_type cosine --warmup_ratio 0.03 --dropout 0.2
    --num_unit_tokens 10000 --logging_steps 1 --max_input_length 300 --num_train_epochs 2 --lora --lora_r 4 --lora_alpha 8
    --lora_dropout 0.1 --deepspeed_config ds.json --seed 41 --resume --evaluation_strategy steps --eval_steps 2 --save_strategy steps
    --save_steps 2 --save_total_limit 2 --load_best_model_at_end`.split(/\s+/)
  const { out, err } = await said(() => runCommand('voxtorch usdm finetune', finetune, words))
  for (const flag of ['data_path_cache', 'dropout', 'num_unit_tokens', 'deepspeed_config']) {
    expect(err).toContain(`--${flag} has no effect: `)
  }
  expect(err.split('\n')).toHaveLength(4)
  expect(JSON.parse(out)).toMatchObject({
    globalStep: 4,
    adapters: true,
    samples: { train: 6, valid: 2, test: 0 },
    newRows: 0,
  })
  const args = JSON.parse(readFileSync(at('sft/checkpoint-4/training_args.json'), 'utf8'))
  expect(args).toMatchObject({
    ...{ perDeviceTrainBatchSize: 3, perDeviceEvalBatchSize: 1, gradientAccumulationSteps: 1, learningRate: 1e-3 },
    ...{
      warmupRatio: 0.03,
      loggingSteps: 1,
      numTrainEpochs: 2,
      seed: 41,
      evalSteps: 2,
      saveSteps: 2,
      saveTotalLimit: 2,
    },
    ...{ loadBestModelAtEnd: true, evalStrategy: 'steps', saveStrategy: 'steps' },
  })
  expect(JSON.parse(readFileSync(at('sft/model/adapter_config.json'), 'utf8'))).toMatchObject({
    ...{ r: 4, lora_alpha: 8, lora_dropout: 0.1, target_modules: ['q_proj', 'v_proj'] },
    modules_to_save: ['embed_tokens', 'lm_head'],
  })
  expect(JSON.parse(readFileSync(at('sft/model/tokenizer_config.json'), 'utf8')).model_max_length).toBe(300)
})

it('prepare packs, and pretrain trains on what it wrote', async () => {
  const grids = at('clips-textgrid')
  for (const folder of [grids, at('clips')]) mkdirSync(folder)
  const interval = (from: number, to: number, text: string, i: number) =>
    `        intervals [${i + 1}]:\n            xmin = ${from}\n            xmax = ${to}\n            text = "${text}"\n`
  const words = ['one', 'two', 'three', 'four']
  for (const clip of ['a', 'b', 'c']) {
    const tier = words.map((word, i) => interval(i / 2, (i + 1) / 2, word, i)).join('')
    writeFileSync(
      join(grids, `${clip}.TextGrid`),
      `File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 2\ntiers? <exists>\nsize = 1\nitem []:\n    item [1]:\n        class = "IntervalTier"\n        name = "words"\n        xmin = 0\n        xmax = 2\n        intervals: size = 4\n${tier}`,
    )
    writeFileSync(at(`clips/${clip}_unit.txt`), Array.from({ length: 100 }, (_, i) => i % 6).join(' '))
  }
  const made =
    `--data_path ${grids} --output_path ${at('ustm')} --pretrained_model_name_or_path ${at('cache')} --model_cache_dir ${home}
    --epoch 2 --max_length 300 --seed 43`.split(/\s+/)
  const prepared = await said(() => runCommand('voxtorch usdm prepare', prepare, made))
  expect(prepared.out).toMatch(/part0\.txt: \d rows, 3 sequences per epoch/)
  const packs = (line: string) => said(() => runCommand('voxtorch usdm prepare', prepare, line.split(' ')))
  const rowsOf = (name: string) => readFileSync(at(`${name}/part0.txt`), 'utf8')
  // The original's stage 3, of the folder that its stage 2 wrote: the same rows as both stages at once.
  const both = `--data_path ${at('ustm')} --output_path ${at('both')} --epoch 2 --max_length 300 --seed 43`
  expect((await packs(both)).out).toMatch(/part0\.txt: \d rows of 2 files$/)
  expect(rowsOf('both')).toBe(rowsOf('ustm'))
  expect((await packs(both.replace('--epoch 2 ', ''))).out).toMatch(/of 2 files$/)
  expect(rowsOf('both')).toBe(rowsOf('ustm'))
  expect((await packs(`--data_path ${at('ustm')} --output_path ${at('one')} --epoch 1 --max_length 300`)).out).toMatch(
    /of 1 file$/,
  )
  const alone = `--data_path ${at('ustm/data_epoch0.txt')} --output_path ${at('packed')} --max_length 300 --seed 43`
  expect((await packs(alone)).out).toMatch(/part0\.txt: \d rows of 1 file$/)
  expect(rowsOf('packed')).toBe(rowsOf('one'))
  const refused = (line: string, message: RegExp) => expect(packs(line)).rejects.toThrow(message)
  await refused(
    `${both} --segment-units 100`,
    /--segment-units: expected with a folder of TextGrids, got sequences in .*ustm/,
  )
  await refused(both.replace('--epoch 2', '--epoch 3'), /--epochs: expected at most 2, .*ustm, got 3/)
  await refused(`${alone} --epochs 1`, /--epochs: expected no --epochs with files, got 1/)
  // Its stage 4 makes a data set of rows.
  const stage4 = `--train_dataset_path ${at('one/part0.txt')} ${at('both/part0.txt')} --validation_dataset_path a b --output_path x --cache_path y --seed 43`
  const fourth = await packs(stage4)
  expect(fourth.out).toMatch(/^Nothing to do/)
  expect(fourth.err.split('\n').map((line) => line.split(' has no effect: ')[0])).toEqual([
    ...['--train_dataset_path', '--validation_dataset_path', '--cache_path'],
  ])
  await expect(runCommand('voxtorch usdm prepare', prepare, [])).rejects.toThrow(
    /--data: expected the folder of TextGrids/,
  )

  for (const [name, flags, inclusive] of [
    ['published', '--compat published', true],
    ['strict', '', false],
    ['chosen', '--window-inclusive', true],
  ] as const) {
    const line =
      `--data ${at('packed')} --output ${at(`pt-${name}`)} --model ${at('base')} --tokenizer ${at('cache')} --dtype float32
      --max-steps 1 ${flags}`
        .trim()
        .split(/\s+/)
    await said(() => runCommand('voxtorch usdm pretrain', pretrain, line))
    using model = await DecoderLM.fromPretrained(at(`pt-${name}/model`))
    expect([model.config.slidingWindow, model.config.windowInclusive], name).toEqual([8, inclusive])
    const sft = `--data ${at('train.txt')} --output ${at(`sft-${name}`)} --model ${at('base')} --tokenizer ${at('cache')} --dtype float32
      --max-steps 1 ${flags}`.trim().split(/\s+/) // biome-ignore format: one line
    await said(() => runCommand('voxtorch usdm finetune', finetune, sft))
    using tuned = await DecoderLM.fromPretrained(at(`sft-${name}/model`))
    expect(tuned.config.windowInclusive, name).toBe(inclusive)
  }
  const both2 = `--data ${at('packed')} --output ${at('x')} --model ${at('base')} --tokenizer ${at('cache')} --compat published --no-window-inclusive`
  const neither = runCommand('voxtorch usdm pretrain', pretrain, both2.split(' '))
  await expect(neither).rejects.toThrow(/compat 'published': expected a model with a sliding window of 8 \+ 1 tokens/)

  const words2 =
    `--data_path ${at('ustm')} --valid ${at('packed')} --output_dir ${at('pt')} --model_name_or_path ${at('base')}
    --model_cache_dir ${at('cache')} --train_batch_size 1 --data_path_cache x --window-inclusive --dtype float32
    --compat published`.split(/\s+/)
  const { out, err } = await said(() => runCommand('voxtorch usdm pretrain', pretrain, words2))
  expect(err).toContain('--data_path_cache has no effect')
  expect(JSON.parse(out).globalStep).toBeGreaterThan(0)
  using model = await DecoderLM.fromPretrained(at('pt/model'))
  expect([model.config.slidingWindow, model.config.windowInclusive]).toEqual([8, true])
  const args = JSON.parse(readFileSync(at(`pt/checkpoint-${JSON.parse(out).globalStep}/training_args.json`), 'utf8'))
  expect(args.gradientAccumulationSteps).toBe(2)
})
