import { defined } from '../../../base/check.js'
import { commandRule } from '../../../kit/command.js'
import { missingOption } from '../../../kit/options.js'
import {
  trainingOfArguments,
  USDM_TRAINING_OPTIONS,
  USDM_TRAINING_ORIGINAL_OPTIONS,
} from '../configuration/training.js'

const { accumulation, loraAlpha } = USDM_TRAINING_OPTIONS

export const pretrain = commandRule({
  name: 'pretrain',
  summary: 'Pre-train a language model on interleaved text and speech (USTM), from packed rows.',
  details: `  voxtorch usdm prepare --data LibriTTS/dev-clean-textgrid --output ustm --model mistralai/Mistral-7B-v0.1
  voxtorch usdm pretrain --data ustm --model mistralai/Mistral-7B-v0.1 --output runs/ustm --window-inclusive

--data is a folder that 'voxtorch usdm prepare' wrote, or files of it. Sequences of a row do not attend to each other. Writes the
trained model and the tokenizer to OUTPUT/model. The same command resumes an interrupted run.`,
  options: {
    data: { type: 'strings', help: 'folder with part0.txt …, or files', placeholder: 'path', aliases: ['data_path'] },
    valid: { type: 'strings', help: 'validation folder or files', placeholder: 'path' },
    model: {
      type: 'string',
      help: 'language model: a folder, a GGUF file, or a Hub repository',
      placeholder: 'dir',
      default: 'mistralai/Mistral-7B-v0.1',
      aliases: ['model_name_or_path', 'pretrained_model_name_or_path'],
    },
    ...USDM_TRAINING_OPTIONS,
    accumulation: { ...accumulation, help: 'gradient accumulation: batches per optimizer step', default: 2 },
    loraAlpha: { ...loraAlpha, help: 'LoRA alpha', default: 64 },
  },
  originalOptions: USDM_TRAINING_ORIGINAL_OPTIONS,
  async run(options) {
    const { data, valid } = options
    if (data === undefined) throw missingOption('data', 'packed rows', 'DIR, written by voxtorch usdm prepare')
    const training = trainingOfArguments(options)
    const { usdmTrainedOfArguments } = await import('../configuration/apply.js')
    const { pretrainUsdm } = await import('../pretraining/train.js')
    const { model, tokenizer } = await usdmTrainedOfArguments(options, 'mistralai/Mistral-7B-v0.1')
    using _ = model
    const one = (paths: string[]) => (paths.length === 1 ? (paths[0] as string) : paths)
    const rows = { train: one(data), ...defined({ valid: valid && one(valid) }) }
    console.log(JSON.stringify(await pretrainUsdm({ ...training, ...rows, model, tokenizer }), null, 2))
    return 0
  },
})
