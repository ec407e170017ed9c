import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { defined } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { commandRule } from '../kit/command.js'
import { flagOf, missingOption, type OptionsOf } from '../kit/options.js'
import { requireNetworkDType } from '../tensor/dtype.js'
import { GRPO_SETTINGS } from '../tuning/grpo-settings.js'
import type { RewardFunction } from '../tuning/rewards.js'

const OPTIONS = {
  model: {
    type: 'string',
    help: 'folder, GGUF file, repository of the Hugging Face Hub or name of `voxtorch weights`: a DecoderLM or an AudioLM; required',
    placeholder: 'model',
  },
  data: { type: 'string', help: 'JSON Lines file of prompts; required', placeholder: 'file' },
  reward: {
    type: 'list',
    help: 'reward functions: wer, or JavaScript modules, of which each exported function is one; required',
    placeholder: 'wer|file.js,…',
  },
  evalData: { type: 'string', help: 'held-out prompts, evaluated at the end of each epoch', placeholder: 'file' },
  output: {
    type: 'string',
    help: 'folder for checkpoints, report, metrics and the adapter',
    placeholder: 'dir',
    default: 'output',
  },
  ...GRPO_SETTINGS.options,
  rewardWeights: {
    type: 'list',
    help: 'weight of each reward function, in their order',
    placeholder: 'number,…',
    default: '1 each',
  },
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
  gradientCheckpointing: { type: 'boolean', help: 'recompute activations in the backward pass to save memory' },
  bf16: { type: 'boolean', help: 'compute in bfloat16 (autocast)' },
  device: { type: 'string', help: 'device: cpu, cuda or cuda:0', default: 'cpu' },
  dtype: { type: 'string', help: 'dtype of the weights: float32, bfloat16 or float16', placeholder: 'name' },
  progress: { type: 'boolean', help: 'show a progress bar; default: in a terminal' },
} as const

/** `voxtorch grpo`: train a language model on rewards of its own answers. */
export const grpoRule = commandRule({
  name: 'grpo',
  summary: 'Train a language model on rewards of the answers that it samples: GRPO, Dr. GRPO or DAPO.',
  details: `  voxtorch grpo --model smollm2-135m-instruct --data prompts.jsonl --reward ./reward.js --learning-rate 1e-5 --output runs/grpo
  voxtorch grpo --model Qwen/Qwen2-Audio-7B-Instruct --data clips.jsonl --reward wer --beta 0.04

Each line of the data has "prompt": a text, or a list of messages with role and content, for an AudioLM with audio parts. A reward function gets
{ prompt, completion, completionIds, record } and returns a number. The reward wer is 1 - WER against the record's "reference". OUTPUT/adapter is
the adapter in PEFT's layout (with --no-lora OUTPUT/model), OUTPUT/report.html the report. The same command continues a killed run.`,
  options: OPTIONS,
  run: grpo,
})

async function grpo(values: OptionsOf<typeof OPTIONS>): Promise<number> {
  const { model, data, reward, evalData, output = 'output', dtype } = values
  const { lora = true, loraR = 16, loraAlpha = 32, loraDropout = 0.05, targetModules } = values
  const { gradientCheckpointing, bf16, progress } = values
  if (model === undefined) throw missingOption('model', 'a language model', 'DIR')
  if (data === undefined) throw missingOption('data', 'a JSON Lines file of prompts', 'FILE')
  if (reward === undefined) throw missingOption('reward', 'a reward function', 'wer|FILE')
  requireNetworkDType('--dtype', dtype)
  const changes = GRPO_SETTINGS.fromOptions({ ...values, rewardWeights: weightsOf(values.rewardWeights) })
  const { seed } = GRPO_SETTINGS.read('grpo', changes)
  refuseUnread(values)
  const rewards = await rewardsOf(reward)
  const { AudioLM } = await import('../models/audio-lm/audio-lm.js')
  const { getPeftModel } = await import('../peft/model.js')
  const { manualSeed } = await import('../tensor/random.js')
  const { trainGrpo } = await import('../tuning/grpo.js')
  const { network, tokenizer } = await open(model, values)
  manualSeed(seed)
  const config = { r: loraR, loraAlpha, loraDropout, ...(targetModules && { targetModules }) }
  const adapted = () =>
    network instanceof AudioLM
      ? network.trainParts({ decoder: 'lora' }, config)
      : getPeftModel(network, { targetModules: 'all-linear', ...config, taskType: 'CAUSAL_LM' } as never)
  try {
    const trained = (lora && adapted()) || network
    const results = await trainGrpo(trained as never, data, {
      ...{
        ...changes,
        tokenizer,
        rewards,
        outputDir: output,
        args: defined({ gradientCheckpointing, bf16, progress }),
      },
      ...defined({ evalRecords: evalData }),
    })
    console.log(JSON.stringify(results, null, 2))
  } finally {
    network.dispose()
  }
  return 0
}

