import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { defined } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { requireWeightsOf } from '../hub/weights.js'
import { commandRule } from '../kit/command.js'
import { flagOf, missingOption, type OptionsOf } from '../kit/options.js'
import { requireNetworkDType } from '../tensor/dtype.js'
import { SFT_SETTINGS, type SftSettings } from '../tuning/settings.js'
import {
  folderOf,
  inputOptions,
  MODEL_OPTIONS,
  OUTPUT_OPTION,
  openSftModel,
  printResults,
  quantizeModel,
  refuseWithoutAdapter,
  withAdapter,
  withParts,
} from './tuning.js'

const PART = ['frozen', 'lora', 'full'] as const
const PARTS = ['trainEncoder', 'trainConnector', 'trainDecoder'] as const

const OPTIONS = {
  ...inputOptions('conversations', 'a DecoderLM, an AudioLM or an InternVL'),
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
  trainEncoder: { type: PART, help: 'AudioLM and InternVL: training of the encoder', default: 'frozen' },
  trainConnector: { type: PART, help: 'AudioLM and InternVL: training of the connector', default: 'full' },
  trainDecoder: { type: PART, help: 'AudioLM and InternVL: training of the language model', default: 'lora' },
} as const

/** `voxtorch sft`: fine-tune a language model, a speech language model or a vision-language model on conversations. */
export const sftRule = commandRule({
  name: 'sft',
  summary: 'Fine-tune a language model, with speech or images, on conversations.',
  details: `  voxtorch sft --model smollm2-135m-instruct --data train.jsonl --eval-data held-out.jsonl --learning-rate 2e-4 --output runs/sft
  voxtorch sft --model Qwen/Qwen2-Audio-7B-Instruct --data train.jsonl --eval-data held-out.jsonl --metrics wer --key-metric wer --quantize nf4

Each record of the data has "messages", a list of messages with role and content, or "prompt" and "completion". Content is a text, or a list
of parts {"type": "text", "text": …} and {"type": "audio", "audio": "clip.wav"} or {"type": "image", "image": "a.jpg"}. Answers of the assistant contribute to the loss.
OUTPUT/adapter is the adapter in PEFT's layout (with --no-lora OUTPUT/model), OUTPUT/report.html the report. The same command continues a
killed run.`,
  options: OPTIONS,
  run: sft,
})

async function sft(values: OptionsOf<typeof OPTIONS>): Promise<number> {
  const { model, data, evalData, output = 'output', dtype } = values
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
  const { manualSeed } = await import('../tensor/random.js')
  const { trainSft } = await import('../tuning/sft.js')
  const { network: loaded, tokenizer } = await openSftModel(model, values)
  using network = loaded
  const { DecoderLM } = await import('../models/decoder/decoder-lm.js')
  const parts = partsOf(values)
  const { AudioLM } = await import('../models/audio-lm/audio-lm.js')
  refuseUnread(values, { hasParts: !(network instanceof DecoderLM), isAudio: network instanceof AudioLM }, parts)
  const finds = values.normalizer === 'english' && values.spellings === undefined
  const found = finds ? await spellingsOf(model) : {}
  await quantizeModel(network, values)
  manualSeed(seed)
  const trained = network instanceof DecoderLM ? await withAdapter(network, values) : withParts(network, parts, values)
  const results = await trainSft(trained, data, {
    ...{ ...changes, ...found, tokenizer, outputDir: output, args: defined({ gradientCheckpointing, bf16, progress }) },
    ...defined({ evalRecords: evalData }),
  })
  await printResults(results)
  return 0
}

/** Return the setting for the table of spellings in the folder of a model; none without the file. */
async function spellingsOf(model: string): Promise<{ spellings?: string }> {
  const folder = await folderOf(model)
  const file = folder === undefined ? undefined : join(folder, 'normalizer.json')
  return file !== undefined && existsSync(file) ? { spellings: file } : {}
}

const partsOf = ({ lora = true, trainEncoder, trainConnector, trainDecoder }: OptionsOf<typeof OPTIONS>) => ({
  encoder: trainEncoder ?? 'frozen',
  connector: trainConnector ?? 'full',
  decoder: trainDecoder ?? (lora ? 'lora' : 'full'),
})

/** Refuse options that nothing reads with this model. */
function refuseUnread(
  values: OptionsOf<typeof OPTIONS>,
  { hasParts, isAudio }: { hasParts: boolean; isAudio: boolean },
  parts: Readonly<Record<string, string>>,
): void {
  const { longAudio } = values
  if (longAudio !== undefined && !isAudio) {
    throw new ConfigError(`sft: --long-audio: expected it for an AudioLM only, got ${longAudio}. Leave it out.`, {
      option: 'longAudio',
    })
  }
  const own = PARTS.find((name) => values[name] !== undefined)
  if (!hasParts && own !== undefined) {
    throw new ConfigError(`sft: ${flagOf(own)}: expected none for a DecoderLM, got ${values[own]}. Leave it out.`, {
      option: own,
    })
  }
  const lora = PARTS.find((name) => values[name] === 'lora')
  if (hasParts && values.lora === false && lora !== undefined) {
    throw new ConfigError(
      `sft: ${flagOf(lora)}: expected 'frozen' or 'full' with --no-lora, got lora. Leave one of them out.`,
      {
        option: lora,
      },
    )
  }
  const hasAdapter = hasParts ? Object.values(parts).includes('lora') : values.lora !== false
  if (hasAdapter) return
  const flag = values.lora === false ? '--no-lora' : 'no part that has an adapter'
  refuseWithoutAdapter('sft', values, flag, ['merge'])
}
