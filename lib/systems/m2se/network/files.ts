import { defined, misuse, requireOptions } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import type { DecoderLMConfig } from '../../../models/decoder/config.js'
import { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import { PeftModel } from '../../../peft/model.js'
import type { Device, DType } from '../../../tensor/index.js'
import { Tokenizer } from '../../../text/index.js'
import { writeFolder } from '../../../train/trainer/folders.js'
import type { EmoVerseTemplate } from '../data/prompt.js'
import type { EmoVerseParts } from './network.js'

/** A network and the adapters of its stages, each of which was trained on what those before it made of the network. */
export interface EmoVerseStages {
  /** A folder, a GGUF file, a repository of the hub, or the name of published weights. */
  base: string
  /** Folders of adapters in PEFT's layout, in the order of the stages. */
  adapters: readonly string[]
}

export interface LoadEmoVerseOptions {
  device?: Device
  /** Default float32. */
  dtype?: DType
  /** Where the tokenizer is. Default: with the network. */
  tokenizer?: string
  template?: EmoVerseTemplate
  system?: string | null
}

export interface NewEmoVerseOptions extends Omit<LoadEmoVerseOptions, 'tokenizer'> {
  tokenizer: Tokenizer
  seed?: number
}

const OPTIONS = ['device', 'dtype', 'tokenizer', 'template', 'system'] as const

/** The parts of an EmoVerse that files hold. */
export async function loadEmoVerse(
  from: string | EmoVerseStages,
  options: LoadEmoVerseOptions = {},
): Promise<EmoVerseParts> {
  const where = 'EmoVerse.fromPretrained'
  requireOptions(where, options, OPTIONS)
  const { base, adapters } = typeof from === 'string' ? { base: from, adapters: [] } : (from ?? {})
  requireForm(where, 'from', { base, adapters }, { base: 'string', adapters: ['string'] })
  const { device, dtype = 'float32', tokenizer: words = base, ...rest } = options
  const tokenizer = await Tokenizer.fromPretrained(words)
  // Blocks of a GGUF file cannot take adapters in.
  const model = await DecoderLM.fromPretrained(base, { dtype, quantize: false, ...(device && { device }) } as object)
  try {
    for (const adapter of adapters) (await PeftModel.fromPretrained(model, adapter)).mergeAndUnload()
    return { model, tokenizer, ...rest }
  } catch (error) {
    model.dispose()
    throw error
  }
}

/** The parts of an EmoVerse with random weights. */
export function newEmoVerse(config: DecoderLMConfig | string, options: NewEmoVerseOptions): EmoVerseParts {
  const where = 'EmoVerse.fromConfig'
  requireOptions(where, options, [...OPTIONS, 'seed'])
  const { tokenizer, template, system, ...rest } = options
  if (!(tokenizer instanceof Tokenizer)) throw misuse(where, 'tokenizer', 'a Tokenizer', tokenizer)
  const model = DecoderLM.fromConfig(config as DecoderLMConfig, rest as object)
  return { model, tokenizer, ...defined({ template, system }) }
}

/** Writes a folder that {@link loadEmoVerse} reads: the network with its tokenizer, which transformers reads too. */
export const saveEmoVerse = (folder: string, { model, tokenizer }: EmoVerseParts): Promise<void> =>
  writeFolder(folder, async (temporary) => {
    await model.save(temporary)
    tokenizer.saveTo(temporary)
  })