/** Load a DecoderLM or an AudioLM, by its configuration, and its tokenizer. */
async function open(model: string, values: OptionsOf<typeof OPTIONS>) {
  const { AudioLM } = await import('../models/audio-lm/audio-lm.js')
  const { AUDIO_MODEL_TYPES } = await import('../models/audio-lm/families.js')
  const { DecoderLM } = await import('../models/decoder/decoder-lm.js')
  const { readConfig } = await import('../models/pretrained.js')
  const { ggufPath } = await import('../models/decoder/gguf.js')
  const { resolveModel } = await import('../hub/resolve.js')
  const { Tokenizer } = await import('../text/tokenizer.js')
  const options = defined({ device: values.device, dtype: values.dtype }) as never
  const directory = model.endsWith('.gguf') ? model : await resolveModel(model)
  const { modelType } = ggufPath(directory) === null ? await readConfig(directory) : {}
  if (!(AUDIO_MODEL_TYPES as readonly unknown[]).includes(modelType)) {
    const tokenizer = await Tokenizer.fromPretrained(directory)
    return { network: await DecoderLM.fromPretrained(directory, options), tokenizer }
  }
  const network = await AudioLM.fromPretrained(directory, options)
  return { network, tokenizer: network.tokenizer ?? (await Tokenizer.fromPretrained(directory)) }
}

/** Return the weights of reward functions as numbers. */
const weightsOf = (texts: readonly string[] | undefined): number[] | undefined =>
  texts?.map((text) => {
    const weight = text === '' ? Number.NaN : Number(text)
    if (Number.isFinite(weight)) return weight
    throw new ConfigError(`grpo: --reward-weights: expected numbers, got ${text}.`, { option: 'rewardWeights' })
  })

/** Return the reward functions of names and modules. */
async function rewardsOf(names: readonly string[]): Promise<RewardFunction[]> {
  const found: RewardFunction[] = []
  for (const name of names) {
    if (name === 'wer') {
      const { werReward } = await import('../tuning/rewards.js')
      found.push(werReward())
      continue
    }
    const path = resolve(name)
    if (!existsSync(path)) {
      throw new ConfigError(`grpo: --reward: expected wer or a JavaScript module, got ${name}, which does not exist.`, {
        option: 'reward',
      })
    }
    const module = (await import(pathToFileURL(path).href)) as Record<string, unknown>
    const functions = Object.values(module).filter((value) => typeof value === 'function')
    if (functions.length === 0) {
      throw new ConfigError(`grpo: --reward: expected exported functions in ${name}, got none. Export a function.`, {
        option: 'reward',
      })
    }
    found.push(...(functions as RewardFunction[]))
  }
  return found
}

/** Refuse options that nothing reads with --no-lora. */
function refuseUnread(values: OptionsOf<typeof OPTIONS>): void {
  if (values.lora !== false) return
  for (const name of ['loraR', 'loraAlpha', 'loraDropout', 'targetModules', 'loraplusLrRatio'] as const) {
    if (values[name] === undefined) continue
    throw new ConfigError(`grpo: ${flagOf(name)}: expected none with --no-lora, got ${values[name]}. Leave it out.`, {
      option: name,
    })
  }
}
