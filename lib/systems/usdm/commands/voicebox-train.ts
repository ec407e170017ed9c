import { join } from 'node:path'
import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import type { Device } from '../../../tensor/index.js'

const PRECISIONS = { float32: 'float32', float16: 'fp16', bfloat16: 'bf16' } as const

export const voiceboxTrain = commandRule({
  name: 'voicebox-train',
  summary: 'Trains a Voicebox, which makes mel spectrograms of units of speech.',
  details: `  voxtorch usdm voicebox-train --train filelists/libritts/train.txt --valid filelists/libritts/valid.txt --log-dir run
  voxtorch usdm voicebox-train -c configs/libritts/config.json -l run

The configuration is the original's, which names file lists and says how to train, or a network's config.json; what is said here
counts before it. Without one the network has the published size. The network goes to <output>/model; stopped and started again, it
goes on.`,
  options: {
    config: { kind: 'text', help: 'a configuration', value: 'file', aliases: ['-c'] },
    train: {
      kind: 'texts',
      help: 'file lists, as voicebox-preprocess writes them',
      value: 'file',
      preset: "the configuration's",
    },
    valid: {
      kind: 'texts',
      help: 'the same, by which the best weights are found',
      value: 'file',
      preset: "the configuration's",
    },
    output: { kind: 'text', help: 'checkpoints, logs and the network go here', value: 'dir', preset: 'usdm-voicebox', aliases: ['log_dir', '-l'] }, // biome-ignore format: one line
    model: { kind: 'text', help: 'a network to go on from, in place of a new one', value: 'dir' },
    audioRoot: { kind: 'text', help: 'what relative paths in file lists are relative to', value: 'dir' },
    epochs: { kind: 'number', help: 'passes over the clips', preset: 10000, aliases: ['n_epochs'] },
    maxSteps: { kind: 'whole', help: 'steps, in place of epochs' },
    batchSize: { kind: 'whole', help: 'clips in a batch of each process', preset: 8 },
    accumulation: { kind: 'whole', help: 'batches of a step', preset: 1 },
    learningRate: { kind: 'number', help: 'of all steps', value: 'rate', preset: 1e-4 },
    dtype: { kind: ['float32', 'float16', 'bfloat16'], help: 'what it computes in', preset: 'float16 on CUDA, else float32' }, // biome-ignore format: one line
    gradientCheckpointing: { kind: 'flag', help: 'less memory, more time' },
    logSteps: { kind: 'whole', help: 'steps between logs', preset: 50 },
    saveSteps: { kind: 'whole', help: 'steps between checkpoints', preset: 'an epoch' },
    saveTotalLimit: { kind: 'whole', help: 'checkpoints that stay', preset: 2 },
    device: { kind: 'text', help: 'such as cpu or cuda:0', preset: 'cpu' },
    seed: { kind: 'whole', help: 'of weights, order and what is drawn', preset: 37 },
  },
  foreign: Object.fromEntries(
    Object.entries({
      'model_cache_dir -mc': 'the original keeps a vocoder there to listen to while it trains; no sound is made here',
      'data_cache_dir -dc': 'clips are read when it is their turn, and nothing of the data is copied',
    }).flatMap(([names, reason]) => names.split(' ').map((name) => [name, { takesValue: true, reason }])),
  ),
  async run(given) {
    const {
      config,
      audioRoot,
      maxSteps,
      gradientCheckpointing,
      device,
      dtype,
      output = 'usdm-voicebox',
      ...recipe
    } = given
    const { train, valid, model: from, ...changes } = recipe
    const { readVoiceboxConfig } = await import('../published/voicebox-config.js')
    const said = config === undefined ? { model: {}, recipe: {} } : await readVoiceboxConfig(config)
    const lists = train ?? said.train
    if (lists === undefined) {
      throw new ConfigError('Say what to train on: --train FILE, or --config of the original', { argument: 'train' })
    }
    const { UnitVoicebox } = await import('../../../models/unit-voicebox/unit-voicebox.js')
    const { trainUnitVoicebox } = await import('../voicebox/train.js')
    const { VOICEBOX_RECIPE } = await import('../voicebox/recipe.js')
    const seed = changes.seed ?? said.recipe.seed ?? VOICEBOX_RECIPE.seed
    const place = defined({ device: device as Device | undefined })
    if (from !== undefined && Object.keys(said.model).length > 0) {
      console.error(`--config: the network's sizes are those of ${from}`)
    }
    using model =
      from === undefined
        ? UnitVoicebox.fromConfig(said.model, { seed, ...place })
        : await UnitVoicebox.fromPretrained(from, place)
    const {
      globalStep,
      trainingLoss,
      valid: measured,
    } = await trainUnitVoicebox({
      ...{ model, train: lists, outputDir: output },
      ...defined({ valid: valid ?? said.valid, audioRoot }),
      recipe: { ...said.recipe, ...changes, ...(dtype !== undefined && { precision: PRECISIONS[dtype] }) },
      args: { progress: true, ...defined({ maxSteps, gradientCheckpointing }) },
    })
    const held = measured?.loss == null ? '' : `, of validation ${measured.loss.toFixed(4)}`
    console.log(
      `${globalStep} steps, mean loss ${trainingLoss.toFixed(4)}${held}; the network is in ${join(output, 'model')}/`,
    )
    return 0
  },
})
