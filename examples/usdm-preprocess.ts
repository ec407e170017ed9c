/**
 * Makes of DailyTalk what USDM is fine-tuned on, with the original's argument names; `voxtorch usdm preprocess` does the same.
 *
 * `npx tsx examples/usdm-preprocess.ts --data_dir DAILYTALK/data --model_cache_dir CACHE [--train_metadata_path FILE]
 * [--test_metadata_path FILE] [--output_path DIR]`: CACHE has xlsr2_1b_v2.pt and kmeans_10k.npy, and gets the tokenizer.
 */
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'
import * as usdm from 'voxtorch/usdm'

const text = { type: 'string' } as const
const { values } = parseArgs({
  options: {
    ...{ data_dir: text, model_cache_dir: text, pretrained_model_name_or_path: text },
    ...{ train_metadata_path: text, test_metadata_path: text, output_path: text },
    // For other encoders than XLS-R.
    ...{ encoder: text, kmeans: text, layer: text },
  },
})
const { data_dir: dataDir, model_cache_dir: cache, layer = '35' } = values
if (dataDir === undefined || cache === undefined)
  throw new vt.ConfigError('Say --data_dir DIR and --model_cache_dir DIR')

const encoder = values.encoder ?? `${cache}/xlsr2_1b_v2.pt`
const kmeans = values.kmeans ?? `${cache}/kmeans_10k.npy`
using units = await vt.UnitExtractor.fromPretrained({ encoder, kmeans, layer: Number(layer) })
const model = await vt.resolveModel(values.pretrained_model_name_or_path ?? 'naver-ai/USTM', { cacheDir: cache })
const tokenizer = await usdm.UsdmTokenizer.fromPretrained(model, { units: units.units })
const { train, test } = await usdm.preprocessDailyTalk({
  ...{ dataDir, units, tokenizer, modelCacheDir: cache, extract: { progress: true } },
  ...(values.train_metadata_path !== undefined && { trainMetadata: values.train_metadata_path }),
  ...(values.test_metadata_path !== undefined && { testMetadata: values.test_metadata_path }),
  ...(values.output_path !== undefined && { output: values.output_path }),
})
for (const { file, examples, dropped } of [train, test])
  console.log(`${file}: ${examples} examples, without ${dropped}`)
