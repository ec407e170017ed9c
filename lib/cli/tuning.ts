// Options and steps that the commands of `voxtorch/tuning` share.
import { defined } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { isGguf } from '../files/gguf/find.js'
import { isPublishedWeights } from '../hub/weights.js'
import { flagOf, type OptionsOf, type OptionTable } from '../kit/options.js'
import type { AudioLM } from '../models/audio-lm/audio-lm.js'
import type { DecoderLM } from '../models/decoder/decoder-lm.js'
import type { InternVL } from '../models/internvl/internvl.js'
import type { PartsTraining } from '../models/train-parts.js'
import type { PeftModel } from '../peft/model.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { TuningModel } from '../tuning/audio.js'

/**
 * Return the options of the model and the data.
 * @param records content of the data, for the help
 * @param models classes of the model, for the help
 */
export const inputOptions = (records: string, models = 'a DecoderLM or an AudioLM') =>
  ({
    model: {
      type: 'string',
      help: `folder, GGUF file, repository of the Hugging Face Hub or name of \`voxtorch weights\`: ${models}; required`,
      placeholder: 'model',
    },
    data: {
      type: 'string',
      help: `${records}: a JSON Lines or Parquet file, a folder, or a dataset of the Hugging Face Hub; required`,
      placeholder: 'file',
    },
  }) as const satisfies OptionTable

/** Options of the model, its adapter and its memory. */
export const MODEL_OPTIONS = {
  lora: { type: 'boolean', help: 'train an adapter; --no-lora trains all weights', default: true },
  loraR: { type: 'integer', min: 1, help: 'rank of the adapter', default: 16 },
  loraAlpha: { type: 'number', help: 'LoRA alpha: the adapter is scaled by alpha / rank', default: 32 },
  loraDropout: { type: 'fraction', help: "dropout of the adapter's input", default: 0.05 },
  dora: { type: 'boolean', help: 'DoRA: train the magnitudes of the weights apart from their directions' },
  targetModules: {
    type: 'list',
    help: 'layers that get an adapter',
    placeholder: 'name,…',
    default: 'all-linear',
  },
  quantize: {
    type: ['nf4', 'int8', 'q8_0', 'q4_0'],
    help: "quantize the model's layers; the adapter stays in full precision",
    default: 'none',
  },
  gradientCheckpointing: { type: 'boolean', help: 'recompute activations in the backward pass to save memory' },
  bf16: { type: 'boolean', help: 'compute in bfloat16 (autocast)' },
  device: { type: 'string', help: 'device: cpu, cuda or cuda:0', default: 'cpu' },
  dtype: { type: 'string', help: 'dtype of the weights: float32, bfloat16 or float16', placeholder: 'name' },
  progress: { type: 'boolean', help: 'show a progress bar; default: in a terminal' },
} as const satisfies OptionTable

/** The option of the folder of results. */
export const OUTPUT_OPTION = {
  output: {
    type: 'string',
    help: 'folder for checkpoints, report, metrics and the adapter',
    placeholder: 'dir',
    default: 'output',
  },
} as const satisfies OptionTable

type ModelOptions = OptionsOf<typeof MODEL_OPTIONS>

/** Return the configuration of the adapter. */
export const loraConfigOf = ({
  loraR = 16,
  loraAlpha = 32,
  loraDropout = 0.05,
  dora,
  targetModules,
}: ModelOptions) => ({
  ...{ r: loraR, loraAlpha, loraDropout, targetModules: targetModules ?? 'all-linear', taskType: 'CAUSAL_LM' as const },
  ...(dora !== undefined && { useDora: dora }),
})

/** Refuse options of adapters that nothing reads without one. @param also further options @param flag what leaves the adapter out */
export function refuseWithoutAdapter(
  command: string,
  values: ModelOptions & Readonly<Record<string, unknown>>,
  flag: string,
  also: readonly string[] = [],
): void {
  const names = ['loraR', 'loraAlpha', 'loraDropout', 'dora', 'targetModules', 'quantize', 'loraplusLrRatio', ...also]
  for (const name of names) {
    if (values[name] === undefined) continue
    throw new ConfigError(
      `${command}: ${flagOf(name)}: expected none with ${flag}, got ${values[name]}. Leave one of them out.`,
      { option: name },
    )
  }
}

