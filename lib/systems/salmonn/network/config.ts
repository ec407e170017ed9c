import { requireKnown } from '../../../base/arguments.js'
import { requireObject, requireOneOf, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { type BeatsConfig, beatsKeys, beatsSizes } from '../../../models/beats/config.js'
import { completedConfig } from '../../../models/config-keys.js'
import { completed, type DecoderLMConfig, sizes as llmSizes } from '../../../models/decoder/config.js'
import { configOf, type NetworkConfig } from '../../../models/network.js'
import { qFormerKeys } from '../../../models/q-former/files.js'
import type { QFormerConfig } from '../../../models/q-former/q-former.js'
import { type WhisperConfig, whisperKeys, sizes as whisperSizes } from '../../../models/whisper/config.js'
import { QUANTIZATION_SCHEMES, type QuantizationScheme } from '../../../nn/quantized-weight.js'
import { type PackingOptions, packingOf } from '../../../peft/quantize.js'
import { checkTemplate, SALMONN_TEMPLATE } from '../data/prompt.js'

/** LoRA adapter of the language model. Defaults are the published values. */
export interface SalmonnLoraConfig {
  /** Rank. Default 8. */
  r?: number
  /** Scale times the rank. Default 32. */
  loraAlpha?: number
  /** Dropout of the adapter's input. Default 0.1. */
  loraDropout?: number
  /** Layers with an adapter. Default q_proj and v_proj. */
  targetModules?: string[]
}

/** Configuration of the parts of a SALMONN. Defaults are the published values. */
export interface SalmonnConfig extends NetworkConfig {
  /** Configuration, or a name for `Whisper.fromConfig`. Default 'large-v2'. */
  whisper?: WhisperConfig | string
  /** Configuration or name of BEATs; null for no BEATs. Default 'as2m'. */
  beats?: BeatsConfig | string | null
  /** Configuration or name of the language model. Default 'vicuna-13b-v1.1'. */
  llm?: DecoderLMConfig | string
  /** Q-Former, whose `encoderWidth` follows from the encoders. Default: windows of 17 frames, 2 layers, 1 query. */
  qformer?: QFormerConfig
  /** null: no LoRA. */
  lora?: SalmonnLoraConfig | null
  /** Maximum length of a training target in tokens, end included. Default 300. */
  maxTextLength?: number
  /** End of a training target. Default '</s>', or the tokenizer's end-of-sequence token if it has no such token. */
  endSymbol?: string
  /** Prompt template with `{}` for the user's text; see `salmonnTemplate`. Default 'USER: {}\nASSISTANT:'. */
  template?: string
}

/** Configuration with all defaults filled in. */
export interface CompleteSalmonnConfig extends SalmonnConfig {
  whisper: WhisperConfig
  beats: BeatsConfig | null
  llm: DecoderLMConfig
  qformer: QFormerConfig
  lora: Required<SalmonnLoraConfig> | null
  maxTextLength: number
  endSymbol: string
  template: string
}

/** Configurations of the two published models. */
export const salmonnSizes: Record<string, SalmonnConfig> = {
  '7b': { llm: 'vicuna-7b-v1.5' },
  '13b': { llm: 'vicuna-13b-v1.1' },
}

const KEYS = ['whisper', 'beats', 'llm', 'qformer', 'lora', 'maxTextLength', 'endSymbol', 'template']
const LORA: Required<SalmonnLoraConfig> = { r: 8, loraAlpha: 32, loraDropout: 0.1, targetModules: ['q_proj', 'v_proj'] }

/** @throws ConfigError for an unknown key, naming the nearest, and for a part that does not fit */
export function salmonnConfig(given: SalmonnConfig | string): CompleteSalmonnConfig {
  const config = configOf('Salmonn', given, salmonnSizes)
  requireKnown('SalmonnConfig', config, KEYS)
  const { lora = {}, maxTextLength = 300, endSymbol = '</s>', template = SALMONN_TEMPLATE } = config
  if (lora !== null) requireKnown('Salmonn: lora', lora, Object.keys(LORA))
  requireWhole('Salmonn', 'maxTextLength', maxTextLength, 1)
  const where = 'Salmonn'
  const whisperConfig = configOf('WhisperEncoder', config.whisper ?? 'large-v2', whisperSizes)
  const whisper = completedConfig(`${where}: whisper`, whisperKeys, whisperConfig)
  const beatsConfig = config.beats === null ? null : configOf('Beats', config.beats ?? 'as2m', beatsSizes)
  const beats = beatsConfig && completedConfig(`${where}: beats`, beatsKeys, beatsConfig)
  const encoderWidth = (whisper.dModel as number) + (beats ? (beats.encoderEmbedDim as number) : 0)
  const qformer: QFormerConfig = { window: 17, stride: 17, ...config.qformer, encoderWidth }
  if (config.qformer?.encoderWidth !== undefined && config.qformer.encoderWidth !== encoderWidth) {
    throw new ConfigError(
      `Salmonn: expected qformer.encoderWidth ${encoderWidth} of the encoders, got ${config.qformer.encoderWidth}. Leave it out.`,
      { qformer: config.qformer },
    )
  }
  return {
    whisper,
    beats,
    llm: completed(configOf('DecoderLM', config.llm ?? 'vicuna-13b-v1.1', llmSizes)),
    qformer: completedConfig(`${where}: qformer`, qFormerKeys, qformer),
    lora: lora === null ? null : { ...LORA, ...lora },
    maxTextLength,
    endSymbol,
    template: checkTemplate(template),
  }
}

/** Convert seconds of a window, as in the published configuration, to frames: 0.333333 is 17. */
export const salmonnWindowFrames = (seconds: number): number => Math.max(1, Math.round((1500 * seconds) / 30))

/** Return the quantization of the language model's layers, from a scheme or its options. */
export function salmonnPacking(
  where: string,
  given: QuantizationScheme | PackingOptions | false | undefined,
): Required<PackingOptions> | undefined {
  if (given === undefined || given === false) return undefined
  if (typeof given === 'string') {
    requireOneOf(where, 'quantize', given, QUANTIZATION_SCHEMES)
    return packingOf(where, { scheme: given })
  }
  requireObject(where, 'quantize', given)
  return packingOf(`${where}: quantize`, given)
}
