// Options and steps that the commands of `voxtorch/tuning` share.
import { ConfigError } from '../base/errors.js'
import { flagOf, type OptionsOf, type OptionTable } from '../kit/options.js'
import type { DecoderLM } from '../models/decoder/decoder-lm.js'
import type { PeftModel } from '../peft/model.js'

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

/** Return the model with an adapter, or the model itself with --no-lora. */
export async function withAdapter(model: DecoderLM, values: ModelOptions): Promise<DecoderLM | PeftModel<DecoderLM>> {
  if (values.lora === false) return model
  const { getPeftModel } = await import('../peft/model.js')
  return getPeftModel(model, loraConfigOf(values))
}
