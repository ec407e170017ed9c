import { join } from 'node:path'
import { defined } from '../../../base/check.js'
import { commandRule } from '../../../kit/command.js'
import { missingOption } from '../../../kit/options.js'
import type { Device } from '../../../tensor/index.js'
import { VOICEBOX_SETTINGS } from '../voicebox/recipe.js'

const PRECISIONS = { float32: 'float32', float16: 'fp16', bfloat16: 'bf16' } as const

export const voiceboxTrain = commandRule({
  name: 'voicebox-train',
  summary: 'Train a Voicebox, which predicts mel spectrograms from units of speech.',
  details: `  voxtorch usdm voicebox-train --train filelists/libritts/train.txt --valid filelists/libritts/valid.txt --log-dir run
  voxtorch usdm voicebox-train -c configs/libritts/config.json -l run

The configuration is the original's, with file lists and training settings, or a network's config.json; command-line options override it.
Without a configuration the network has the published size. Writes the network to <output>/model. An interrupted run resumes.`,
  options: {
    config: { type: 'string', help: 'configuration file', placeholder: 'file', aliases: ['-c'] },
    train: {
      type: 'strings',
      help: 'training file lists, written by voicebox-preprocess',
      placeholder: 'file',
      default: "the configuration's",
    },
    valid: {
      type: 'strings',
      help: 'validation file lists, for choosing the best weights',
      placeholder: 'file',
      default: "the configuration's",
    },
    output: {
      type: 'string',
      help: 'folder for checkpoints, logs and the network',
      placeholder: 'dir',
      default: 'usdm-voicebox',
      aliases: ['log_dir', '-l'],
    },
    model: { type: 'string', help: 'network to continue training, instead of a new one', placeholder: 'dir' },
    audioRoot: { type: 'string', help: 'folder that paths in file lists are relative to', placeholder: 'dir' },
    ...VOICEBOX_SETTINGS.options,
    maxSteps: { type: 'integer', help: 'total optimizer steps, instead of epochs' },
    dtype: {
      type: ['float32', 'float16', 'bfloat16'],
      help: 'dtype of the computation',
      default: 'float16 on CUDA, else float32',
    },
    gradientCheckpointing: { type: 'boolean', help: 'recompute activations in backward: less memory, more time' },
    device: { type: 'string', help: 'device: cpu, cuda or cuda:0', default: 'cpu' },
  },
  originalOptions: Object.fromEntries(
    Object.entries({
      'model_cache_dir -mc': 'the original keeps a vocoder there for audio samples during training; none are made here',
      'data_cache_dir -dc': 'clips are read when needed, and the data is not copied',
    }).flatMap(([names, reason]) => names.split(' ').map((name) => [name, { takesValue: true, reason }])),
  ),
  async run(args) {
    const { config, audioRoot, maxSteps, gradientCheckpointing, device, dtype, output = 'usdm-voicebox' } = args
    const { train, valid, model: from } = args
    const { readVoiceboxConfig } = await import('../published/voicebox-config.js')
    const settings = config === undefined ? { model: {}, recipe: {} } : await readVoiceboxConfig(config)
    const lists = train ?? settings.train
    if (lists === undefined)
      throw missingOption('train', 'file lists', 'FILE, or --config with a configuration of the original')
    const { UnitVoicebox } = await import('../../../models/unit-voicebox/unit-voicebox.js')
    const { trainUnitVoicebox } = await import('../voicebox/train.js')
    const recipe = { ...settings.recipe, ...VOICEBOX_SETTINGS.fromOptions(args) }
    const { seed = VOICEBOX_SETTINGS.defaults.seed } = recipe
    const place = defined({ device: device as Device | undefined })
    if (from !== undefined && Object.keys(settings.model).length > 0) {
      console.error(`--config: the network's sizes are ignored, those of ${from} apply`)
    }
    using model =
      from === undefined
        ? UnitVoicebox.fromConfig(settings.model, { seed, ...place })
        : await UnitVoicebox.fromPretrained(from, { dtype: 'float32', ...place })
    const {
      globalStep,
      trainingLoss,
      valid: measured,
    } = await trainUnitVoicebox({
      ...{ model, train: lists, outputDir: output },
      ...defined({ valid: valid ?? settings.valid, audioRoot }),
      recipe: { ...recipe, ...(dtype !== undefined && { precision: PRECISIONS[dtype] }) },
      args: { progress: true, ...defined({ maxSteps, gradientCheckpointing }) },
    })
    const held = measured?.loss == null ? '' : `, validation loss ${measured.loss.toFixed(4)}`
    console.log(
      `${globalStep} steps, mean loss ${trainingLoss.toFixed(4)}${held}; the network is in ${join(output, 'model')}/`,
    )
    return 0
  },
})
