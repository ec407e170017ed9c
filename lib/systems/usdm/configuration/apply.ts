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

/** Where models are kept: as a command line says, else MODEL_CACHE_DIR in the environment, as the original has it. */
export const modelCacheOf = ({ modelCacheDir }: Pick<UsdmArguments, 'modelCacheDir'>): string | undefined =>
  modelCacheDir ?? (process.env.MODEL_CACHE_DIR || undefined)

/** The tokenizer that a command line names, with the tokens of speech. @throws what reading it throws */
export async function usdmTokenizerOfArguments(options: UsdmArguments, units?: number): Promise<UsdmTokenizer> {
  const { model = 'naver-ai/USTM' } = options
  const directory = existsSync(model)
    ? model
    : await resolveModel(model, { files: TOKENIZER_FILES, ...defined({ cacheDir: modelCacheOf(options) }) })
  return UsdmTokenizer.fromPretrained(directory, units === undefined ? {} : { units })
}

/**
 * The network and the tokenizer that a command line of a training names: the tokenizer is that of `--tokenizer`, else the model
 * cache's, where `preprocess` writes it, else the network's.
 */
export async function usdmTrainedOfArguments(
  given: UsdmTrainingArguments & { model?: string },
  preset: string,
): Promise<{ model: DecoderLM; tokenizer: UsdmTokenizer }> {
  const { model = preset, units, compat, device, dtype = 'bfloat16' } = given
  const modelCacheDir = modelCacheOf(given)
  const windowInclusive = given.windowInclusive ?? (compat === 'published' ? true : undefined)
  const inCache = modelCacheDir !== undefined && existsSync(join(modelCacheDir, 'tokenizer.json'))
  const from = given.tokenizer ?? (inCache ? modelCacheDir : model)
  const tokenizer = await usdmTokenizerOfArguments({ model: from, ...defined({ modelCacheDir }) }, units)
  const network = await DecoderLM.fromPretrained(model, {
    dtype,
    ...(modelCacheDir !== undefined && !existsSync(model) && { cacheDir: modelCacheDir }),
    ...(device !== undefined && { device: device as Device }),
    ...(windowInclusive !== undefined && { config: { windowInclusive } }),
  })
  return { model: network, tokenizer }
}

/** Encoder and centroids that a command line names. @throws ConfigError where they are not there */
function hearingOf(options: Pick<UsdmArguments, 'modelCacheDir' | 'encoder' | 'kmeans'>) {
  const modelCacheDir = modelCacheOf(options)
  const inCache = (flag: string, name: string): string => {
    const found = modelCacheDir === undefined ? undefined : join(modelCacheDir, name)
    if (found !== undefined && existsSync(found)) return found
    const where = found ?? `${name} in --model-cache-dir`
    throw new ConfigError(`There is no ${where}: say ${flag}`, { argument: flag })
  }
  return {
    encoder: options.encoder ?? inCache('--encoder', 'xlsr2_1b_v2.pt'),
    kmeans: options.kmeans ?? inCache('--kmeans', 'kmeans_10k.npy'),
  }
}

/** The extractor that a command line names. @throws ConfigError where encoder or centroids are not there */
export async function unitExtractorOfArguments(options: UsdmArguments): Promise<UnitExtractor> {
  const { layer = 35, device, windowSeconds, overlapSeconds } = options
  return UnitExtractor.fromPretrained({
    ...{ ...hearingOf(options), layer, ...defined({ windowSeconds, overlapSeconds }) },
    ...(device !== undefined && { device: device as Device }),
  })
}

/** What `onWindows` counts of clips that were heard in windows, and the line that says so: none where no clip was. */
export function countedWindows(): { onWindows: NonNullable<ExtractUnitsOptions['onWindows']>; line(): string | null } {
  let [clips, compared, different] = [0, 0, 0]
  return {
    onWindows(heard) {
      clips += 1
      compared += heard.compared
      different += heard.different
    },
    line: () =>
      clips === 0
        ? null
        : `${clips} clips were heard in windows, so that some of their units are others: ${different} of ${compared} units that two windows gave differ`,
  }
}

/** The parts of a USDM, as a command line names them. */
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

/** The USDM that a command line names. @throws ConfigError where its parts are not there */
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
      throw new ConfigError(`--${name} is for parts: ${model} is a whole USDM, which has its own`, { argument: name })
    }
    return Usdm.fromPretrained(model, { ...load, textOnly })
  }
  // Before the other parts are looked for, so that a misspelt name is told as such.
  if (model !== undefined && !existsSync(model)) {
    await resolveModel(model, { files: TOKENIZER_FILES, ...defined({ cacheDir: modelCacheOf(options) }) })
  }
  const { voicebox = USDM_PUBLISHED.voicebox, vocoder = USDM_PUBLISHED.vocoder } = options
  const isPublished = model === undefined || !existsSync(model)
  return Usdm.fromPretrained(
    {
      ...{ llm: model ?? USDM_PUBLISHED.llm, ...hearingOf(options), ...defined({ layer, adapter: options.adapter }) },
      ...(!textOnly && { voicebox, vocoder }),
    },
    { ...(isPublished && { dtype: 'bfloat16' }), ...load },
  )
}
