import { defined } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { requireWeightsOf } from '../hub/weights.js'
import { commandRule } from '../kit/command.js'
import { flagOf, missingOption, type OptionsOf } from '../kit/options.js'
import { requireNetworkDType } from '../tensor/dtype.js'
import { PREFERENCE_SETTINGS, preferenceSettings } from '../tuning/settings.js'

const OPTIONS = {
  model: {
    type: 'string',
    help: 'folder, GGUF file, repository of the Hugging Face Hub or name of `voxtorch weights`, with tokenizer; required',
    placeholder: 'model',
  },
  data: {
    type: 'string',
    help: 'JSON Lines file of pairs, or for KTO of answers with a label; required',
    placeholder: 'file',
  },
  evalData: { type: 'string', help: 'held-out pairs, evaluated at the end of each epoch', placeholder: 'file' },
  output: {
    type: 'string',
    help: 'folder for checkpoints, report, metrics and the adapter',
    placeholder: 'dir',
    default: 'output',
  },
  ...PREFERENCE_SETTINGS.options,
  lora: { type: 'boolean', help: 'train an adapter; --no-lora trains all weights', default: true },
  loraR: { type: 'integer', min: 1, help: 'rank of the adapter', default: 16 },
  loraAlpha: { type: 'number', help: 'LoRA alpha: the adapter is scaled by alpha / rank', default: 32 },
  loraDropout: { type: 'fraction', help: "dropout of the adapter's input", default: 0.05 },
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
} as const

/** `voxtorch dpo`: train a language model on pairs of answers. */
export const dpoRule = commandRule({
  name: 'dpo',
  summary: 'Train a language model on pairs of a better and a worse answer: DPO, IPO, KTO, ORPO or SimPO.',
  details: `  voxtorch dpo --model smollm2-135m-instruct --data pairs.jsonl --eval-data held-out.jsonl --learning-rate 1e-5 --output runs/dpo
  voxtorch dpo --model smollm2-135m-instruct --data pairs.jsonl --loss simpo --beta 2 --simpo-gamma 1 --learning-rate 1e-5

Each line of the data has "prompt", "chosen" and "rejected": texts, or lists of messages with role and content. With --loss kto a line may have
"completion" and "label" (true or false) in place of a pair. OUTPUT/adapter is the
adapter in PEFT's layout (with --no-lora OUTPUT/model), OUTPUT/report.html the report. The same command continues a killed run.`,
  options: OPTIONS,
  run: dpo,
})

async function dpo(values: OptionsOf<typeof OPTIONS>): Promise<number> {
  const { model, data, evalData, output = 'output', device, dtype, quantize: scheme, targetModules } = values
  const { lora = true, loraR = 16, loraAlpha = 32, loraDropout = 0.05 } = values
  const { gradientCheckpointing, bf16, progress } = values
  if (model === undefined) throw missingOption('model', 'a language model', 'DIR')
  if (data === undefined) throw missingOption('data', 'a JSON Lines file of pairs', 'FILE')
  requireNetworkDType('--dtype', dtype)
  requireWeightsOf('dpo: --model', model, 'DecoderLM')
  const changes = PREFERENCE_SETTINGS.fromOptions(values)
  const { seed } = preferenceSettings('dpo', changes)
  refuseUnread(values)
  const { DecoderLM } = await import('../models/decoder/decoder-lm.js')
  const { getPeftModel } = await import('../peft/model.js')
  const { quantize } = await import('../peft/quantize.js')
  const { Tokenizer } = await import('../text/tokenizer.js')
  const { manualSeed } = await import('../tensor/random.js')
  const { trainDpo } = await import('../tuning/dpo.js')
  const tokenizer = await Tokenizer.fromPretrained(model)
  using network = await DecoderLM.fromPretrained(model, defined({ device, dtype }) as never)
  if (scheme !== undefined) quantize(network, { scheme })
  manualSeed(seed)
  const config = {
    r: loraR,
    loraAlpha,
    loraDropout,
    targetModules: targetModules ?? 'all-linear',
    taskType: 'CAUSAL_LM',
  }
  const trained = lora ? getPeftModel(network, config as never) : network
  const results = await trainDpo(trained, data, {
    ...{ ...changes, tokenizer, outputDir: output, args: defined({ gradientCheckpointing, bf16, progress }) },
    ...defined({ evalRecords: evalData }),
  })
  console.log(JSON.stringify(results, null, 2))
  return 0
}

/** Refuse options that nothing reads with --no-lora. */
function refuseUnread(values: OptionsOf<typeof OPTIONS>): void {
  if (values.lora !== false) return
  for (const name of ['loraR', 'loraAlpha', 'loraDropout', 'targetModules', 'quantize', 'loraplusLrRatio'] as const) {
    if (values[name] === undefined) continue
    throw new ConfigError(
      `dpo: ${flagOf(name)}: expected none with --no-lora, got ${values[name]}. Leave one of them out.`,
      { option: name },
    )
  }
}
