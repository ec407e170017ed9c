import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import * as salmonn from '../../../lib/systems/salmonn/index.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-config-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const file = (text: string, name = 'config.yaml') => {
  writeFileSync(join(folder, name), text)
  return join(folder, name)
}

const PUBLISHED = `
model:
  llama_path: "/vicuna"
  whisper_path: "/whisper"
  freeze_whisper: True
  beats_path: "/beats.pt"
  freeze_beats: True
  use_speech_Qformer: True
  freeze_speech_QFormer: False
  window_level_Qformer: True
  num_speech_query_token: 1
  second_per_window: 0.333333
  second_stride: 0.333333
  speech_llama_proj_model: ""
  freeze_speech_llama_proj: False
  lora: True
  lora_rank: 8
  lora_alpha: 32
  lora_dropout: 0.1
  multi_prompt: True
  prompt_template: "USER: {}\\nASSISTANT:"
  prompt_path: "prompts/train_prompt.json"
  test_prompt_path: "prompts/test_prompt.json"
  max_txt_len: 300
  end_sym: "</s>"
  ckpt: ""
datasets:
  train_ann_path: "train.json"
  valid_ann_path: "train.json"
  test_ann_path: "train.json"
  whisper_path: "/whisper"
run:
  seed: 42
  output_dir: "out"
  evaluate: False
  log_freq: 5
  epoch_based: False
  iters_per_epoch: 3000
  accum_grad_iters: 2
  batch_size_train: 8
  batch_size_eval: 8
  num_workers: 8
  device: "cuda"
  use_distributed: True
  amp: True
  world_size: 1
  dist_url: "env://"
  optims:
    max_epoch: 30
    warmup_steps: 3000
    warmup_start_lr: 1e-6
    init_lr: 3e-5
    min_lr: 1e-5
    weight_decay: 0.05
    beta2: 0.98
`

