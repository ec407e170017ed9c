import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { filesIn, partFiles, writeFolderAtomically } from '../../../base/atomic-folder.js'
import { argumentError, defined, requireOptions } from '../../../base/check.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { readCheckpointJson } from '../../../files/json/json.js'
import { resolveModel } from '../../../hub/resolve.js'
import { configurations, weightsHash } from '../../../kit/fingerprint.js'
import type { DecoderLMConfig } from '../../../models/decoder/config.js'
import { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import { type InternVLConfig, internVLSizes } from '../../../models/internvl/config.js'
import { InternVL } from '../../../models/internvl/internvl.js'
import { type LoadNetworkOptions, readConfig } from '../../../models/pretrained.js'
import type { Module } from '../../../nn/index.js'
import { quantizationOf } from '../../../nn/quantized-weight.js'
import { PeftModel, peftModelOf } from '../../../peft/model.js'
import type { Device, DType } from '../../../tensor/index.js'
import { Tokenizer } from '../../../text/index.js'
import { MODEL_SETTINGS } from '../configuration/settings.js'
import { keyOf } from '../data/media.js'
import type { EmoVerse, EmoVerseParts } from './network.js'
import { type NewSpeechBranch, SpeechBranch } from './speech.js'

/** A network and the adapters of its stages. Each stage was trained on the network with the adapters of the stages before. */
export interface EmoVerseStages {
  /** InternVL or text-only language model: a folder, a GGUF file, a repository of the Hugging Face hub, or the name of published weights. */
  base: string
  /** Folders of adapters in PEFT's layout, in stage order. */
  adapters: readonly string[]
}

/** Settings of an EmoVerse without its networks and tokenizer. */
type Settings = Omit<EmoVerseParts, 'model' | 'tokenizer' | 'speech'>

export interface LoadEmoVerseOptions extends Settings {
  device?: Device
  /** Dtype of the weights. Default float32. */
  dtype?: DType
  /**
   * Quantization of the language model's linear layers, such as 'nf4' or 'int8'. Adapters then stay separate instead of being merged.
   * Default false.
   */
  quantize?: LoadNetworkOptions['quantize']
  /** Folder of the tokenizer. Default: that of the network. */
  tokenizer?: string
  /** Adds a new audio encoder to a model without one; a stage can train it. */
  speech?: NewSpeechBranch
}

export interface NewEmoVerseOptions extends Omit<LoadEmoVerseOptions, 'tokenizer' | 'quantize' | 'speech'> {
  tokenizer: Tokenizer
  seed?: number
}

const SETTINGS = [...MODEL_SETTINGS.names, 'vision'] as const
const SPEECH = 'speech'
const INTERNVL_TYPES = ['internvl_chat', 'internvl']

/** Load the parts of an EmoVerse from files. */
export async function loadEmoVerse(
  from: string | EmoVerseStages,
  options: LoadEmoVerseOptions = {},
): Promise<EmoVerseParts> {
  const where = 'EmoVerse.fromPretrained'
  requireOptions(where, options, [...SETTINGS, 'device', 'dtype', 'quantize', 'tokenizer', 'speech'])
  const { base, adapters } = typeof from === 'string' ? { base: from, adapters: [] } : (from ?? {})
  requireForm(where, 'from', { base, adapters }, { base: 'string', adapters: ['string'] })
  const {
    device,
    dtype = 'float32',
    quantize = false,
    tokenizer: tokenizerFolder = base,
    speech: newSpeech,
    ...settings
  } = options
  const tokenizer = await Tokenizer.fromPretrained(tokenizerFolder)
  const loading = { dtype, quantize, ...(device && { device }) }
  const model = (await isInternVL(base))
    ? await InternVL.fromPretrained(base, loading)
    : await DecoderLM.fromPretrained(base, loading)
  let speech: SpeechBranch | null = null
  try {
    const { hiddenSize = 4096 } = (model instanceof InternVL ? model.language_model : model).config
    speech = await loadSpeech(
      base,
      newSpeech && (await speechSettings(newSpeech, adapters)),
      hiddenSize,
      defined({ device }),
    )
    for (const folder of adapters) await addStage({ model, speech }, folder)
    return { model, tokenizer, ...settings, ...(speech && { speech }) }
  } catch (error) {
    speech?.dispose()
    model.dispose()
    throw error
  }
}

/** Return the settings of a new speech branch, with the Q-Former of the first stage that trained one. */
async function speechSettings(speech: NewSpeechBranch, stages: readonly string[]): Promise<NewSpeechBranch> {
  const trained = stages.map((folder) => join(folder, SPEECH)).find((folder) => existsSync(join(folder, 'config.json')))
  if (trained === undefined || speech.qformer !== undefined) return speech
  const { qformer } = (await readCheckpointJson(join(trained, 'config.json'))) as {
    qformer?: NewSpeechBranch['qformer']
  }
  return { ...speech, ...(qformer && { qformer }) }
}

/** Load the speech branch of the base, or create a new one; in float32, as in SALMONN. */
async function loadSpeech(
  base: string,
  newSpeech: NewSpeechBranch | undefined,
  hiddenSize: number,
  factory: { device?: Device },
): Promise<SpeechBranch | null> {
  const folder = join(base, SPEECH)
  if (!existsSync(join(folder, 'config.json')))
    return newSpeech ? SpeechBranch.begin(newSpeech, hiddenSize, factory) : null
  if (newSpeech === undefined) return SpeechBranch.fromPretrained(folder, factory)
  throw new ConfigError(
    `EmoVerse.fromPretrained.speech: expected a model without a speech branch, got ${base}, which has one. Leave the option out.`,
    { argument: 'speech' },
  )
}

/** Return whether a folder or repository holds an InternVL. Without config.json it is a language model. */
async function isInternVL(base: string): Promise<boolean> {
  const directory = base.endsWith('.gguf') ? base : await resolveModel(base)
  if (!existsSync(join(directory, 'config.json'))) return false
  return INTERNVL_TYPES.includes((await readConfig(directory)).modelType as string)
}

/** Return whether a network has quantized weights, into which adapters cannot be merged. */
export const isPacked = (model: Module): boolean =>
  model.modules().some((module) => quantizationOf(module) !== undefined)

/**
 * Add the result of a stage: merge its adapter into the weights, or add it frozen to quantized weights with those before it; and load its
 * speech branch.
 * @throws CheckpointError for a result that does not fit the model
 */
export async function addStage(
  { model, speech }: { model: EmoVerseParts['model']; speech: SpeechBranch | null },
  folder: string,
): Promise<void> {
  const speechFolder = join(folder, SPEECH)
  if (existsSync(speechFolder)) {
    if (speech === null) {
      const what = `${folder} has a trained one and the model has none. Create one with \`speech\``
      throw new ConfigError(`speech: expected a speech branch, but ${what}.`, { argument: 'speech' })
    }
    await speech.restore(speechFolder)
    if (!existsSync(join(folder, 'adapter_config.json'))) return
  }
  await addAdapter(model, folder)
}

/** Save the trained parts of the speech branch of a stage. */
export const saveSpeechStage = (speech: SpeechBranch, folder: string): Promise<void> =>
  speech.save(join(folder, SPEECH), { whole: false })

export async function addAdapter(model: Module, folder: string): Promise<void> {
  if (!isPacked(model)) {
    const peft = await PeftModel.fromPretrained(model, folder)
    peft.mergeAndUnload()
    return
  }
  const before = peftModelOf(model)
  const adapterName = `stage-${(before?.adapterNames.length ?? 0) + 1}`
  if (before) {
    await before.loadAdapter(folder, { adapterName })
    before.setAdapter(before.adapterNames)
  } else {
    await PeftModel.fromPretrained(model, folder, { adapterName })
  }
}

/** Return the fingerprint of a model: its weights, configuration and prompt settings. */
export async function baseHash(model: EmoVerse): Promise<string> {
  const { template, system, media, audio, vision } = model
  const facts = JSON.stringify({ template, system, media, audio, vision: vision?.recipe ?? null })
  return keyOf(facts, configurations(model.whole), await weightsHash(model.whole))
}

/** Create the parts of an EmoVerse with random weights. */
export function newEmoVerse(
  config: InternVLConfig | DecoderLMConfig | string,
  options: NewEmoVerseOptions,
): EmoVerseParts {
  const where = 'EmoVerse.fromConfig'
  requireOptions(where, options, [...SETTINGS, 'device', 'dtype', 'tokenizer', 'seed'])
  const { tokenizer, template, system, media, vision, audio, ...rest } = options
  if (!(tokenizer instanceof Tokenizer)) throw argumentError(where, 'tokenizer', 'a Tokenizer', tokenizer)
  const isInternVLConfig =
    typeof config === 'string' ? Object.hasOwn(internVLSizes, config) : config !== null && 'llmConfig' in config
  const model = isInternVLConfig
    ? InternVL.fromConfig(config as InternVLConfig, rest)
    : DecoderLM.fromConfig(config as DecoderLMConfig, rest)
  return { model, tokenizer, ...defined({ template, system, media, vision, audio }) }
}

/**
 * Write a folder that {@link loadEmoVerse} and transformers read: the network with its tokenizer.
 * @param also writes more files before the folder gets its final name
 */
export const saveEmoVerse = (
  folder: string,
  { model, tokenizer, speech }: Pick<EmoVerseParts, 'model' | 'tokenizer' | 'speech'>,
  also?: (temporary: string) => Promise<void>,
): Promise<void> =>
  writeFolderAtomically(
    folder,
    CheckpointError,
    async (temporary) => {
      await model.save(temporary)
      tokenizer.saveTo(temporary)
      await speech?.save(join(temporary, SPEECH))
      await also?.(temporary)
    },
    (earlier) => [...partFiles(earlier, speech ? [] : [SPEECH]), ...filesIn(earlier, /^stages\.json$/)],
  )
