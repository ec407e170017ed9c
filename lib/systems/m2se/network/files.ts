import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { defined, misuse, requireOptions } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
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
import { writeFolder } from '../../../train/trainer/folders.js'
import { keyOf } from '../data/media.js'
import type { EmoVerse, EmoVerseParts } from './network.js'
import { type NewSpeechBranch, SpeechBranch } from './speech.js'

/** A network and the adapters of its stages, each of which was trained on what those before it made of the network. */
export interface EmoVerseStages {
  /** An InternVL or a language model: a folder, a GGUF file, a repository of the hub, or the name of published weights. */
  base: string
  /** Folders of adapters in PEFT's layout, in the order of the stages. */
  adapters: readonly string[]
}

/** What an EmoVerse is beside its networks and tokenizer. */
type Settings = Omit<EmoVerseParts, 'model' | 'tokenizer' | 'speech'>

export interface LoadEmoVerseOptions extends Settings {
  device?: Device
  /** Default float32. */
  dtype?: DType
  /**
   * Packs the linear layers of the language model, such as 'nf4' or 'int8'; adapters then stand beside them, and are not added to
   * them. Default false.
   */
  quantize?: LoadNetworkOptions['quantize']
  /** Where the tokenizer is. Default: with the network. */
  tokenizer?: string
  /** Gives ears to a model that has none; a stage can train them. */
  speech?: NewSpeechBranch
}

export interface NewEmoVerseOptions extends Omit<LoadEmoVerseOptions, 'tokenizer' | 'quantize' | 'speech'> {
  tokenizer: Tokenizer
  seed?: number
}

const SETTINGS = ['template', 'system', 'media', 'vision', 'sounds'] as const
const SPEECH = 'speech'
const PICTURES = ['internvl_chat', 'internvl']

/** The parts of an EmoVerse that files hold. */
export async function loadEmoVerse(
  from: string | EmoVerseStages,
  options: LoadEmoVerseOptions = {},
): Promise<EmoVerseParts> {
  const where = 'EmoVerse.fromPretrained'
  requireOptions(where, options, [...SETTINGS, 'device', 'dtype', 'quantize', 'tokenizer', 'speech'])
  const { base, adapters } = typeof from === 'string' ? { base: from, adapters: [] } : (from ?? {})
  requireForm(where, 'from', { base, adapters }, { base: 'string', adapters: ['string'] })
  const { device, dtype = 'float32', quantize = false, tokenizer: words = base, speech: ears, ...settings } = options
  const tokenizer = await Tokenizer.fromPretrained(words)
  const loading = { dtype, quantize, ...(device && { device }) }
  const model = (await seesPictures(base))
    ? await InternVL.fromPretrained(base, loading)
    : await DecoderLM.fromPretrained(base, loading)
  let speech: SpeechBranch | null = null
  try {
    const { hiddenSize = 4096 } = (model instanceof InternVL ? model.language_model : model).config
    speech = await loadSpeech(base, ears && (await earsOf(ears, adapters)), hiddenSize, defined({ device }))
    for (const folder of adapters) await addStage({ model, speech }, folder)
    return { model, tokenizer, ...settings, ...(speech && { speech }) }
  } catch (error) {
    speech?.dispose()
    model.dispose()
    throw error
  }
}

/** New ears of the Q-Former that the first stage with a trained speech branch was saved with. */
async function earsOf(ears: NewSpeechBranch, stages: readonly string[]): Promise<NewSpeechBranch> {
  const trained = stages.map((folder) => join(folder, SPEECH)).find((folder) => existsSync(join(folder, 'config.json')))
  if (trained === undefined || ears.qformer !== undefined) return ears
  const { qformer } = (await readCheckpointJson(join(trained, 'config.json'))) as {
    qformer?: NewSpeechBranch['qformer']
  }
  return { ...ears, ...(qformer && { qformer }) }
}

