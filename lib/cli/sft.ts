import { defined } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { isGguf } from '../files/gguf/find.js'
import { isPublishedWeights, requireWeightsOf } from '../hub/weights.js'
import { commandRule } from '../kit/command.js'
import { flagOf, missingOption, type OptionsOf } from '../kit/options.js'
import type { PeftModel } from '../peft/model.js'
import { requireNetworkDType } from '../tensor/dtype.js'
import { SFT_SETTINGS, type SftSettings } from '../tuning/settings.js'
import type { SftModel } from '../tuning/sft.js'
import { loraConfigOf, MODEL_OPTIONS, OUTPUT_OPTION, refuseWithoutAdapter, withAdapter } from './tuning.js'

const PART = ['frozen', 'lora', 'full'] as const
const PARTS = ['trainEncoder', 'trainConnector', 'trainDecoder'] as const

const OPTIONS = {
  model: {
    type: 'string',
    help: 'folder, GGUF file, repository of the Hugging Face Hub or name of `voxtorch weights`: a DecoderLM or an AudioLM; required',
    placeholder: 'model',
  },
  data: {
    type: 'string',
    help: 'conversations: a JSON Lines or Parquet file, a folder, or a dataset of the Hugging Face Hub; required',
    placeholder: 'file',
  },
  evalData: { type: 'string', help: 'held-out records, which select the best checkpoint', placeholder: 'file' },
  ...OUTPUT_OPTION,
  ...SFT_SETTINGS.options,
  metrics: {
    type: 'list',
    help: 'metrics of generated answers to --eval-data: wer, cer, exactMatch, rougeL',
    placeholder: 'name,…',
    default: 'none',
  },
  ...MODEL_OPTIONS,
  trainEncoder: { type: PART, help: 'AudioLM: training of the audio encoder', default: 'frozen' },
  trainConnector: { type: PART, help: 'AudioLM: training of the connector', default: 'full' },
  trainDecoder: { type: PART, help: 'AudioLM: training of the language model', default: 'lora' },
} as const

/** `voxtorch sft`: fine-tune a language model or a speech language model on conversations. */
export const sftRule = commandRule({
  name: 'sft',
  summary: 'Fine-tune a language model, or a speech language model, on conversations.',
  details: `  voxtorch sft --model smollm2-135m-instruct --data train.jsonl --eval-data held-out.jsonl --learning-rate 2e-4 --output runs/sft
  voxtorch sft --model Qwen/Qwen2-Audio-7B-Instruct --data train.jsonl --eval-data held-out.jsonl --metrics wer --key-metric wer --quantize nf4

Each record of the data has "messages", a list of messages with role and content, or "prompt" and "completion". Content is a text, or a list
of parts {"type": "text", "text": …} and {"type": "audio", "audio": "clip.wav"}. Answers of the assistant contribute to the loss.
OUTPUT/adapter is the adapter in PEFT's layout (with --no-lora OUTPUT/model), OUTPUT/report.html the report. The same command continues a
killed run.`,
  options: OPTIONS,
  run: sft,
})

