import { misuse, requireOptions } from '../../../base/check.js'
import { packedExamples, paddedExamples } from '../data/collate.js'
import { type UsdmExamples, usdmDataset } from '../data/dataset.js'
import type { UsdmExample } from '../data/prompt.js'
import { type UsdmRecipe, usdmRecipe } from './recipe.js'
import {
  checkTraining,
  requireCompat,
  runUsdmTraining,
  TRAINING_OPTIONS,
  type UsdmResults,
  type UsdmTrainingOptions,
} from './trainer.js'

export interface FinetuneUsdmOptions extends UsdmTrainingOptions {
  /** Files of `ids|labels`, or examples as `usdmExamples` and `usdmExample` make them. */
  train: UsdmExamples
  /** Evaluated each `evalSteps` steps. */
  valid?: UsdmExamples
  /** Measured once at the end. */
  test?: UsdmExamples
  /** Changes to {@link USDM_RECIPE}. */
  recipe?: Partial<UsdmRecipe>
  /**
   * Puts the examples of a batch behind each other in one row, so that nothing is computed for padding; what comes out is the
   * same within rounding. Default true.
   */
  packed?: boolean
  /**
   * 'published': the batches of a step count alike, whatever each has to learn, and adapters leave the tables of tokens frozen; a
   * sliding window is `windowInclusive`, or refused.
   * By default all tokens of a step count alike, and the tables train too.
   */
  compat?: 'published'
}

/**
 * Fine-tunes a language model to transcribe speech, to answer, and to speak the answer: the loss is over transcripts and
 * replies alone (see `usdmLabels`). It trains, saves the model with its tokenizer in `model/`, measures it on `valid` and
 * `test`, and writes `results.json`. The same call on the same folder goes on where a killed run was, bit for bit on the CPU,
 * and after the end gives the results that it finds. In several processes (`npx voxtorch launch`) each takes its share of
 * every batch; `args: { zero: 1 }` divides the optimiser's state over them.
 *
 * ```ts
 * const tokenizer = await UsdmTokenizer.fromPretrained('cache')
 * const model = await DecoderLM.fromPretrained('naver-ai/USTM', { dtype: 'bfloat16' })
 * await finetuneUsdm({ model, tokenizer, train: 'preprocessed/train.txt', valid: 'preprocessed/test.txt', outputDir: 'run' })
 * ```
 * @throws DataError with `file` and `line` for a line that is no example, or was made with another tokenizer; else as the Trainer
 */
export async function finetuneUsdm(options: FinetuneUsdmOptions): Promise<UsdmResults> {
  const where = 'finetuneUsdm'
  requireOptions(where, options, [...TRAINING_OPTIONS, 'train', 'valid', 'test', 'packed', 'compat'])
  const { train, valid, test, packed = true, compat, lora, ...rest } = options
  checkTraining(where, options)
  if (typeof packed !== 'boolean') throw misuse(where, 'packed', 'a boolean', packed)
  requireCompat(where, compat, options.model)
  const recipe = usdmRecipe(options.recipe)
  const { tokenizer } = options
  const open = (name: string, given: UsdmExamples) => usdmDataset(where, name, given, tokenizer.vocabSize)
  const data = await open('train', train)
  const frozenTables = compat === 'published' && { modulesToSave: [] }
  return runUsdmTraining<UsdmExample>({
    where,
    options: { ...rest, ...(lora && { lora: { ...frozenTables, ...(lora === true ? {} : lora) } }) },
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
