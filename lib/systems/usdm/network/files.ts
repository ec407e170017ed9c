/** Files of a whole USDM: the published parts, each in its own layout, and the folder that `Usdm.save` writes. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { makeDirectory } from '../../../base/atomic.js'
import { defined, misuse, requireOptions, requireString } from '../../../base/check.js'
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

/** Where the parts are: folders, files, names of published weights, repositories of the hub; or the parts themselves. */
export interface UsdmSource {
  /** The language model after fine-tuning, such as `'naver-ai/USDM-DailyTalk'`. */
  llm: string | DecoderLM
  /**
   * A folder of adapters, as fine-tuning with LoRA leaves it, for `llm` as it was before; they are merged into it. Default: none.
   */
  adapter?: string
  /** A folder or repository. Default: that of `adapter`, else of `llm`. */
  tokenizer?: string | UsdmTokenizer
  /** XLS-R, such as `xlsr2_1b_v2.pt`, or another; as `UnitExtractor.fromPretrained` takes it. */
  encoder: UnitExtractorSource['encoder']
  /** Centroids, such as `kmeans_10k.npy`. */
  kmeans: string | Tensor | KMeans
  /** Of the encoder, whose output becomes units. Default 35. */
  layer?: number
  /** Of a `.pt` encoder, what its weights do not tell. */
  encoderConfig?: UnitExtractorSource['config']
  /** Such as `'naver-ai/xlsr-token-Voicebox'`. Default: none, so that replies are text and units. */
  voicebox?: string | UsdmVoicebox | null
  /** Such as `'nvidia/bigvgan_22khz_80band'`, or `'griffin-lim'`, which needs no weights. Default: none. */
  vocoder?: string | UsdmVocoder | null
}

export interface LoadUsdmOptions extends Omit<ResolveModelOptions, 'files' | 'revision'> {
  /** Default 'cpu'. */
  device?: Device
  /** Of the language model. Default: that of its files; of the original's model cache bfloat16, half of them. */
  dtype?: DType
  /**
   * Parts are on the CPU while they do not work: the device needs room for the largest alone. Each is moved for each reply. Default
   * false.
   */
  offload?: boolean
  /** Loads no Voicebox and no vocoder: replies are text and units. Default false. */
  textOnly?: boolean
}

/** The published parts: repositories, and files of the original's model cache. */
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