/** The ears that a base has, or is given; float32 as in SALMONN. */
async function loadSpeech(
  base: string,
  ears: NewSpeechBranch | undefined,
  hiddenSize: number,
  factory: { device?: Device },
): Promise<SpeechBranch | null> {
  const folder = join(base, SPEECH)
  if (!existsSync(join(folder, 'config.json'))) return ears ? SpeechBranch.begin(ears, hiddenSize, factory) : null
  if (ears === undefined) return SpeechBranch.fromPretrained(folder, factory)
  throw new ConfigError(`EmoVerse.fromPretrained: ${base} has a speech branch already`, { argument: 'speech' })
}

/** Whether a folder or repository holds an InternVL; what has no config.json is a language model. */
async function seesPictures(base: string): Promise<boolean> {
  const directory = base.endsWith('.gguf') ? base : await resolveModel(base)
  if (!existsSync(join(directory, 'config.json'))) return false
  return PICTURES.includes((await readConfig(directory)).modelType as string)
}

/** Whether weights of a network are packed, which cannot take adapters in. */
export const isPacked = (model: Module): boolean =>
  model.modules().some((module) => quantizationOf(module) !== undefined)

/**
 * Adds what a stage trained: an adapter to the weights of a network, where these are packed beside them, frozen, with those before
 * it; and what it made of the ears.
 * @throws CheckpointError for one that does not fit
 */
export async function addStage(
  { model, speech }: { model: EmoVerseParts['model']; speech: SpeechBranch | null },
  folder: string,
): Promise<void> {
  const ears = join(folder, SPEECH)
  if (existsSync(ears)) {
    if (speech === null) {
      throw new ConfigError(
        `${folder} has trained a speech branch, and the model has none: give it one by \`speech\``,
        {
          argument: 'speech',
        },
      )
    }
    await speech.restore(ears)
    if (!existsSync(join(folder, 'adapter_config.json'))) return
  }
  await addAdapter(model, folder)
}

/** Writes what a stage has made of the ears. */
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

/** The fingerprint of a model: of its weights, of how they compute, and of what it makes of records. */
export async function baseHash(model: EmoVerse): Promise<string> {
  const { template, system, media, sounds, vision } = model
  const facts = JSON.stringify({ template, system, media, sounds, vision: vision?.recipe ?? null })
  return keyOf(facts, configurations(model.whole), await weightsHash(model.whole))
}

/** The parts of an EmoVerse with random weights. */
export function newEmoVerse(
  config: InternVLConfig | DecoderLMConfig | string,
  options: NewEmoVerseOptions,
): EmoVerseParts {
  const where = 'EmoVerse.fromConfig'
  requireOptions(where, options, [...SETTINGS, 'device', 'dtype', 'tokenizer', 'seed'])
  const { tokenizer, template, system, media, vision, sounds, ...rest } = options
  if (!(tokenizer instanceof Tokenizer)) throw misuse(where, 'tokenizer', 'a Tokenizer', tokenizer)
  const sees =
    typeof config === 'string' ? Object.hasOwn(internVLSizes, config) : config !== null && 'llmConfig' in config
  const model = sees
    ? InternVL.fromConfig(config as InternVLConfig, rest)
    : DecoderLM.fromConfig(config as DecoderLMConfig, rest)
  return { model, tokenizer, ...defined({ template, system, media, vision, sounds }) }
}

/**
 * Writes a folder that {@link loadEmoVerse} reads: the network with its tokenizer, which transformers reads too.
 * @param also writes into the folder before it appears under its name
 */
export const saveEmoVerse = (
  folder: string,
  { model, tokenizer, speech }: Pick<EmoVerseParts, 'model' | 'tokenizer' | 'speech'>,
  also?: (temporary: string) => Promise<void>,
): Promise<void> =>
  writeFolder(folder, async (temporary) => {
    await model.save(temporary)
    tokenizer.saveTo(temporary)
    await speech?.save(join(temporary, SPEECH))
    await also?.(temporary)
  })