describe('readSalmonnConfiguration', () => {
  it('reads the published keys', async () => {
    const read = await salmonn.readSalmonnConfiguration(file(PUBLISHED))
    expect(read).toMatchObject({
      model: {
        llm: '/vicuna',
        whisper: '/whisper',
        beats: '/beats.pt',
        queries: 1,
        secondsPerWindow: 0.333333,
        secondsPerStride: 0.333333,
        lora: true,
        loraRank: 8,
        loraAlpha: 32,
        loraDropout: 0.1,
        maxTextLength: 300,
        endSymbol: '</s>',
      },
      data: {
        train: ['train.json'],
        valid: ['train.json'],
        test: ['train.json'],
        prompts: 'prompts/train_prompt.json',
        testPrompts: 'prompts/test_prompt.json',
        template: salmonn.SALMONN_TEMPLATE,
      },
      recipe: {
        learningRate: 3e-5,
        warmupStartLearningRate: 1e-6,
        minLearningRate: 1e-5,
        warmupSteps: 3000,
        epochs: 30,
        iterationsPerEpoch: 3000,
        weightDecay: 0.05,
        betas: [0.9, 0.98],
        batchSize: 8,
        evalBatchSize: 8,
        accumulation: 2,
        amp: true,
        seed: 42,
        logSteps: 5,
      },
      stage: ['qformer', 'projection', 'lora'],
      outputDir: 'out',
      device: 'cuda',
      evaluateOnly: false,
    })
    expect(read.model).not.toHaveProperty('adapter')
    expect(read.ignored.map(({ key }) => key)).toEqual([
      'model.multi_prompt',
      'datasets.whisper_path',
      'run.num_workers',
      'run.use_distributed',
      'run.world_size',
      'run.dist_url',
    ])
  })

  it("reads the fine-tune's misplaced and unread keys, and the decode configuration", async () => {
    const text = `
model: { ckpt: c.pth, lora: False, freeze_speech_QFormer: True }
datasets: { train_ann_path: [a.json, b.json, a.json], batch_size_train: 4, num_workers: 8 }
run: { init_lr: 1e-5, max_epoch: 2, max_grad_norm: 0.5, epoch_based: True, iters_per_epoch: 7 }
training: { loss_weights: { text: 1.0 } }
evaluation: { rouge: True }
generate: { max_new_tokens: 100, num_beams: 2, do_sample: False, top_p: 0.5, length_penalty: 1.2 }
`
    const read = await salmonn.readSalmonnConfiguration(file(text))
    expect(read).toMatchObject({
      model: { adapter: 'c.pth', lora: false },
      data: { train: ['a.json', 'b.json', 'a.json'] },
      recipe: { batchSize: 4, learningRate: 1e-5, epochs: 2, maxGradNorm: 0.5, iterationsPerEpoch: null },
      stage: ['projection'],
      generation: { maxNewTokens: 100, numBeams: 2, doSample: false, topP: 0.5, lengthPenalty: 1.2 },
    })
    expect(read.ignored).toContainEqual({ key: 'training', reason: 'the original does not use it' })
    expect(read.ignored).toContainEqual({ key: 'evaluation', reason: 'the original does not use it' })
  })

  it('takes options over the file', async () => {
    const read = await salmonn.readSalmonnConfiguration(file(PUBLISHED), [
      'run.optims.init_lr=1e-5',
      'run.amp=false',
      'datasets.train_ann_path=["x.json","y.json"]',
      'generate.num_beams=1',
    ])
    expect(read.recipe).toMatchObject({ learningRate: 1e-5, amp: false })
    expect(read.data.train).toEqual(['x.json', 'y.json'])
    expect(read.generation).toEqual({ numBeams: 1 })
    await expect(salmonn.readSalmonnConfiguration(file(PUBLISHED), ['x'])).rejects.toThrow(/key=value/)
    await expect(salmonn.readSalmonnConfiguration(file(PUBLISHED), ['run.seed.x=1'])).rejects.toThrow(
      /expected seed to be a section for run\.seed\.x=1/,
    )
    await expect(salmonn.readSalmonnConfiguration(file(PUBLISHED), ['__proto__.x=1'])).rejects.toThrow(
      /expected a known key, got __proto__/,
    )
  })

  it.each([
    ['run: { int_lr: 1 }', /got run\.int_lr\. Did you mean run\.init_lr\?/],
    [
      'run: { optims: { warmup_step: 1 } }',
      /expected a known key, got run\.optims\.warmup_step\. Did you mean run\.optims\.warmup_steps\?/,
    ],
    ['runs: {}\nrun: {}', /got runs\. Did you mean run\?/],
    ['run: { seed: x }', /expected run\.seed to be an integer of at least 0, got "x"/],
    [
      'run: { seed: 99999999999999999999 }',
      /expected run\.seed to be an integer of at least 0, got 99999999999999999999/,
    ],
    ['run: { __proto__: 1 }', /expected a known key, got run\.__proto__/],
    ['data: { train: [1] }', /expected data\.train to be a list of strings, got an array of length 1/],
    ['run: { batch_size_train: 0 }', /run\.batch_size_train to be an integer of at least 1/],
    ['model: { use_speech_Qformer: False }', /to be true, got false/],
    ['run: 3', /expected run to be keys and values/],
    ['data: { trian: a }', /got data\.trian\. Did you mean data\.train\?/],
    ['training: { stage: 3 }', /stage to be 1 or 2, got 3/],
    ['training: { learningRat: 3 }', /Did you mean training\.learningRate\?/],
    ['data: { longAudio: chop }', /'error', 'cut', 'windows'/],
  ])('refuses %s', async (text, message) => {
    const read = salmonn.readSalmonnConfiguration(file(text))
    await expect(read).rejects.toThrow(message)
    await expect(read).rejects.toThrow(vt.ConfigError)
  })

  it('reads the example of our own form', async () => {
    const example = fileURLToPath(new URL('../../../examples/configs/salmonn-finetune.yaml', import.meta.url))
    const read = await salmonn.readSalmonnConfiguration(example)
    expect(read).toMatchObject({
      model: { llm: 'models/vicuna-13b-v1.1', loraAlpha: 32 },
      data: { train: ['data/task1_3.json'], clips: 'joined', longAudio: 'windows', emotionSuffix: 'zh' },
      recipe: { learningRate: 3e-5, iterationsPerEpoch: null, epochs: 3 },
      stage: 2,
      outputDir: 'runs/salmonn',
      args: { earlyStoppingPatience: 5 },
      generation: { maxNewTokens: 200, numBeams: 4 },
      ignored: [],
    })
  })
})

describe("SALMONN's command line", () => {
  it("reads the original's and ours", async () => {
    const argv = ['--cfg-path', file(PUBLISHED), '--options', 'run.seed=7', 'model.lora=False', '--device', 'cpu']
    const given = salmonn.parseSalmonnArguments([...argv, '--stage=1', '--compat', 'published'])
    expect(given).toMatchObject({ options: ['run.seed=7', 'model.lora=False'], device: 'cpu', stage: 1 })
    const read = await salmonn.configurationOfArguments(given)
    expect(read).toMatchObject({ recipe: { seed: 7 }, device: 'cpu', stage: 1, compat: 'published' })
    await expect(salmonn.configurationOfArguments({ options: [] })).rejects.toThrow(/--config FILE/)
  })

  it.each([
    ['--cfg_pth x', /known option, got --cfg_pth. Did you mean --cfg-path/],
    ['--device', /--device: expected a value/],
    ['--stage 3', /1 or 2/],
    ['--config a --cfg-path b', /expected the option once/],
    ['train', /begin with --/],
  ])('refuses %s', (line, message) => {
    expect(() => salmonn.parseSalmonnArguments(line.split(' '))).toThrow(message)
  })
})