/** The parts, and of them those that were loaded here. */
export async function loadUsdm(
  source: string | UsdmSource,
  options: LoadUsdmOptions,
): Promise<{ parts: UsdmParts; own: { dispose(): void }[] }> {
  const known = HUB_OPTIONS.filter((name) => name !== 'revision')
  requireOptions(WHERE, options, ['device', 'dtype', 'offload', 'textOnly', ...known])
  const { device, offload = false, textOnly = false, dtype, ...hub } = options
  for (const [name, value] of Object.entries({ offload, textOnly })) {
    if (typeof value !== 'boolean') throw misuse(WHERE, name, 'true or false', value)
  }
  if (offload && device === undefined) {
    throw new ConfigError(`${WHERE}: offload needs the device that parts leave`, { argument: 'device' })
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
    throw new ConfigError(`${WHERE}: adapter is for a language model that is loaded, and one was given`, { adapter })
  }
  const place = defined({ device: offload ? undefined : device })
  const { dtype: llmType, ...wire } = load
  const own: { dispose(): void }[] = []
  const mine = <T extends { dispose(): void }>(part: T): T => {
    own.push(part)
    return part
  }
  const voiceboxOf = async (from: UsdmSource['voicebox']) =>
    typeof from === 'string' ? mine(await UnitVoicebox.fromPretrained(from, { ...place, ...defined(wire) })) : from
  const vocoderOf = async (from: UsdmSource['vocoder']) => {
    if (from === GRIFFIN_LIM) return new GriffinLimVocoder()
    if (typeof from !== 'string') return from
    // Folded it is quicker, and nobody trains it here.
    return mine(await BigVGAN.fromPretrained(from, { ...place, ...defined(wire), weightNorm: false }))
  }
  try {
    const words = await tokenizerOf(tokenizer, wire)
    const centroids = typeof kmeans === 'string' ? mine(await KMeans.fromFile(kmeans, place)) : kmeans
    const units = mine(
      await UnitExtractor.fromPretrained({
        ...{ encoder, kmeans: centroids, layer },
        ...(encoderConfig && { config: encoderConfig }),
        ...(typeof encoder === 'string' && { ...place, ...(existsSync(encoder) ? {} : defined(wire)) }),
      }),
    )
    const parts: UsdmParts = {
      llm:
        typeof llm === 'string'
          ? mine(await llmOf(llm, adapter, words, { ...place, ...defined({ dtype: llmType, ...wire }) }))
          : llm,
      tokenizer: words,
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

/** The parts of a folder: what `save` wrote, or the original's model cache. */
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
      `${directory} holds no USDM: neither the config.json that Usdm.save writes, nor ${USDM_PUBLISHED.encoder} and ${USDM_PUBLISHED.kmeans}, as the original's model cache`,
      { file: directory },
    )
  }
  const { modelType, layer, voicebox, vocoder } = await readConfig(directory)
  if (modelType !== 'usdm' || !Number.isSafeInteger(layer) || (layer as number) < 1) {
    throw new CheckpointError(
      `${own} is of model type ${JSON.stringify(modelType)}, layer ${JSON.stringify(layer)}; a whole USDM has 'usdm', and the layer of its encoder`,
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

/** Whether a folder is what `save` wrote, or the original's model cache. */
export const isWholeUsdm = (directory: string): boolean =>
  [USDM_PUBLISHED.encoder, 'encoder'].some((name) => existsSync(join(directory, name)))

async function tokenizerOf(
  from: string | UsdmTokenizer | DecoderLM,
  hub: Omit<ResolveModelOptions, 'files'>,
): Promise<UsdmTokenizer> {
  if (from instanceof UsdmTokenizer) return from
  if (typeof from !== 'string') throw misuse(WHERE, 'tokenizer', 'given with a language model that is loaded', from)
  const directory = existsSync(from) ? from : await resolveModel(from, { ...defined(hub), files: TOKENIZER_FILES })
  const tokenizer = await Tokenizer.fromPretrained(directory)
  if (tokenizer.tokenToId(CORRESPOND) === undefined) {
    throw new ConfigError(
      `${WHERE}: the tokenizer of ${from} has no ${CORRESPOND}: its language model was not trained to speak`,
      { file: from, token: CORRESPOND },
    )
  }
  return UsdmTokenizer.extend(tokenizer)
}

/** The language model, with what its adapters add. */
async function llmOf(
  from: string,
  adapter: string | undefined,
  tokenizer: UsdmTokenizer,
  options: LoadNetworkOptions,
): Promise<DecoderLM> {
  const model = await DecoderLM.fromPretrained(from, options)
  if (adapter === undefined) return model
  try {
    const grows = (model.config.vocabSize ?? 0) < tokenizer.vocabSize
    if (grows) model.resizeTokenEmbeddings(tokenizer.vocabSize)
    const peft = await PeftModel.fromPretrained(model, adapter)
    const bringsRows = Object.values(peft.peftConfig).some(({ modulesToSave }) =>
      modulesToSave?.includes('embed_tokens'),
    )
    if (grows && !bringsRows) {
      throw new ConfigError(
        `${WHERE}: neither ${from} nor ${adapter} has embeddings for the tokens of speech; give the model that the adapters were trained on`,
        { adapter },
      )
    }
    return peft.mergeAndUnload()
  } catch (error) {
    model.dispose()
    throw error
  }
}

/** Writes them all. @throws ConfigError for a part that has no `save`; DataError where the folder refuses */
export async function saveUsdm(directory: string, usdm: Omit<Required<UsdmParts>, 'offload'>): Promise<void> {
  requireString('Usdm.save', 'directory', directory)
  const { llm, tokenizer, units, voicebox, vocoder } = usdm
  const save = async (name: string, part: unknown) => {
    const { save } = part as { save?: (directory: string) => Promise<void> }
    if (typeof save !== 'function') throw misuse('Usdm.save', name, 'a part with save()', part)
    await save.call(part, join(directory, name))
  }
  makeDirectory(directory, DataError)
  await save('llm', llm)
  tokenizer.saveTo(join(directory, 'llm'))
  await save('encoder', units.encoder.network)
  await units.kmeans.save(join(directory, 'kmeans.npy'))
  const isGriffinLim = vocoder instanceof GriffinLimVocoder
  if (voicebox) await save('voicebox', voicebox)
  if (vocoder && !isGriffinLim) await save('vocoder', vocoder)
  await writeJson(join(directory, 'config.json'), {
    model_type: 'usdm',
    layer: units.layer,
    voicebox: voicebox !== null,
    vocoder: isGriffinLim ? GRIFFIN_LIM : vocoder !== null,
  })
}
