/** Files of a complete USDM: the published parts, each in its own layout, and the folder that `Usdm.save` writes. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { partFiles, writeFolderAtomically } from '../../../base/atomic-folder.js'
import { argumentError, defined, requireBoolean, requireOptions, requireString } from '../../../base/check.js'
import { CheckpointError, ConfigError, DataError } from '../../../base/errors.js'
import { writeJson } from '../../../files/json/json.js'
import { HUB_OPTIONS, type ResolveModelOptions, resolveModel } from '../../../hub/resolve.js'
import { BigVGAN } from '../../../models/bigvgan/bigvgan.js'
import { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import { type LoadNetworkOptions, readConfig, requireSaved } from '../../../models/pretrained.js'
import { UnitVoicebox } from '../../../models/unit-voicebox/unit-voicebox.js'
import { KMeans } from '../../../models/units/kmeans.js'
import { UnitExtractor, type UnitExtractorSource } from '../../../models/units/unit-extractor.js'
import { PeftModel } from '../../../peft/model.js'
import type { Device, DType, Tensor } from '../../../tensor/index.js'
import { TOKENIZER_FILES } from '../../../text/pretrained.js'
import { Tokenizer } from '../../../text/tokenizer.js'
import { CORRESPOND, UsdmTokenizer } from '../data/text.js'
import type { UsdmParts } from './options.js'
import { GriffinLimVocoder, type UsdmVocoder, type UsdmVoicebox } from './speech.js'

/** The parts of a USDM: folders, files, names of published weights, Hub repositories, or loaded objects. */
export interface UsdmSource {
  /** The language model after fine-tuning, such as `'naver-ai/USDM-DailyTalk'`. */
  llm: string | DecoderLM
  /**
   * Folder of LoRA adapters, trained on `llm`. They are merged into it. Default: none.
   */
  adapter?: string
  /** A folder or repository. Default: that of `adapter`, else of `llm`. */
  tokenizer?: string | UsdmTokenizer
  /** XLS-R, such as `xlsr2_1b_v2.pt`, or another encoder that `UnitExtractor.fromPretrained` takes. */
  encoder: UnitExtractorSource['encoder']
  /** Centroids, such as `kmeans_10k.npy`. */
  kmeans: string | Tensor | KMeans
  /** Encoder layer whose output is quantized to units. Default 35. */
  layer?: number
  /** For a `.pt` encoder: settings that its weights do not contain. */
  encoderConfig?: UnitExtractorSource['config']
  /** Such as `'naver-ai/xlsr-token-Voicebox'`. Default: none; replies are then text and units. */
  voicebox?: string | UsdmVoicebox | null
  /** Such as `'nvidia/bigvgan_22khz_80band'`, or `'griffin-lim'`, which needs no weights. Default: none. */
  vocoder?: string | UsdmVocoder | null
}

export interface LoadUsdmOptions extends Omit<ResolveModelOptions, 'files' | 'revision'> {
  /** Default 'cpu'. */
  device?: Device
  /** Dtype of the language model. Default: that of its files; bfloat16 for the original's model cache. */
  dtype?: DType
  /**
   * Keep parts on the CPU while they are idle, so that the device needs memory only for the largest part. Parts are moved for each
   * reply. Default false.
   */
  offload?: boolean
  /** Do not load the Voicebox and the vocoder: replies are text and units. Default false. */
  textOnly?: boolean
}

/** Published parts: Hub repositories, and files of the original's model cache. */
export const USDM_PUBLISHED = {
  llm: 'naver-ai/USDM-DailyTalk',
  voicebox: 'naver-ai/xlsr-token-Voicebox',
  vocoder: 'nvidia/bigvgan_22khz_80band',
  encoder: 'xlsr2_1b_v2.pt',
  kmeans: 'kmeans_10k.npy',
} as const
const GRIFFIN_LIM = 'griffin-lim'
const WHERE = 'Usdm.fromPretrained'
const SOURCES: readonly (keyof UsdmSource)[] = [
  'llm',
  'adapter',
  'tokenizer',
  'encoder',
  'kmeans',
  'layer',
  'encoderConfig',
  'voicebox',
  'vocoder',
]

