import { requireKnown } from '../../../base/arguments.js'
import { requireObject, requireOneOf, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { nearest } from '../../../base/words.js'
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

/** The adapter of the language model; what is left out has the published value, in brackets. */
export interface SalmonnLoraConfig {
  /** [8] */
  r?: number
  /** [32] */
  loraAlpha?: number
  /** [0.1] */
  loraDropout?: number
  /** [q_proj and v_proj] */
  targetModules?: string[]
}

/** The parts of a SALMONN; what is left out has the published value, in brackets. */
export interface SalmonnConfig extends NetworkConfig {
  /** A configuration, or a name that `Whisper.fromConfig` knows ['large-v2']. */
  whisper?: WhisperConfig | string
  /** ['as2m'] null: Whisper hears alone. */
  beats?: BeatsConfig | string | null
  /** ['vicuna-13b-v1.1'] */
  llm?: DecoderLMConfig | string
  /** Its `encoderWidth` follows from the encoders. [windows of 17 frames, 2 layers, 1 query] */
  qformer?: QFormerConfig
  /** null: the language model has none. */
  lora?: SalmonnLoraConfig | null
  /** Longest answer to learn from, in tokens, its end included [300]. */
  maxTextLength?: number
  /** What stands behind an answer to learn from ['</s>', or the tokenizer's own end where it has no such token]. */
  endSymbol?: string
  /** The text around what a user says, at its `{}`; `salmonnTemplate` makes one of a chat template ['USER: {}\nASSISTANT:']. */
  template?: string
}

/** The same with every part's own configuration. */
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

/** The two published models. */
export const salmonnSizes: Record<string, SalmonnConfig> = {
  '7b': { llm: 'vicuna-7b-v1.5' },
  '13b': { llm: 'vicuna-13b-v1.1' },
}

const KEYS = ['whisper', 'beats', 'llm', 'qformer', 'lora', 'maxTextLength', 'endSymbol', 'template']
const LORA: Required<SalmonnLoraConfig> = { r: 8, loraAlpha: 32, loraDropout: 0.1, targetModules: ['q_proj', 'v_proj'] }

/** @throws ConfigError for an unknown key, naming the nearest, and for a part that does not fit */
export function salmonnConfig(given: SalmonnConfig | string): CompleteSalmonnConfig {
  const config = configOf('Salmonn', given, salmonnSizes)
  for (const key of Object.keys(config)) {
    if (KEYS.includes(key)) continue
    const near = nearest(key, KEYS)
    throw new ConfigError(`Salmonn's configuration has no '${key}'${near ? `; did you mean '${near}'?` : ''}`, { key })
  }
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
      `Salmonn: qformer.encoderWidth is ${config.qformer.encoderWidth}, but the encoders give ${encoderWidth}`,
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

/** Frames of a window of so many seconds, as the published configuration gives them: 0.333333 is 17. */
export const salmonnWindowFrames = (seconds: number): number => Math.max(1, Math.round((1500 * seconds) / 30))

/** How the language model's layers are packed: a scheme alone, or with its options. Which layers is not to be chosen. */
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
