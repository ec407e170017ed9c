import { defined } from '../base/check.js'
import { requireWeightsOf } from '../hub/weights.js'
import { commandRule } from '../kit/command.js'
import { missingOption, type OptionsOf } from '../kit/options.js'
import { requireNetworkDType } from '../tensor/dtype.js'
import { PREFERENCE_SETTINGS, preferenceSettings } from '../tuning/settings.js'
import {
  inputOptions,
  MODEL_OPTIONS,
  OUTPUT_OPTION,
  openModel,
  printResults,
  quantizeModel,
  refuseWithoutAdapter,
  withLanguageModel,
} from './tuning.js'

const OPTIONS = {
  ...inputOptions('pairs, or for KTO answers with a label'),
  evalData: { type: 'string', help: 'held-out pairs, evaluated at the end of each epoch', placeholder: 'file' },
  ...OUTPUT_OPTION,
  ...PREFERENCE_SETTINGS.options,
  ...MODEL_OPTIONS,
} as const

/** `voxtorch dpo`: train a language model on pairs of answers. */
export const dpoRule = commandRule({
  name: 'dpo',
  summary: 'Train a language model on pairs of a better and a worse answer: DPO, IPO, KTO, ORPO or SimPO.',
  details: `  voxtorch dpo --model smollm2-135m-instruct --data pairs.jsonl --eval-data held-out.jsonl --learning-rate 1e-5 --output runs/dpo
  voxtorch dpo --model smollm2-135m-instruct --data pairs.jsonl --loss simpo --beta 2 --simpo-gamma 1 --learning-rate 1e-5

Each record of the data has "prompt", "chosen" and "rejected": texts, or lists of messages with role and content. With --loss kto a record may
have "completion" and "label" (true or false) in place of a pair. OUTPUT/adapter is the adapter in PEFT's layout (with --no-lora
OUTPUT/model), OUTPUT/report.html the report. The same command continues a killed run.`,
  options: OPTIONS,
  run: dpo,
})

async function dpo(values: OptionsOf<typeof OPTIONS>): Promise<number> {
  const { model, data, evalData, output = 'output', dtype } = values
  const { gradientCheckpointing, bf16, progress } = values
  if (model === undefined) throw missingOption('model', 'a language model', 'DIR')
  if (data === undefined) throw missingOption('data', 'a file of pairs', 'FILE')
  requireNetworkDType('--dtype', dtype)
  requireWeightsOf('dpo: --model', model, 'DecoderLM')
  const changes = PREFERENCE_SETTINGS.fromOptions(values)
  const { seed } = preferenceSettings('dpo', changes)
  if (values.lora === false) refuseWithoutAdapter('dpo', values, '--no-lora')
  const { AudioLM } = await import('../models/audio-lm/audio-lm.js')
  const { manualSeed } = await import('../tensor/random.js')
  const { trainDpo } = await import('../tuning/dpo.js')
  const { network: loaded, tokenizer } = await openModel(model, values)
  using network = loaded
  await quantizeModel(network, values)
  manualSeed(seed)
  const trained = await withLanguageModel(network, network instanceof AudioLM, values)
  const results = await trainDpo(trained, data, {
    ...{ ...changes, tokenizer, outputDir: output, args: defined({ gradientCheckpointing, bf16, progress }) },
    ...defined({ evalRecords: evalData }),
  })
  await printResults(results)
  return 0
}
