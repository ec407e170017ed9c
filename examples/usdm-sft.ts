/**
 * Fine-tunes USDM on what `usdm-preprocess.ts` wrote, with the original's argument names; `voxtorch usdm train` does the same
 * and has all of them.
 *
 * `npx tsx examples/usdm-sft.ts --data_path_train train.txt --data_path_test test.txt --model_cache_dir CACHE --output_dir runs/usdm
 * [--model_name_or_path DIR] [--lora]`: CACHE has the tokenizer. In two processes: `npx voxtorch launch --nproc 2 …`.
 */
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'
import * as usdm from 'voxtorch/usdm'

const text = { type: 'string' } as const
const files = { type: 'string', multiple: true } as const
const { values } = parseArgs({
  options: {
    ...{ data_path_train: files, data_path_test: files, output_dir: text, model_cache_dir: text },
    ...{ model_name_or_path: text, learning_rate: text, num_train_epochs: text, dtype: text },
    ...{ train_batch_size: text, gradient_accumulation_steps: text, seed: text, lora: { type: 'boolean' } },
  },
})
const { data_path_train: train, data_path_test: valid, output_dir: outputDir, model_cache_dir: cacheDir } = values
if (train === undefined || outputDir === undefined || cacheDir === undefined)
  throw new vt.ConfigError('Say --data_path_train FILE, --output_dir DIR and --model_cache_dir DIR')

const number = (name: string, value: string | undefined) => (value === undefined ? {} : { [name]: Number(value) })
const tokenizer = await usdm.UsdmTokenizer.fromPretrained(cacheDir)
const place = await vt.resolveModel(values.model_name_or_path ?? 'naver-ai/USTM', { cacheDir })
using model = await vt.DecoderLM.fromPretrained(place, { dtype: (values.dtype ?? 'bfloat16') as 'bfloat16' })
const results = await usdm.finetuneUsdm({
  ...{ model, tokenizer, train, outputDir, lora: values.lora === true },
  ...(valid && { valid }),
  recipe: {
    ...number('learningRate', values.learning_rate),
    ...number('epochs', values.num_train_epochs),
    ...number('batchSize', values.train_batch_size),
    ...number('accumulation', values.gradient_accumulation_steps),
    ...number('seed', values.seed),
  },
})
console.log(results)
