import { stat } from 'node:fs/promises'
import { requireOptions } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import type { Dataset } from '../../../data/dataset.js'
import { DataLoader } from '../../../data/loader.js'
import { packSequences } from '../../../data/pack.js'
import { rank, worldSize } from '../../../distributed/index.js'
import type { UsdmBatch } from '../data/collate.js'
import { openRows, requireIds } from '../data/dataset.js'
import { IGNORED } from '../data/prompt.js'
import type { UsdmIds } from '../data/text.js'
import { USTM_RECIPE, type UsdmRecipe, usdmRecipe } from '../training/recipe.js'
import {
  checkTraining,
  requireCompat,
  runUsdmTraining,
  TRAINING_OPTIONS,
  type UsdmResults,
  type UsdmTrainingOptions,
} from '../training/trainer.js'
import { numberedFiles, parseUstmRow } from './prepare.js'

/** Rows of packed sequences: files as `prepareUstm` writes them, a folder with `part<n>.txt`, or lists of ids. */
export type UstmRows = string | readonly string[] | readonly (readonly number[])[] | Dataset<readonly number[]>

export interface PretrainUsdmOptions extends UsdmTrainingOptions {
  train: UstmRows
  /** Evaluated each `evalSteps` steps. */
  valid?: UstmRows
  /** Changes to {@link USTM_RECIPE}. */
  recipe?: Partial<UsdmRecipe>
  /**
   * 'published': of two sequences in a row the end of the first is asked for the beginning of the second, the batches of a step
   * count alike, and a sliding window is `windowInclusive`, or refused. By default no sequence is asked for anything of another,
   * and all tokens of a step count alike.
   */
  compat?: 'published'
}

/**
 * Pre-trains a language model on text and speech in turns (USTM): the loss is over all tokens. Rows are packed: in each
 * sequence of a row positions and attention begin anew, and a sliding window is of the sequence (of 4,097 tokens as
 * published, with the model's `windowInclusive`; of 4,096 without, as plain Mistral's files have it). Rows come in the order of the files, which
 * `prepareUstm` shuffled. What it writes, resuming and several processes are as `finetuneUsdm` has them.
 *
 * ```ts
 * const model = await DecoderLM.fromPretrained('mistralai/Mistral-7B-v0.1', { dtype: 'bfloat16' })
 * await pretrainUsdm({ model, tokenizer, train: 'ustm', outputDir: 'run' })
 * ```
 * @throws DataError with `file` and `line` for a line that is no row, or was made with another tokenizer; else as the Trainer
 */
export async function pretrainUsdm(options: PretrainUsdmOptions): Promise<UsdmResults> {
  const where = 'pretrainUsdm'
  requireOptions(where, options, [...TRAINING_OPTIONS, 'train', 'valid', 'compat'])
  const { train, valid, compat, ...rest } = options
  checkTraining(where, options)
  requireCompat(where, compat, options.model)
  const recipe = usdmRecipe(options.recipe, USTM_RECIPE)
  const { tokenizer, args = {} } = options
  const open = async (name: string, given: UstmRows) => {
    const files = typeof given === 'string' ? await partsOf(given) : given
    return openRows<readonly number[]>(where, name, files, (text, file, line) => {
      const ids = parseUstmRow(text, file, line)
      requireIds(ids, tokenizer.vocabSize, `${file}, line ${line}`, { file, line })
      return ids
    })
  }
  const data = await open('train', train)
  const collate = ustmCollate(tokenizer.ids, compat)
  const size = worldSize()
  const batchSize = (args.perDeviceTrainBatchSize ?? recipe.batchSize) * size
  const loader = new DataLoader<readonly number[], UsdmBatch>(data, {
    ...{ batchSize, collate: collate as never, freeBatches: false },
    ...(args.dataloaderDropLast !== undefined && { dropLast: args.dataloaderDropLast }),
    ...(size > 1 && { shard: { rank: rank(), worldSize: size } }),
  })
  try {
    return await runUsdmTraining<readonly number[]>({
      where,
      options: rest,
      recipe,
      loraAlpha: 64,
      train: loader,
      examples: data.length,
      valid: valid === undefined ? undefined : await open('valid', valid),
      test: undefined,
      collate,
      meanOfMeans: compat === 'published',
    })
  } finally {
    await loader.close()
  }
}

/** A batch of rows as one packed row. */
export function ustmCollate(ids: UsdmIds, compat?: 'published'): (rows: readonly (readonly number[])[]) => UsdmBatch {
  const pack = packSequences(['inputIds', 'labels'], { causalLabels: [] })
  return (rows) => {
    const sequences = rows.flatMap((row) =>
      sequencesOf(row, ids).map((inputIds, i) => {
        const labels = [...inputIds]
        if (compat === undefined || i === 0) labels[0] = IGNORED
        return { inputIds, labels }
      }),
    )
    const { inputIds, labels, sequenceLengths } = pack(sequences)
    return { inputIds, labels, sequenceLengths }
  }
}

/** A row cut before each BOS; behind each EOS where the tokenizer has no BOS. */
export function sequencesOf(row: readonly number[], { bos, eos }: Pick<UsdmIds, 'bos' | 'eos'>): number[][] {
  const starts = row.flatMap((id, i) => (i > 0 && (bos === null ? row[i - 1] === eos : id === bos) ? [i] : []))
  return [0, ...starts].map((start, i) => row.slice(start, starts[i] ?? row.length))
}

/** A file, or the parts in a folder in the order of their numbers. */
async function partsOf(path: string): Promise<string | string[]> {
  const facts = await stat(path).catch((cause: Error) => {
    throw new ConfigError(`pretrainUsdm: ${path} cannot be read: ${cause.message}`, { argument: 'train', cause })
  })
  if (!facts.isDirectory()) return path
  const parts = await numberedFiles(path, 'part')
  if (parts.length > 0) return parts
  throw new ConfigError(`pretrainUsdm: ${path} holds no part0.txt as prepareUstm writes it`, { argument: 'train' })
}
