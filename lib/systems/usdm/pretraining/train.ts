import { stat } from 'node:fs/promises'
import { ConfigError } from '../../../base/errors.js'
import { type ChangesOf, unchecked } from '../../../base/settings.js'
import type { Dataset } from '../../../data/dataset.js'
import { DataLoader } from '../../../data/loader.js'
import { packSequences } from '../../../data/pack.js'
import { getRank, getWorldSize } from '../../../distributed/index.js'
import type { UsdmBatch } from '../data/collate.js'
import { openRows, requireIds } from '../data/dataset.js'
import { IGNORED } from '../data/prompt.js'
import type { UsdmIds } from '../data/text.js'
import { USTM_RECIPE, usdmRecipe } from '../training/recipe.js'
import { requireCompat, runUsdmTraining, TRAINING_SETTINGS, type UsdmResults } from '../training/trainer.js'
import { numberedFiles, parseUstmRow } from './prepare.js'

/** Rows of packed sequences: files as `prepareUstm` writes them, a folder with `part<n>.txt`, or lists of ids. */
export type UstmRows = string | readonly string[] | readonly (readonly number[])[] | Dataset<readonly number[]>

const SETTINGS = TRAINING_SETTINGS.extend({
  train: { type: unchecked<UstmRows>(), required: true },
  /** Evaluated each `evalSteps` steps. */
  valid: { type: unchecked<UstmRows>() },
  /**
   * 'published': the last token of a sequence has the first token of the next one in the row as its label, all batches of a step have
   * equal weight, and a sliding window must be `windowInclusive`. By default no label crosses sequences, and all tokens of a step have
   * equal weight.
   */
  compat: { type: ['published'] },
})

/** Options of `pretrainUsdm`. @interface */
export type PretrainUsdmOptions = ChangesOf<typeof SETTINGS.table>

/**
 * Pre-train a language model on interleaved text and speech (USTM): all tokens contribute to the loss. Rows are packed: positions and
 * attention restart in each sequence of a row, and the sliding window is within the sequence (4,097 tokens as published, with the
 * model's `windowInclusive`; else 4,096, as in plain Mistral's files). Rows are read in the order of the files, which `prepareUstm`
 * shuffled. Output, resuming and several processes work as in `finetuneUsdm`.
 *
 * ```ts
 * const model = await DecoderLM.fromPretrained('mistralai/Mistral-7B-v0.1', { dtype: 'bfloat16' })
 * await pretrainUsdm({ model, tokenizer, train: 'ustm', outputDir: 'run' })
 * ```
 * @throws DataError with `file` and `line` for a malformed line, or ids of another tokenizer; else as the Trainer
 */
export async function pretrainUsdm(options: PretrainUsdmOptions): Promise<UsdmResults> {
  const where = 'pretrainUsdm'
  const { train, valid, compat, ...rest } = SETTINGS.read(where, options)
  const { model, tokenizer, args } = rest
  requireCompat(where, compat, model)
  const recipe = usdmRecipe(rest.recipe, USTM_RECIPE)
  const open = async (name: string, rows: UstmRows) => {
    const files = typeof rows === 'string' ? await partsOf(rows) : rows
    return openRows<readonly number[]>(where, name, files, (text, file, line) => {
      const ids = parseUstmRow(text, file, line)
      requireIds(ids, tokenizer.vocabSize, `${file}, line ${line}`, { file, line })
      return ids
    })
  }
  const data = await open('train', train)
  const collate = ustmCollate(tokenizer.ids, compat)
  const size = getWorldSize()
  const batchSize = (args.perDeviceTrainBatchSize ?? recipe.batchSize) * size
  const loader = new DataLoader<readonly number[], UsdmBatch>(data, {
    ...{ batchSize, collate: collate as never, freeBatches: false },
    ...(args.dataloaderDropLast !== undefined && { dropLast: args.dataloaderDropLast }),
    ...(size > 1 && { shard: { rank: getRank(), worldSize: size } }),
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

/** Return a function that packs a batch of rows into one row. */
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

/** Split a row before each BOS; after each EOS if the tokenizer has no BOS. */
export function sequencesOf(row: readonly number[], { bos, eos }: Pick<UsdmIds, 'bos' | 'eos'>): number[][] {
  const starts = row.flatMap((id, i) => (i > 0 && (bos === null ? row[i - 1] === eos : id === bos) ? [i] : []))
  return [0, ...starts].map((start, i) => row.slice(start, starts[i] ?? row.length))
}

/** Return the path of a file, or the parts in a folder in the order of their numbers. */
async function partsOf(path: string): Promise<string | string[]> {
  const facts = await stat(path).catch((cause: Error) => {
    throw new ConfigError(`pretrainUsdm: expected a file or folder of packed rows, got ${path}: ${cause.message}`, {
      argument: 'train',
      cause,
    })
  })
  if (!facts.isDirectory()) return path
  const parts = await numberedFiles(path, 'part')
  if (parts.length > 0) return parts
  throw new ConfigError(`pretrainUsdm: expected part0.txt in ${path}, got none. Write it with prepareUstm.`, {
    argument: 'train',
  })
}
