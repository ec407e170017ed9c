import { defined } from '../../../base/check.js'
import { commandRule } from '../../../kit/command.js'
import { missingOption } from '../../../kit/options.js'
import {
  trainingOfArguments,
  USDM_TRAINING_OPTIONS,
  USDM_TRAINING_ORIGINAL_OPTIONS,
} from '../configuration/training.js'

export const finetune = commandRule({
  name: 'train',
  aliases: ['finetune'],
  summary: 'Fine-tune a language model on spoken dialogs: to transcribe, to reply, and to speak the reply.',
  details: `  voxtorch usdm train --data preprocessed/train.txt --valid preprocessed/test.txt --model-cache-dir CACHE --output runs/usdm
  voxtorch usdm train --data turns.txt --model smollm2-135m-instruct --tokenizer CACHE --lora --output runs/small

The files are those of 'voxtorch usdm preprocess', or of the original. If the model lacks the speech tokens, embedding rows are added.
Writes the trained model (with --lora: the adapters) and the tokenizer to OUTPUT/model. The same command resumes an interrupted run.
The defaults are the original's: AdamW with betas 0.9 and 0.95, weight decay on all weights, no gradient clipping.`,
  options: {
    data: { type: 'strings', help: 'training files', placeholder: 'file', aliases: ['data_path_train'] },
    valid: { type: 'strings', help: 'validation files', placeholder: 'file', aliases: ['data_path_test'] },
    test: { type: 'strings', help: 'test files, evaluated at the end', placeholder: 'file' },
    model: {
      type: 'string',
      help: 'language model: a folder, a GGUF file, or a Hub repository',
      placeholder: 'dir',
      default: 'naver-ai/USTM',
      aliases: ['model_name_or_path', 'pretrained_model_name_or_path'],
    },
    ...USDM_TRAINING_OPTIONS,
    packed: {
      type: 'boolean',
      help: 'pack examples into one row; --no-packed pads them to one length',
      default: 'on',
    },
  },
  originalOptions: USDM_TRAINING_ORIGINAL_OPTIONS,
  async run(options) {
    const { data, valid, test, packed } = options
    if (data === undefined) throw missingOption('data', 'training files', 'FILE, written by voxtorch usdm preprocess')
    const training = trainingOfArguments(options)
    const { usdmTrainedOfArguments } = await import('../configuration/apply.js')
    const { finetuneUsdm } = await import('../training/train.js')
    const { model, tokenizer } = await usdmTrainedOfArguments(options, 'naver-ai/USTM')
    using _ = model
    const files = { train: data, ...defined({ valid, test, packed }) }
    console.log(JSON.stringify(await finetuneUsdm({ ...training, ...files, model, tokenizer }), null, 2))
    return 0
  },
})
