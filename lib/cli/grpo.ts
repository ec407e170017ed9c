import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { defined } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { commandRule } from '../kit/command.js'
import { missingOption, type OptionsOf } from '../kit/options.js'
import { requireNetworkDType } from '../tensor/dtype.js'
import { GRPO_SETTINGS } from '../tuning/grpo-settings.js'
import type { RewardFunction } from '../tuning/rewards.js'
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
  ...inputOptions('prompts'),
  reward: {
    type: 'list',
    help: 'reward functions: wer, or JavaScript modules, of which each exported function is one; required',
    placeholder: 'wer|file.js,…',
  },
  evalData: { type: 'string', help: 'held-out prompts, evaluated at the end of each epoch', placeholder: 'file' },
  ...OUTPUT_OPTION,
  ...GRPO_SETTINGS.options,
  rewardWeights: {
    type: 'list',
    help: 'weight of each reward function, in their order',
    placeholder: 'number,…',
    default: '1 each',
  },
  ...MODEL_OPTIONS,
} as const

/** `voxtorch grpo`: train a language model on rewards of its own answers. */
export const grpoRule = commandRule({
  name: 'grpo',
  summary: 'Train a language model on rewards of the answers that it samples: GRPO, Dr. GRPO or DAPO.',
  details: `  voxtorch grpo --model smollm2-135m-instruct --data prompts.jsonl --reward ./reward.js --learning-rate 1e-5 --output runs/grpo
  voxtorch grpo --model Qwen/Qwen2-Audio-7B-Instruct --data clips.jsonl --reward wer --beta 0.04

Each record of the data has "prompt": a text, or a list of messages with role and content, for an AudioLM with audio parts. A reward function gets
{ prompt, completion, completionIds, record } and returns a number. The reward wer is 1 - WER against the record's "reference". OUTPUT/adapter is
the adapter in PEFT's layout (with --no-lora OUTPUT/model), OUTPUT/report.html the report. The same command continues a killed run.`,
  options: OPTIONS,
  run: grpo,
})

async function grpo(values: OptionsOf<typeof OPTIONS>): Promise<number> {
  const { model, data, reward, evalData, output = 'output', dtype } = values
  const { gradientCheckpointing, bf16, progress } = values
  if (model === undefined) throw missingOption('model', 'a language model', 'DIR')
  if (data === undefined) throw missingOption('data', 'a file of prompts', 'FILE')
  if (reward === undefined) throw missingOption('reward', 'a reward function', 'wer|FILE')
  requireNetworkDType('--dtype', dtype)
  const changes = GRPO_SETTINGS.fromOptions({ ...values, rewardWeights: weightsOf(values.rewardWeights) })
  const { seed } = GRPO_SETTINGS.read('grpo', changes)
  if (values.lora === false) refuseWithoutAdapter('grpo', values, '--no-lora')
  const rewards = await rewardsOf(reward)
  const { AudioLM } = await import('../models/audio-lm/audio-lm.js')
  const { manualSeed } = await import('../tensor/random.js')
  const { trainGrpo } = await import('../tuning/grpo.js')
  const { network: loaded, tokenizer } = await openModel(model, values)
  using network = loaded
  await quantizeModel(network, values)
  manualSeed(seed)
  const trained = await withLanguageModel(network, network instanceof AudioLM, values)
  const results = await trainGrpo(trained, data, {
    ...{ ...changes, tokenizer, rewards, outputDir: output, args: defined({ gradientCheckpointing, bf16, progress }) },
    ...defined({ evalRecords: evalData }),
  })
  await printResults(results)
  return 0
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
