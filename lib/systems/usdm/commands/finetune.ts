import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { trainingOfArguments, USDM_TRAINING_FOREIGN, USDM_TRAINING_OPTIONS } from '../configuration/training.js'

export const finetune = commandRule({
  name: 'finetune',
  summary: 'Fine-tunes a language model on spoken dialogs: to transcribe, to answer, and to speak the answer.',
  details: `  voxtorch usdm finetune --data preprocessed/train.txt --valid preprocessed/test.txt --model-cache-dir CACHE --output runs/usdm
  voxtorch usdm finetune --data turns.txt --model smollm2-135m-instruct --tokenizer CACHE --lora --output runs/small

The files are those of 'voxtorch usdm preprocess', or of the original. A model without the tokens of speech gets rows for them. The
trained model ends up in OUTPUT/model with its tokenizer, with --lora its adapters. The same command goes on where a killed run was.
The defaults are the original's: AdamW with betas 0.9 and 0.95, decay of all weights, no clipping of gradients.`,
  options: {
    data: { kind: 'texts', help: 'files to train on', value: 'file', aliases: ['data_path_train'] },
    valid: { kind: 'texts', help: 'files to evaluate on', value: 'file', aliases: ['data_path_test'] },
    test: { kind: 'texts', help: 'files to measure with at the end', value: 'file' },
    model: {
      kind: 'text',
      help: 'the language model: a folder, a GGUF file, or a repository of the hub',
      value: 'dir',
      preset: 'naver-ai/USTM',
      aliases: ['model_name_or_path', 'pretrained_model_name_or_path'],
    },
    ...USDM_TRAINING_OPTIONS,
    packed: { kind: 'flag', help: 'examples behind each other; --no-packed fills them up to one length', preset: 'on' },
  },
  foreign: USDM_TRAINING_FOREIGN,
  async run(given) {
    const { data, valid, test, packed } = given
    if (data === undefined) {
      throw new ConfigError('Say what to train on: --data FILE, as voxtorch usdm preprocess writes it', {
        argument: 'data',
      })
    }
    const training = trainingOfArguments(given)
    const { usdmTrainedOfArguments } = await import('../configuration/apply.js')
    const { finetuneUsdm } = await import('../training/train.js')
    const { model, tokenizer } = await usdmTrainedOfArguments(given, 'naver-ai/USTM')
    using _ = model
    const files = { train: data, ...defined({ valid, test, packed }) }
    console.log(JSON.stringify(await finetuneUsdm({ ...training, ...files, model, tokenizer }), null, 2))
    return 0
  },
})
