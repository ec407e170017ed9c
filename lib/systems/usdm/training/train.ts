import { type ChangesOf, unchecked } from '../../../base/settings.js'
import { packedExamples, paddedExamples } from '../data/collate.js'
import { type UsdmExamples, usdmDataset } from '../data/dataset.js'
import type { UsdmExample } from '../data/prompt.js'
import { usdmRecipe } from './recipe.js'
import { requireCompat, runUsdmTraining, TRAINING_SETTINGS, type UsdmResults } from './trainer.js'

const SETTINGS = TRAINING_SETTINGS.extend({
  /** Files of `ids|labels`, or examples of `usdmExamples` and `usdmExample`. */
  train: { type: unchecked<UsdmExamples>(), required: true },
  /** Evaluated every `evalSteps` steps. */
  valid: { type: unchecked<UsdmExamples>() },
  /** Evaluated once at the end. */
  test: { type: unchecked<UsdmExamples>() },
  /**
   * Packs the examples of a batch into one row, so that nothing is computed for padding. The results are the same within rounding.
   * Default true.
   */
  packed: { type: 'boolean', default: true },
  /**
   * 'published': all batches of a step have equal weight, LoRA keeps the embedding and output layers frozen, and a sliding window must be
   * `windowInclusive`. By default all tokens of a step have equal weight, and these layers train too.
   */
  compat: { type: ['published'] },
})

/** Options of `finetuneUsdm`. @interface */
export type FinetuneUsdmOptions = ChangesOf<typeof SETTINGS.table>

/**
 * Fine-tune a language model to transcribe speech, to reply, and to speak the reply. Only transcripts and replies contribute to the loss
 * (see `usdmLabels`). It trains, saves the model with its tokenizer in `model/`, evaluates it on `valid` and `test`, and writes
 * `results.json`. The same call on the same folder resumes an interrupted run, bit for bit on the CPU; after the end it returns the
 * saved results. In several processes (`npx voxtorch launch`) each processes a part of every batch; `args: { zero: 1 }` shards the
 * optimizer's state.
 *
 * ```ts
 * const tokenizer = await UsdmTokenizer.fromPretrained('cache')
 * const model = await DecoderLM.fromPretrained('naver-ai/USTM', { dtype: 'bfloat16' })
 * await finetuneUsdm({ model, tokenizer, train: 'preprocessed/train.txt', valid: 'preprocessed/test.txt', outputDir: 'run' })
 * ```
 * @throws DataError with `file` and `line` for a malformed line, or ids of another tokenizer; else as the Trainer
 */
export async function finetuneUsdm(options: FinetuneUsdmOptions): Promise<UsdmResults> {
  const where = 'finetuneUsdm'
  const { train, valid, test, packed, compat, lora, ...rest } = SETTINGS.read(where, options)
  const { model, tokenizer } = rest
  requireCompat(where, compat, model)
  const recipe = usdmRecipe(rest.recipe)
  const open = (name: string, source: UsdmExamples) => usdmDataset(where, name, source, tokenizer.vocabSize)
  const data = await open('train', train)
  const frozenTables = compat === 'published' && { modulesToSave: [] }
  return runUsdmTraining<UsdmExample>({
    where,
    options: { ...rest, lora: lora && { ...frozenTables, ...(lora === true ? {} : lora) } },
    recipe,
    loraAlpha: 16,
    train: data,
    examples: data.length,
    valid: valid === undefined ? undefined : await open('valid', valid),
    test: test === undefined ? undefined : await open('test', test),
    collate: packed ? packedExamples : (examples) => paddedExamples(examples, tokenizer.ids.pad),
    meanOfMeans: compat === 'published',
  })
}