async function sft(values: OptionsOf<typeof OPTIONS>): Promise<number> {
  const { model, data, evalData, output = 'output', device, dtype, quantize: scheme } = values
  const { gradientCheckpointing, bf16, progress, metrics } = values
  if (model === undefined) throw missingOption('model', 'a language model', 'DIR')
  if (data === undefined) throw missingOption('data', 'a file of conversations', 'FILE')
  requireNetworkDType('--dtype', dtype)
  requireWeightsOf('sft: --model', model, 'DecoderLM')
  const { metrics: _, ...options } = values
  const changes: Partial<SftSettings> = {
    ...SFT_SETTINGS.fromOptions(options),
    ...(metrics && { metrics: metrics as [] }),
  }
  const { seed } = SFT_SETTINGS.read('sft', changes)
  const { quantize } = await import('../peft/quantize.js')
  const { manualSeed } = await import('../tensor/random.js')
  const { Tokenizer } = await import('../text/tokenizer.js')
  const { trainSft } = await import('../tuning/sft.js')
  const { network: loaded, directory } = await load(model, defined({ device, dtype }) as object)
  using network = loaded
  const { AudioLM } = await import('../models/audio-lm/audio-lm.js')
  const tokenizer =
    (network instanceof AudioLM ? network.tokenizer : null) ?? (await Tokenizer.fromPretrained(directory))
  const parts = partsOf(values)
  refuseUnread(values, network instanceof AudioLM, parts)
  if (scheme !== undefined) quantize(network instanceof AudioLM ? network.language_model : network, { scheme })
  manualSeed(seed)
  let trained: SftModel | PeftModel<SftModel>
  if (network instanceof AudioLM) {
    const hasAdapter = Object.values(parts).includes('lora')
    const { taskType: _, targetModules, ...lora } = loraConfigOf(values)
    const layers = targetModules === 'all-linear' ? {} : { targetModules }
    trained = network.trainParts(parts, hasAdapter ? { ...lora, ...layers } : {}) ?? network
  } else trained = await withAdapter(network, values)
  const results = await trainSft(trained, data, {
    ...{ ...changes, tokenizer, outputDir: output, args: defined({ gradientCheckpointing, bf16, progress }) },
    ...defined({ evalRecords: evalData }),
  })
  console.log(JSON.stringify(results, null, 2))
  return 0
}

/** Load a model by the type that its config.json states. */
async function load(model: string, options: object): Promise<{ network: SftModel & Disposable; directory: string }> {
  const { DecoderLM } = await import('../models/decoder/decoder-lm.js')
  const { AudioLM } = await import('../models/audio-lm/audio-lm.js')
  const { AUDIO_MODEL_TYPES } = await import('../models/audio-lm/families.js')
  const { ggufPath } = await import('../models/decoder/gguf.js')
  const { resolveModel } = await import('../hub/resolve.js')
  const { readConfig } = await import('../models/pretrained.js')
  if (isGguf(model) || isPublishedWeights(model)) {
    return { network: await DecoderLM.fromPretrained(model, options), directory: model }
  }
  const directory = await resolveModel(model)
  const { modelType } = ggufPath(directory) === null ? await readConfig(directory) : {}
  const isAudio = (AUDIO_MODEL_TYPES as readonly unknown[]).includes(modelType)
  const network = await (isAudio ? AudioLM : DecoderLM).fromPretrained(directory, options)
  return { network, directory }
}

const partsOf = ({ lora = true, trainEncoder, trainConnector, trainDecoder }: OptionsOf<typeof OPTIONS>) => ({
  encoder: trainEncoder ?? 'frozen',
  connector: trainConnector ?? 'full',
  decoder: trainDecoder ?? (lora ? 'lora' : 'full'),
})

/** Refuse options that nothing reads with this model. */
function refuseUnread(
  values: OptionsOf<typeof OPTIONS>,
  isAudio: boolean,
  parts: Readonly<Record<string, string>>,
): void {
  const own = PARTS.find((name) => values[name] !== undefined)
  if (!isAudio && own !== undefined) {
    throw new ConfigError(`sft: ${flagOf(own)}: expected none for a DecoderLM, got ${values[own]}. Leave it out.`, {
      option: own,
    })
  }
  const lora = PARTS.find((name) => values[name] === 'lora')
  if (isAudio && values.lora === false && lora !== undefined) {
    throw new ConfigError(
      `sft: ${flagOf(lora)}: expected 'frozen' or 'full' with --no-lora, got lora. Leave one of them out.`,
      {
        option: lora,
      },
    )
  }
  const hasAdapter = isAudio ? Object.values(parts).includes('lora') : values.lora !== false
  if (hasAdapter) return
  const flag = values.lora === false ? '--no-lora' : 'no part that has an adapter'
  refuseWithoutAdapter('sft', values, flag, ['merge'])
}
