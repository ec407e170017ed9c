import { join } from 'node:path'
import { defined } from '../../../base/check.js'
import { commandRule } from '../../../kit/command.js'
import { missingOption } from '../../../kit/options.js'
import type { Device } from '../../../tensor/index.js'

const PRECISIONS = { float32: 'float32', float16: 'fp16', bfloat16: 'bf16' } as const

export const voiceboxTrain = commandRule({
  name: 'voicebox-train',
  summary: 'Trains a Voicebox, which predicts mel spectrograms from units of speech.',
  details: `  voxtorch usdm voicebox-train --train filelists/libritts/train.txt --valid filelists/libritts/valid.txt --log-dir run
  voxtorch usdm voicebox-train -c configs/libritts/config.json -l run

The configuration is the original's, with file lists and training settings, or a network's config.json; command-line options override it.
Without a configuration the network has the published size. Writes the network to <output>/model. An interrupted run resumes.`,
  options: {
    config: { kind: 'text', help: 'configuration file', value: 'file', aliases: ['-c'] },
    train: {
      kind: 'texts',
      help: 'training file lists, written by voicebox-preprocess',
      value: 'file',
      preset: "the configuration's",
    },
    valid: {
      kind: 'texts',
      help: 'validation file lists, for choosing the best weights',
      value: 'file',
      preset: "the configuration's",
    },
    output: {
      kind: 'text',
      help: 'folder for checkpoints, logs and the network',
      value: 'dir',
      preset: 'usdm-voicebox',
      aliases: ['log_dir', '-l'],
    },
    model: { kind: 'text', help: 'network to continue training, instead of a new one', value: 'dir' },
    audioRoot: { kind: 'text', help: 'folder that paths in file lists are relative to', value: 'dir' },
    epochs: { kind: 'number', help: 'passes over the clips', preset: 10000, aliases: ['n_epochs'] },
    maxSteps: { kind: 'whole', help: 'total optimizer steps, instead of epochs' },
    batchSize: { kind: 'whole', help: 'clips per batch of each process', preset: 8 },
    accumulation: { kind: 'whole', help: 'gradient accumulation: batches per optimizer step', preset: 1 },
    learningRate: { kind: 'number', help: 'constant learning rate', value: 'rate', preset: 1e-4 },
    dtype: {
      kind: ['float32', 'float16', 'bfloat16'],
      help: 'dtype of the computation',
      preset: 'float16 on CUDA, else float32',
    },
    gradientCheckpointing: { kind: 'flag', help: 'recomputes activations in backward: less memory, more time' },
    logSteps: { kind: 'whole', help: 'steps between logs', preset: 50 },
    saveSteps: { kind: 'whole', help: 'steps between checkpoints', preset: 'an epoch' },
    saveTotalLimit: { kind: 'whole', help: 'maximum number of kept checkpoints', preset: 2 },
    device: { kind: 'text', help: 'such as cpu or cuda:0', preset: 'cpu' },
    seed: { kind: 'whole', help: 'random seed', preset: 37 },
  },
  foreign: Object.fromEntries(
    Object.entries({
      'model_cache_dir -mc': 'the original keeps a vocoder there for audio samples during training; none are made here',
      'data_cache_dir -dc': 'clips are read when needed, and the data is not copied',
    }).flatMap(([names, reason]) => names.split(' ').map((name) => [name, { takesValue: true, reason }])),
  ),
  async run(args) {
    const {
      config,
      audioRoot,
      maxSteps,
      gradientCheckpointing,
      device,
      dtype,
      output = 'usdm-voicebox',
      ...recipe
    } = args
    const { train, valid, model: from, ...changes } = recipe
    const { readVoiceboxConfig } = await import('../published/voicebox-config.js')
    const settings = config === undefined ? { model: {}, recipe: {} } : await readVoiceboxConfig(config)
    const lists = train ?? settings.train
    if (lists === undefined)
      throw missingOption('train', 'file lists', 'FILE, or --config with a configuration of the original')
    const { UnitVoicebox } = await import('../../../models/unit-voicebox/unit-voicebox.js')
    const { trainUnitVoicebox } = await import('../voicebox/train.js')
    const { VOICEBOX_RECIPE } = await import('../voicebox/recipe.js')
    const seed = changes.seed ?? settings.recipe.seed ?? VOICEBOX_RECIPE.seed
    const place = defined({ device: device as Device | undefined })
    if (from !== undefined && Object.keys(settings.model).length > 0) {
      console.error(`--config: the network's sizes are ignored, those of ${from} apply`)
    }
    using model =
      from === undefined
        ? UnitVoicebox.fromConfig(settings.model, { seed, ...place })
        : await UnitVoicebox.fromPretrained(from, place)
    const {
      globalStep,
      trainingLoss,
      valid: measured,
    } = await trainUnitVoicebox({
      ...{ model, train: lists, outputDir: output },
      ...defined({ valid: valid ?? settings.valid, audioRoot }),
      recipe: { ...settings.recipe, ...changes, ...(dtype !== undefined && { precision: PRECISIONS[dtype] }) },
      args: { progress: true, ...defined({ maxSteps, gradientCheckpointing }) },
    })
    const held = measured?.loss == null ? '' : `, validation loss ${measured.loss.toFixed(4)}`
    console.log(
      `${globalStep} steps, mean loss ${trainingLoss.toFixed(4)}${held}; the network is in ${join(output, 'model')}/`,
    )
    return 0
  },
})
