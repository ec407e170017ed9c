import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { trainingOfArguments, USDM_TRAINING_FOREIGN, USDM_TRAINING_OPTIONS } from '../configuration/training.js'

const { accumulation, loraAlpha } = USDM_TRAINING_OPTIONS

export const pretrain = commandRule({
  name: 'pretrain',
  summary: 'Pre-trains a language model on text and speech in turns (USTM), from packed rows.',
  details: `  voxtorch usdm prepare --data LibriTTS/dev-clean-textgrid --output ustm --model mistralai/Mistral-7B-v0.1
  voxtorch usdm pretrain --data ustm --model mistralai/Mistral-7B-v0.1 --output runs/ustm --window-inclusive

--data is a folder that 'voxtorch usdm prepare' wrote, or files of it. Sequences of a row do not see each other. The trained model
ends up in OUTPUT/model with its tokenizer. The same command goes on where a killed run was.`,
  options: {
    data: { kind: 'texts', help: 'the folder with part0.txt …, or files', value: 'path', aliases: ['data_path'] },
    valid: { kind: 'texts', help: 'the same to evaluate on', value: 'path' },
    model: {
      kind: 'text',
      help: 'the language model: a folder, a GGUF file, or a repository of the hub',
      value: 'dir',
      preset: 'mistralai/Mistral-7B-v0.1',
      aliases: ['model_name_or_path', 'pretrained_model_name_or_path'],
    },
    ...USDM_TRAINING_OPTIONS,
    accumulation: { ...accumulation, help: 'batches whose gradients make one step', preset: 2 },
    loraAlpha: { ...loraAlpha, help: 'their scale times the rank', preset: 64 },
  },
  foreign: USDM_TRAINING_FOREIGN,
  async run(given) {
    const { data, valid } = given
    if (data === undefined) {
      throw new ConfigError('Say what to train on: --data DIR, as voxtorch usdm prepare writes it', {
        argument: 'data',
      })
    }
    const training = trainingOfArguments(given)
    const { usdmTrainedOfArguments } = await import('../configuration/apply.js')
    const { pretrainUsdm } = await import('../pretraining/train.js')
    const { model, tokenizer } = await usdmTrainedOfArguments(given, 'mistralai/Mistral-7B-v0.1')
    using _ = model
    const one = (paths: string[]) => (paths.length === 1 ? (paths[0] as string) : paths)
    const rows = { train: one(data), ...defined({ valid: valid && one(valid) }) }
    console.log(JSON.stringify(await pretrainUsdm({ ...training, ...rows, model, tokenizer }), null, 2))
    return 0
  },
})
