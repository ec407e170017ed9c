import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { resolveModel } from '../../../hub/resolve.js'
import type { OptionsOf } from '../../../kit/options.js'
import { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import { UnitExtractor } from '../../../models/units/unit-extractor.js'
import type { ExtractUnitsOptions } from '../../../models/units/unit-folder.js'
import type { Device, DType } from '../../../tensor/index.js'
import { TOKENIZER_FILES } from '../../../text/pretrained.js'
import { UsdmTokenizer } from '../data/text.js'
import { isWholeUsdm, USDM_PUBLISHED } from '../network/files.js'
import { Usdm } from '../network/network.js'
import type { USDM_OPTIONS } from './arguments.js'
import type { UsdmTrainingArguments } from './training.js'

export type UsdmArguments = OptionsOf<typeof USDM_OPTIONS>

/** Return the model cache folder: `--model-cache-dir`, else MODEL_CACHE_DIR of the environment, as in the original. */
export const modelCacheOf = ({ modelCacheDir }: Pick<UsdmArguments, 'modelCacheDir'>): string | undefined =>
  modelCacheDir ?? (process.env.MODEL_CACHE_DIR || undefined)

/** Load the tokenizer that a command line names, with the speech tokens. @throws the errors of `UsdmTokenizer.fromPretrained` */
export async function usdmTokenizerOfArguments(options: UsdmArguments, units?: number): Promise<UsdmTokenizer> {
  const { model = 'naver-ai/USTM' } = options
  const directory = existsSync(model)
    ? model
    : await resolveModel(model, { files: TOKENIZER_FILES, ...defined({ cacheDir: modelCacheOf(options) }) })
  return UsdmTokenizer.fromPretrained(directory, units === undefined ? {} : { units })
}

/**
 * Load the network and the tokenizer for a training command. The tokenizer is that of `--tokenizer`, else the model cache's,
 * where `preprocess` writes it, else the network's.
 */
export async function usdmTrainedOfArguments(
  args: UsdmTrainingArguments & { model?: string },
  defaultModel: string,
): Promise<{ model: DecoderLM; tokenizer: UsdmTokenizer }> {
  const { model = defaultModel, units, compat, device, dtype = 'bfloat16' } = args
  const modelCacheDir = modelCacheOf(args)
  const windowInclusive = args.windowInclusive ?? (compat === 'published' ? true : undefined)
  const inCache = modelCacheDir !== undefined && existsSync(join(modelCacheDir, 'tokenizer.json'))
  const from = args.tokenizer ?? (inCache ? modelCacheDir : model)
  const tokenizer = await usdmTokenizerOfArguments({ model: from, ...defined({ modelCacheDir }) }, units)
  const network = await DecoderLM.fromPretrained(model, {
    dtype,
    ...(modelCacheDir !== undefined && !existsSync(model) && { cacheDir: modelCacheDir }),
    ...(device !== undefined && { device: device as Device }),
    ...(windowInclusive !== undefined && { config: { windowInclusive } }),
  })
  return { model: network, tokenizer }
}

/** Return the paths of encoder and centroids. @throws ConfigError if they are not set and not in the model cache */
function encoderPathsOf(options: Pick<UsdmArguments, 'modelCacheDir' | 'encoder' | 'kmeans'>) {
  const modelCacheDir = modelCacheOf(options)
  const inCache = (flag: string, name: string): string => {
    const found = modelCacheDir === undefined ? undefined : join(modelCacheDir, name)
    if (found !== undefined && existsSync(found)) return found
    const where = found ?? `${name} in --model-cache-dir`
    throw new ConfigError(`${flag}: expected a path or the file ${where}, got neither. Add ${flag} PATH.`, {
      argument: flag,
    })
  }
  return {
    encoder: options.encoder ?? inCache('--encoder', 'xlsr2_1b_v2.pt'),
    kmeans: options.kmeans ?? inCache('--kmeans', 'kmeans_10k.npy'),
  }
}

/** Load the extractor that a command line names. @throws ConfigError if encoder or centroids are missing */
export async function unitExtractorOfArguments(options: UsdmArguments): Promise<UnitExtractor> {
  const { layer = 35, device, windowSeconds, overlapSeconds } = options
  return UnitExtractor.fromPretrained({
    ...{ ...encoderPathsOf(options), layer, ...defined({ windowSeconds, overlapSeconds }) },
    ...(device !== undefined && { device: device as Device }),
  })
}

/** Return counters for `onWindows`, and a function for the summary line: null if no clip was split into windows. */
export function countedWindows(): { onWindows: NonNullable<ExtractUnitsOptions['onWindows']>; line(): string | null } {
  let [clips, compared, different] = [0, 0, 0]
  return {
    onWindows(report) {
      clips += 1
      compared += report.compared
      different += report.different
    },
    line: () =>
      clips === 0
        ? null
        : `${clips} clips were encoded in windows, which changes some units: ${different} of ${compared} units in the overlaps differ`,
  }
}

/** Command-line options for the parts of a USDM. */
export interface UsdmModelArguments
  extends Pick<UsdmArguments, 'model' | 'modelCacheDir' | 'encoder' | 'kmeans' | 'layer'> {
  adapter?: string
  voicebox?: string
  vocoder?: string
  textOnly?: boolean
  device?: string
  dtype?: string
  offload?: boolean
}

/** Load the USDM that a command line names. @throws ConfigError if a part is missing */
export async function usdmOfArguments(options: UsdmModelArguments): Promise<Usdm> {
  const { model, device, dtype, offload, layer, textOnly = false } = options
  const load = defined({
    ...{ offload, cacheDir: modelCacheOf(options) },
    device: device as Device | undefined,
    dtype: dtype as DType | undefined,
  })
  if (model !== undefined && isWholeUsdm(model)) {
    for (const name of ['adapter', 'encoder', 'kmeans', 'layer', 'voicebox', 'vocoder'] as const) {
      if (options[name] === undefined) continue
      throw new ConfigError(
        `--${name}: expected a --model without its own parts, got ${model}, a complete USDM. Leave out --${name}.`,
        { argument: name },
      )
    }
    return Usdm.fromPretrained(model, { ...load, textOnly })
  }
  // Resolved before the other parts, so that the error for a misspelled name names the model.
  if (model !== undefined && !existsSync(model)) {
    await resolveModel(model, { files: TOKENIZER_FILES, ...defined({ cacheDir: modelCacheOf(options) }) })
  }
  const { voicebox = USDM_PUBLISHED.voicebox, vocoder = USDM_PUBLISHED.vocoder } = options
  const isPublished = model === undefined || !existsSync(model)
  return Usdm.fromPretrained(
    {
      ...{
        llm: model ?? USDM_PUBLISHED.llm,
        ...encoderPathsOf(options),
        ...defined({ layer, adapter: options.adapter }),
      },
      ...(!textOnly && { voicebox, vocoder }),
    },
    { ...(isPublished && { dtype: 'bfloat16' }), ...load },
  )
}
