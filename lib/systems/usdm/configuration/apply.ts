import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { ConfigError } from '../../../base/errors.js'
import { resolveModel } from '../../../hub/resolve.js'
import type { OptionsOf } from '../../../kit/options.js'
import { UnitExtractor } from '../../../models/units/unit-extractor.js'
import type { Device } from '../../../tensor/index.js'
import { UsdmTokenizer } from '../data/text.js'
import type { USDM_OPTIONS } from './arguments.js'

export type UsdmArguments = OptionsOf<typeof USDM_OPTIONS>

/** Of what a tokenizer is read. */
const TOKENIZER_FILES = ['tokenizer*', 'special_tokens_map.json', 'added_tokens.json', 'vocab.*', 'merges.txt']

/** The tokenizer that a command line names, with the tokens of speech. @throws what reading it throws */
export async function usdmTokenizerOfArguments(options: UsdmArguments, units?: number): Promise<UsdmTokenizer> {
  const { model = 'naver-ai/USTM', modelCacheDir } = options
  const directory = existsSync(model)
    ? model
    : await resolveModel(model, {
        files: TOKENIZER_FILES,
        ...(modelCacheDir !== undefined && { cacheDir: modelCacheDir }),
      })
  return UsdmTokenizer.fromPretrained(directory, units === undefined ? {} : { units })
}

/** The extractor that a command line names. @throws ConfigError where encoder or centroids are not there */
export async function unitExtractorOfArguments(options: UsdmArguments): Promise<UnitExtractor> {
  const { modelCacheDir, layer = 35, device } = options
  const inCache = (flag: string, name: string): string => {
    const found = modelCacheDir === undefined ? undefined : join(modelCacheDir, name)
    if (found !== undefined && existsSync(found)) return found
    const where = found ?? `${name} in --model-cache-dir`
    throw new ConfigError(`There is no ${where}: say ${flag}`, { argument: flag })
  }
  return UnitExtractor.fromPretrained({
    encoder: options.encoder ?? inCache('--encoder', 'xlsr2_1b_v2.pt'),
    kmeans: options.kmeans ?? inCache('--kmeans', 'kmeans_10k.npy'),
    layer,
    ...(device !== undefined && { device: device as Device }),
  })
}