/** Load the parts. `own` lists those that were loaded here, which the caller must dispose. */
export async function loadUsdm(
  source: string | UsdmSource,
  options: LoadUsdmOptions,
): Promise<{ parts: UsdmParts; own: { dispose(): void }[] }> {
  const known = HUB_OPTIONS.filter((name) => name !== 'revision')
  requireOptions(WHERE, options, ['device', 'dtype', 'offload', 'textOnly', ...known])
  const { device, offload = false, textOnly = false, dtype, ...hub } = options
  for (const [name, value] of Object.entries({ offload, textOnly })) {
    requireBoolean(WHERE, name, value)
  }
  if (offload && device === undefined) {
    throw new ConfigError(
      `${WHERE}: expected a device with offload, got none. Set device to the one that parts work on.`,
      { argument: 'device' },
    )
  }
  const { from, load } =
    typeof source === 'string' ? await folder(source, { dtype, ...hub }) : { from: source, load: { dtype, ...hub } }
  requireOptions(WHERE, from, SOURCES)
  const {
    llm,
    adapter,
    tokenizer = adapter ?? llm,
    encoder,
    kmeans,
    layer = 35,
    encoderConfig,
    voicebox = null,
    vocoder = null,
  } = from
  if (adapter !== undefined && typeof llm !== 'string') {
    throw new ConfigError(
      `${WHERE}: expected the path of a language model with adapter, got a loaded DecoderLM. Merge the adapter into it first.`,
      { adapter },
    )
  }
  const place = defined({ device: offload ? undefined : device })
  const { dtype: llmType, ...hubOptions } = load
  const own: { dispose(): void }[] = []
  const owned = <T extends { dispose(): void }>(part: T): T => {
    own.push(part)
    return part
  }
  const voiceboxOf = async (from: UsdmSource['voicebox']) =>
    typeof from === 'string'
      ? owned(await UnitVoicebox.fromPretrained(from, { ...place, ...defined(hubOptions) }))
      : from
  const vocoderOf = async (from: UsdmSource['vocoder']) => {
    if (from === GRIFFIN_LIM) return new GriffinLimVocoder()
    if (typeof from !== 'string') return from
    // Weight norm is only needed for training; folding it is faster.
    return owned(await BigVGAN.fromPretrained(from, { ...place, ...defined(hubOptions), weightNorm: false }))
  }
  try {
    const textTokenizer = await tokenizerOf(tokenizer, hubOptions)
    const centroids = typeof kmeans === 'string' ? owned(await KMeans.fromFile(kmeans, place)) : kmeans
    const units = owned(
      await UnitExtractor.fromPretrained({
        ...{ encoder, kmeans: centroids, layer },
        ...(encoderConfig && { config: encoderConfig }),
        ...(typeof encoder === 'string' && { ...place, ...(existsSync(encoder) ? {} : defined(hubOptions)) }),
      }),
    )
    const parts: UsdmParts = {
      llm:
        typeof llm === 'string'
          ? owned(await llmOf(llm, adapter, textTokenizer, { ...place, ...defined({ dtype: llmType, ...hubOptions }) }))
          : llm,
      tokenizer: textTokenizer,
      units,
      voicebox: textOnly ? null : await voiceboxOf(voicebox),
      vocoder: textOnly ? null : await vocoderOf(vocoder),
      ...(offload && device && { offload: device }),
    }
    return { parts, own }
  } catch (error) {
    for (const one of own) one.dispose()
    throw error
  }
}

type Loading = Pick<LoadUsdmOptions, 'dtype'> & Omit<ResolveModelOptions, 'files' | 'revision'>

/** Return the parts in a folder: one that `save` wrote, or the original's model cache. */
async function folder(directory: string, options: Loading): Promise<{ from: UsdmSource; load: Loading }> {
  requireSaved(directory, 'Usdm')
  const own = join(directory, 'config.json')
  const inCache = (name: 'encoder' | 'kmeans') => join(directory, USDM_PUBLISHED[name])
  if (!existsSync(own)) {
    if (existsSync(inCache('encoder')) && existsSync(inCache('kmeans'))) {
      const { llm, voicebox, vocoder } = USDM_PUBLISHED
      const from = { llm, voicebox, vocoder, encoder: inCache('encoder'), kmeans: inCache('kmeans') }
      return { from, load: { cacheDir: directory, ...options, dtype: options.dtype ?? 'bfloat16' } }
    }
    throw new CheckpointError(
      `${directory}: expected the config.json that Usdm.save writes, or ${USDM_PUBLISHED.encoder} and ${USDM_PUBLISHED.kmeans} of the original's model cache, got neither.`,
      { file: directory },
    )
  }
  const { modelType, layer, voicebox, vocoder } = await readConfig(directory)
  if (modelType !== 'usdm' || !Number.isSafeInteger(layer) || (layer as number) < 1) {
    throw new CheckpointError(
      `${own}: expected model_type 'usdm' and a positive integer layer, got ${JSON.stringify(modelType)} and ${JSON.stringify(layer)}.`,
      { file: own },
    )
  }
  const from: UsdmSource = {
    llm: join(directory, 'llm'),
    encoder: join(directory, 'encoder'),
    kmeans: join(directory, 'kmeans.npy'),
    layer: layer as number,
    ...(voicebox === true && { voicebox: join(directory, 'voicebox') }),
    ...(vocoder === true && { vocoder: join(directory, 'vocoder') }),
    ...(vocoder === GRIFFIN_LIM && { vocoder }),
  }
  return { from, load: options }
}