/** Load a DecoderLM, or an AudioLM where config.json states one, with its tokenizer. */
export const openModel = (model: string, values: ModelOptions) =>
  openNetwork(model, values, false) as Promise<{ network: DecoderLM | AudioLM; tokenizer: Tokenizer }>

/** Load a DecoderLM, or an AudioLM or InternVL where config.json states one, with its tokenizer. */
export const openSftModel = (model: string, values: ModelOptions) => openNetwork(model, values, true)

/** Return the local folder of a model that has been loaded; undefined for a GGUF file. */
export async function folderOf(model: string): Promise<string | undefined> {
  if (isGguf(model)) return undefined
  const { resolveModel } = await import('../hub/resolve.js')
  return resolveModel(model)
}

async function openNetwork(
  model: string,
  { device, dtype }: ModelOptions,
  readsImages: boolean,
): Promise<{ network: DecoderLM | AudioLM | InternVL; tokenizer: Tokenizer }> {
  const { DecoderLM } = await import('../models/decoder/decoder-lm.js')
  const { AudioLM } = await import('../models/audio-lm/audio-lm.js')
  const { AUDIO_MODEL_TYPES } = await import('../models/audio-lm/families.js')
  const { InternVL } = await import('../models/internvl/internvl.js')
  const { ggufPath } = await import('../models/decoder/gguf.js')
  const { resolveModel } = await import('../hub/resolve.js')
  const { readConfig } = await import('../models/pretrained.js')
  const { Tokenizer } = await import('../text/tokenizer.js')
  const options = defined({ device, dtype }) as object
  if (isGguf(model) || isPublishedWeights(model)) {
    const network = await DecoderLM.fromPretrained(model, options)
    return { network, tokenizer: await Tokenizer.fromPretrained(model) }
  }
  const directory = await resolveModel(model)
  const { modelType } = ggufPath(directory) === null ? await readConfig(directory) : {}
  const isAudio = (AUDIO_MODEL_TYPES as readonly unknown[]).includes(modelType)
  const isImage = readsImages && (modelType === 'internvl_chat' || modelType === 'internvl')
  const network = await (isAudio ? AudioLM : isImage ? InternVL : DecoderLM).fromPretrained(directory, options)
  const own = network instanceof AudioLM ? network.tokenizer : null
  return { network, tokenizer: own ?? (await Tokenizer.fromPretrained(directory)) }
}

/** Quantize the language model, if the options say so. */
export async function quantizeModel(
  network: DecoderLM | AudioLM | InternVL,
  { quantize: scheme }: ModelOptions,
): Promise<void> {
  if (scheme === undefined) return
  const { quantize } = await import('../peft/quantize.js')
  quantize('language_model' in network ? network.language_model : network, { scheme })
}

/** Return a model whose parts train as stated, or the model itself where none has an adapter. */
export function withParts(
  network: AudioLM | InternVL,
  parts: PartsTraining,
  values: ModelOptions,
): AudioLM | InternVL | PeftModel<AudioLM> | PeftModel<InternVL> {
  const { taskType: _, targetModules, ...lora } = loraConfigOf(values)
  const layers = targetModules === 'all-linear' ? {} : { targetModules }
  const hasAdapter = Object.values(parts).includes('lora')
  return network.trainParts(parts, hasAdapter ? { ...lora, ...layers } : {}) ?? network
}

/** Return the model with an adapter, or the model itself with --no-lora. */
export async function withAdapter(model: DecoderLM, values: ModelOptions): Promise<DecoderLM | PeftModel<DecoderLM>> {
  if (values.lora === false) return model
  const { getPeftModel } = await import('../peft/model.js')
  return getPeftModel(model, loraConfigOf(values))
}

/** Return the model with an adapter for its language model, or the model itself with --no-lora. */
export async function withLanguageModel(
  network: DecoderLM | AudioLM,
  isAudio: boolean,
  values: ModelOptions,
): Promise<TuningModel | PeftModel<TuningModel>> {
  if (!isAudio) return withAdapter(network as DecoderLM, values)
  if (values.lora === false) return network
  return withParts(network as AudioLM, { decoder: 'lora' }, values) as PeftModel<AudioLM>
}

/** Print the results of a training, in the main process. */
export async function printResults(results: object): Promise<void> {
  const { isMainProcess } = await import('../distributed/index.js')
  if (isMainProcess()) console.log(JSON.stringify(results, null, 2))
}
