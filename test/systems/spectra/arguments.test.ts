import { describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import * as spectra from '../../../lib/systems/spectra/index.js'

const parse = (line: string) => spectra.parseSpectraArguments(line.split(' ').filter((word) => word !== ''))

describe("SPECTRA's command line", () => {
  it("reads the original's fine-tuning script", () => {
    const { options, ignored } = parse(
      '--apex_level=1 --batch_size=24 --epochs=5 --grad_acc=1 --show_inner_progress --lr=2e-5 --model_path=/x --task=iemocap --multi_audio --use_turn_ids',
    )
    expect(options).toEqual({
      fp16: true,
      batchSize: 24,
      epochs: 5,
      accumulation: 1,
      progress: true,
      learningRate: 2e-5,
      model: '/x',
      task: 'iemocap',
      historyAudio: true,
      turnIds: true,
    })
    expect(ignored).toEqual([])
  })

  it("reads the original's state tracking command", () => {
    const { options, ignored } = parse(
      '--model spectra --model_type roberta --data_dir ./data --model_dir /m --output_dir ./result --dataset_config ./c.json --per_gpu_train_batch_size 2 --accum 4',
    )
    expect(options).toEqual({
      data: './data',
      model: '/m',
      output: './result',
      datasetConfig: './c.json',
      batchSize: 2,
      accumulation: 4,
    })
    expect(ignored.map(({ flag }) => flag)).toEqual(['--model spectra', '--model_type'])
  })

  it('knows every option of main.py', () => {
    const words =
      '--mode finetune --audio_model_class a --audio_length 2.5 --data_path d --ds_config default --ds_stage 2 --grad_ckpt --grad_norm 0.5 --local_rank 0 --loss_scale 128 --seed 7 --text_length 64 --text_model_class t --warmup 0.1 --weight_decay 0 --dont_use_ckpts --model_name v --model_save_path s --num_turns 4 --num_fused_layers 2 --save_interval 5 --transcripts p --patience 3 --apex_level 0'
    expect(parse(words).options).toEqual({
      mode: 'finetune',
      audioModel: 'a',
      maxAudioLength: 40_000,
      data: 'd',
      gradientCheckpointing: true,
      maxGradNorm: 0.5,
      lossScale: 128,
      seed: 7,
      maxTextLength: 64,
      textModel: 't',
      warmup: 0.1,
      weightDecay: 0,
      output: 's',
      numTurns: 4,
      numFusedLayers: 2,
      saveEpochs: 5,
      transcripts: 'p',
      patience: 3,
    })
    expect(parse('--audio_path a --text_path t').options).toEqual({ audioModel: 'a', textModel: 't' })
  })

  it('reads our own, and says no', () => {
    expect(
      parse('--task mood --kind classification --labels a,b --data f.jsonl --test-speakers 03,08 --no-history-audio')
        .options,
    ).toEqual({
      task: 'mood',
      kind: 'classification',
      labels: ['a', 'b'],
      data: 'f.jsonl',
      testSpeakers: ['03', '08'],
      historyAudio: false,
    })
  })

  it.each([
    ['--bach_size 3', /known option, got --bach_size. Did you mean --batch-size/],
    ['--epochs', /--epochs: expected a value/],
    ['--epochs --lr=1', /--epochs: expected a value/],
    ['--batch_size 2.5', /expected an integer/],
    ['--lr x', /number of at least 0/],
    ['--lr 1 --learning-rate 2', /expected the option once/],
    ['--kind other', /regression or classification/],
    ['--no-epochs', /known option, got --no-epochs/],
    ['--fp16=maybe', /true or false/],
    ['train', /begin with --/],
  ])('refuses %s', (line, message) => {
    expect(() => parse(line)).toThrow(message)
    expect(() => parse(line)).toThrow(vt.ConfigError)
  })

  it('turns into what the functions take', () => {
    const { options } = parse(
      '--task mosi --data d --model m --lr 1e-5 --apex_level 1 --compat published --test-speakers a',
    )
    const [path, data] = spectra.spectraDataOfArguments(options)
    expect(path).toBe('d')
    expect(data).toMatchObject({ tokenizer: 'm', speakers: { test: ['a'] }, task: { name: 'mosi' } })
    expect(spectra.spectraFinetuningOfArguments(options)).toEqual({
      outputDir: 'spectra-mosi',
      preset: { learningRate: 1e-5 },
      compat: 'published',
      args: {},
    })
    expect(spectra.spectraFinetuningOfArguments({ ...options, device: 'cuda:0' }).args).toEqual({ fp16: true })
    expect(() => spectra.spectraTaskOfArguments({ task: 'mossi' })).toThrow(/did you mean mosi/)
    expect(() => spectra.spectraDataOfArguments({ task: 'mosi' })).toThrow(/--data/)
  })

  it('names what has no effect on fine-tuning, and refuses other modes', () => {
    const unused = (line: string) => spectra.unusedSpectraArguments(parse(line).options).map(({ flag }) => flag)
    expect(unused('--mode finetune --task mosi --lr 1')).toEqual([])
    expect(unused('--num_turns 4 --save_interval 5 --loss_scale 8 --transcripts p --apex_level 1')).toEqual([
      '--transcripts',
      '--num-turns',
      '--save-epochs',
      '--loss-scale',
      '--fp16',
    ])
    expect(unused('--fp16 --device cuda:0')).toEqual([])
    expect(() => unused('--mode pretrain')).toThrow(/spectra pretrain/)
    expect(() => unused('--mode dst')).toThrow(/spectra track/)
  })

  it('makes the network that they name', async () => {
    const task = spectra.spectraTask({ name: 'mood', kind: 'classification', labels: ['a', 'b', 'c'] })
    const tokenizer = { vocabSize: 77 } as vt.Tokenizer
    using made = await spectra.spectraOfArguments(parse('--config tiny --num-fused-layers 2').options, {
      task,
      tokenizer,
    })
    expect(made.config).toMatchObject({
      numLabels: 3,
      numFusedLayers: 2,
      textConfig: { vocabSize: 77, hiddenSize: 64 },
    })
    expect((await spectra.readSpectraConfig('tiny')).textConfig.vocabSize).toBe(50265)
    await expect(spectra.readSpectraConfig('tiney')).rejects.toThrow(
      /Spectra: config: expected a published size of base, tiny, got "tiney"\. Correct it/,
    )
    const both = parse('--model m --text-model t --audio-model a').options
    await expect(spectra.spectraOfArguments(both, { task })).rejects.toThrow(/--model, or --text-model/)
    await expect(spectra.spectraOfArguments(parse('--text-model t').options, { task })).rejects.toThrow(vt.ConfigError)
  })
})