/** Return whether a folder is one that `save` wrote, or the original's model cache. */
export const isWholeUsdm = (directory: string): boolean =>
  [USDM_PUBLISHED.encoder, 'encoder'].some((name) => existsSync(join(directory, name)))

async function tokenizerOf(
  from: string | UsdmTokenizer | DecoderLM,
  hub: Omit<ResolveModelOptions, 'files'>,
): Promise<UsdmTokenizer> {
  if (from instanceof UsdmTokenizer) return from
  if (typeof from !== 'string') {
    throw argumentError(WHERE, 'tokenizer', 'a path or a UsdmTokenizer, as llm is loaded already', from)
  }
  const directory = existsSync(from) ? from : await resolveModel(from, { ...defined(hub), files: TOKENIZER_FILES })
  const tokenizer = await Tokenizer.fromPretrained(directory)
  if (tokenizer.tokenToId(CORRESPOND) === undefined) {
    throw new ConfigError(
      `${WHERE}: expected a tokenizer with ${CORRESPOND}, got ${from} without it. Use a language model that was trained on speech units.`,
      { file: from, token: CORRESPOND },
    )
  }
  return UsdmTokenizer.extend(tokenizer)
}

/** Load the language model, with the adapters merged into it. */
async function llmOf(
  from: string,
  adapter: string | undefined,
  tokenizer: UsdmTokenizer,
  options: LoadNetworkOptions,
): Promise<DecoderLM> {
  const model = await DecoderLM.fromPretrained(from, options)
  if (adapter === undefined) return model
  try {
    const needsRows = (model.config.vocabSize ?? 0) < tokenizer.vocabSize
    if (needsRows) model.resizeTokenEmbeddings(tokenizer.vocabSize)
    const peft = await PeftModel.fromPretrained(model, adapter)
    const bringsRows = Object.values(peft.peftConfig).some(({ modulesToSave }) =>
      modulesToSave?.includes('embed_tokens'),
    )
    if (needsRows && !bringsRows) {
      throw new ConfigError(
        `${WHERE}: expected embeddings of the speech tokens in ${from} or ${adapter}, got none. Use the model that the adapters were trained on.`,
        { adapter },
      )
    }
    return peft.mergeAndUnload()
  } catch (error) {
    model.dispose()
    throw error
  }
}

/** Save all parts. @throws ConfigError for a part without `save`; DataError if the folder is not writable */
export async function saveUsdm(directory: string, usdm: Omit<Required<UsdmParts>, 'offload'>): Promise<void> {
  requireString('Usdm.save', 'directory', directory)
  const { llm, tokenizer, units, voicebox, vocoder } = usdm
  const isGriffinLim = vocoder instanceof GriffinLimVocoder
  const savePart = async (folder: string, name: string, part: unknown) => {
    const { save } = part as { save?: (directory: string) => Promise<void> }
    if (typeof save !== 'function') throw argumentError('Usdm.save', name, 'a part with save()', part)
    await save.call(part, join(folder, name))
  }
  const save = async (folder: string) => {
    await savePart(folder, 'llm', llm)
    tokenizer.saveTo(join(folder, 'llm'))
    await savePart(folder, 'encoder', units.encoder.network)
    await units.kmeans.save(join(folder, 'kmeans.npy'))
    if (voicebox) await savePart(folder, 'voicebox', voicebox)
    if (vocoder && !isGriffinLim) await savePart(folder, 'vocoder', vocoder)
    await writeJson(join(folder, 'config.json'), {
      model_type: 'usdm',
      layer: units.layer,
      voicebox: voicebox !== null,
      vocoder: isGriffinLim ? GRIFFIN_LIM : vocoder !== null,
    })
  }
  await writeFolderAtomically(directory, DataError, save, (folder) =>
    partFiles(folder, [...(voicebox ? [] : ['voicebox']), ...(vocoder && !isGriffinLim ? [] : ['vocoder'])]),
  )
}
