import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import * as vt from '../../lib/index.js'
import { type RewardAnswer, type TrainGrpoOptions, trainGrpo, werReward } from '../../lib/tuning/index.js'
import { normalizeText } from '../../lib/tuning/normalize-text.js'
import { fixture, settledTensors } from '../helpers.js'
import { writeTextModel } from '../serve/text-model.mjs'

vt.setNumThreads(1)
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-grpo-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const model = join(directory, 'model')
await writeTextModel(model, vt.DecoderLM, { hiddenSize: 32, intermediateSize: 48, numHiddenLayers: 2 })
const tokenizer = await vt.Tokenizer.fromPretrained(model)

const records = ['ant', 'bee', 'cat', 'dog'].map((word) => ({ prompt: [{ role: 'user', content: word }], word }))

/** The fraction of tokens that are capital letters or the signs before them. */
const capitals = ({ completionIds }: RewardAnswer) =>
  completionIds.filter((id) => id < 91).length / completionIds.length

let runs = 0
const options = (more: Partial<TrainGrpoOptions> = {}): TrainGrpoOptions => ({
  ...{ tokenizer, rewards: capitals, outputDir: join(directory, `run${runs++}`), numGenerations: 4, batchSize: 2 },
  ...{ maxCompletionLength: 6, learningRate: 5e-3, logSteps: 1, maxSteps: 6, ...more },
  args: { reportTo: 'none', ...more.args },
})

async function adapted(dropout = 0, r = 4): Promise<vt.PeftModel<vt.DecoderLM>> {
  const network = await vt.DecoderLM.fromPretrained(model)
  vt.manualSeed(1)
  return vt.getPeftModel(network, { r, loraAlpha: 4 * r, loraDropout: dropout, targetModules: 'all-linear' })
}

const valuesOf = (network: vt.Module) =>
  vt.scope(() => network.parameters().map((one) => (one.requiresGrad ? one.detach().toArray() : [])))

async function trained(given: TrainGrpoOptions, dropout = 0, r = 4) {
  const peft = await adapted(dropout, r)
  const logs: Record<string, number>[] = []
  const onLog = ({ logs: entry }: { logs: Record<string, number> }) => {
    if ('reward' in entry) logs.push(entry)
  }
  const callbacks = [...(given.callbacks ?? []), { onLog }]
  try {
    const results = await trainGrpo(peft, records, { ...given, callbacks })
    return { results, logs, values: valuesOf(peft.model) }
  } finally {
    peft.model.dispose()
  }
}

describe('trainGrpo', () => {
  it('learns tokens that the reward prefers, and writes adapter, metrics and a report', async () => {
    const folder = join(directory, 'learns')
    const { results, logs } = await trained(
      options({
        ...{ maxSteps: 30, numGenerations: 8, batchSize: 4, beta: 0.0001, learningRate: 0.01 },
        ...{ evalRecords: records, outputDir: folder },
        args: { reportTo: ['jsonl', 'html'], lrSchedulerType: 'constant' },
      }),
      ...[0, 8],
    )
    const mean = (some: typeof logs) => some.reduce((sum, { reward }) => sum + (reward as number), 0) / some.length
    expect(mean(logs.slice(0, 2))).toBeLessThan(0.45)
    expect(mean(logs.slice(-3))).toBeGreaterThan(0.8)
    expect(results.valid?.reward).toBeGreaterThan(0.8)
    expect(results.valid?.['rewards/capitals']).toBe(results.valid?.reward)
    expect(logs.at(-1)).toMatchObject({ completionLength: expect.any(Number), kl: expect.any(Number) })
    expect(logs.at(-1)?.kl).toBeGreaterThan(0)
    for (const file of ['adapter/adapter_config.json', 'metrics.jsonl', 'report.html', 'results.json'])
      expect(existsSync(join(folder, file)), file).toBe(true)
    expect(readFileSync(join(folder, 'report.html'), 'utf8')).toContain('completionLength')
  })

  it('two runs of a seed are equal, and so is a killed one that continues between steps with the same answers', async () => {
    const more = { numIterations: 2, accumulation: 2, batchSize: 1, beta: 0.05, saveSteps: 3 } as const
    const whole = await trained(options(more), 0.1)
    const again = await trained(options(more), 0.1)
    expect(again.values).toEqual(whole.values)
    expect(again.logs).toEqual(whole.logs)
    const killed = options(more)
    const onStepEnd = ({ state }: vt.CallbackContext) => {
      if (state.globalStep === 4) throw new Error('killed')
    }
    await expect(trained({ ...killed, callbacks: [{ onStepEnd }] }, 0.1)).rejects.toThrow('killed')
    const resumed = await trained(killed, 0.1)
    expect(resumed.values).toEqual(whole.values)
    expect(resumed.results).toEqual(whole.results)
    const other = await trained(options({ ...more, seed: 7 }), 0.1)
    expect(other.values).not.toEqual(whole.values)
  })

  it.each([
    ['another batch size', { batchSize: 2 }, records],
    ['other records', {}, [...records].reverse()],
    ['another number of answers', { numGenerations: 3 }, records],
  ] as const)('samples new answers if it continues with %s', async (_, changes, others) => {
    const first = options({ batchSize: 1, numIterations: 2, saveSteps: 1 })
    const onStepEnd = ({ state }: vt.CallbackContext) => {
      // The checkpoint is that of step 1.
      if (state.globalStep === 2) throw new Error('killed')
    }
    await expect(trained({ ...first, callbacks: [{ onStepEnd }] })).rejects.toThrow('killed')
    const sampled: [word: string, ids: string][] = []
    const rewards = (answer: RewardAnswer) => {
      sampled.push([answer.record.word as string, answer.completionIds.join(',')])
      return capitals(answer)
    }
    const warnings = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const peft = await adapted()
    const forward = peft.model.forward.bind(peft.model)
    const rows: number[][] = []
    peft.model.forward = (inputs) => {
      if (peft.model.training && inputs.inputIds) rows.push(...(inputs.inputIds.toArray() as number[][]))
      return forward(inputs)
    }
    try {
      await trainGrpo(peft, others, { ...first, ...changes, rewards, maxSteps: 4 })
      expect(warnings.mock.calls.flat().join(' ')).toMatch(
        /trainGrpo: expected a checkpoint with answers to the prompts/,
      )
    } finally {
      warnings.mockRestore()
      peft.model.dispose()
    }
    expect(rows.length).toBeGreaterThan(0)
    for (const row of rows) {
      const ids = row.map(Number)
      const { word } = records.find((one) => tokenizer.decode(ids).includes(`user\n${one.word}`)) as (typeof records)[0]
      const answers = sampled.filter(([own]) => own === word).map(([, answer]) => answer)
      expect(answers.some((answer) => ids.join(',').includes(answer))).toBe(true)
    }
  })

  it.each([1, 0.7])(
    'has the loss and reward of the whole logits in the first step, at temperature %d',
    async (temperature) => {
      const seen: { ids: readonly number[]; reward: number; prompt: unknown }[] = []
      const rewards = (answer: RewardAnswer) => {
        const reward = capitals(answer)
        seen.push({ ids: answer.completionIds, reward, prompt: answer.prompt })
        return reward
      }
      const peft = await adapted()
      const shift = vt.noGrad(() => peft.model.parameters().filter(({ requiresGrad }) => requiresGrad))
      // Adapters that are not those of the reference.
      vt.noGrad(() => {
        for (const one of shift) one.add_(0.02)
      })
      const logps = async (ids: number[], answer: readonly number[]) =>
        vt.scope(() =>
          vt.noGrad(async () => {
            const { logits } = await peft.model.forward({ inputIds: vt.tensor([[...ids, ...answer]]) })
            const rows = vt.functional
              .logSoftmax((logits as vt.Tensor).squeeze(0).div(temperature), -1)
              .toArray() as number[][]
            return answer.map((id, i) => rows[ids.length - 1 + i]?.[id] as number)
          }),
        )
      const losses: number[] = []
      const onLog = ({ logs }: { logs: Record<string, number> }) => {
        if (logs.reward !== undefined) losses.push(logs.loss as number)
      }
      const more = { temperature, beta: 0.3, maxSteps: 1, learningRate: 0, batchSize: 4, lossType: 'grpo' as const }
      await trainGrpo(peft, records, { ...options({ ...more, rewards }), callbacks: [{ onLog }] })
      // Ratios are 1 and advantages of a group sum to 0: what is left is KL.
      let expected = 0
      for (const { ids, prompt } of seen) {
        const start = tokenizer.applyChatTemplate(prompt as vt.ChatMessage[], { addGenerationPrompt: true })
        const own = await logps(start, ids)
        const reference = await peft.disableAdapter(() => logps(start, ids))
        const kl = own.map((value, i) => Math.exp(reference[i]! - value) - (reference[i]! - value) - 1)
        expected += kl.reduce((sum, value) => sum + value, 0) / kl.length / seen.length
      }
      expect(seen).toHaveLength(16)
      expect(expected).toBeGreaterThan(1e-4)
      expect(Math.abs(losses[0]! / (0.3 * expected) - 1)).toBeLessThan(1e-3)
      peft.model.dispose()
    },
  )

  it('samples colder answers at a low temperature, and refuses 0', async () => {
    const lengths = async (temperature: number) => {
      const texts = new Set<string>()
      const rewards = ({ completionIds }: RewardAnswer) => {
        texts.add(`${completionIds}`)
        return 0
      }
      await trained(options({ rewards, temperature, maxSteps: 1, batchSize: 4, numGenerations: 8 }))
      return texts.size
    }
    expect(await lengths(1e-6)).toBe(4)
    expect(await lengths(1)).toBeGreaterThan(16)
    await expect(trained(options({ temperature: 0 }))).rejects.toThrow(
      /^trainGrpo: expected temperature to be a number above 0, got 0/,
    )
  })

  it('counts the tokens of prompts and answers that a step has had', async () => {
    let tokens = 0
    const rewards = ({ prompt, completionIds }: RewardAnswer) => {
      const ids = tokenizer.applyChatTemplate(prompt as vt.ChatMessage[], { addGenerationPrompt: true })
      tokens += ids.length + completionIds.length
      return 0
    }
    let state: vt.CallbackContext['state'] | undefined
    const onTrainEnd = ({ state: end }: vt.CallbackContext) => {
      state = end
    }
    const speeds: number[] = []
    const log = (_: unknown, speed?: { tokensPerSecond: number }) => void (speed && speeds.push(speed.tokensPerSecond))
    const more = { maxSteps: 3, accumulation: 2, numIterations: 1, loggers: [{ log }] }
    await trained(options({ rewards, ...more, callbacks: [{ onTrainEnd }] }))
    expect(tokens).toBeGreaterThan(3 * 2 * 2 * 4 * 8)
    expect(state?.tokensSeen).toBe(tokens)
    expect(speeds).toHaveLength(3)
    for (const speed of speeds) expect(speed).toBeGreaterThan(0)
  })

  it('refuses, or counts, rewards that are not numbers, by function and record', async () => {
    const file = join(directory, 'prompts.jsonl')
    writeFileSync(file, records.map((record) => JSON.stringify(record)).join('\n'))
    const peft = await adapted()
    const run = (rewards: TrainGrpoOptions['rewards'], more: Partial<TrainGrpoOptions> = {}) =>
      trainGrpo(peft, file, options({ rewards, maxSteps: 1, ...more }))
    const strict = ({ record }: RewardAnswer) => (record.word === 'cat' ? Number.NaN : 1)
    await expect(run(strict, { batchSize: 4 })).rejects.toMatchObject({
      message: expect.stringMatching(
        /^trainGrpo: reward 'strict' of .*prompts\.jsonl, line 3: expected a number or null, got NaN/,
      ),
      ...{ code: 'ERR_DATA', file, line: 3, reward: 'strict' },
    })
    const throws = async () => {
      throw new Error('no judge')
    }
    await expect(run([capitals, throws])).rejects.toThrow(
      /reward 'throws' of .*line \d: expected a number, but it threw no judge/,
    )
    await expect(run((() => 'high') as never)).rejects.toThrow(/got 'high'|got "high"|got high/)
    const { badRewards } = await run([capitals, strict, throws], { batchSize: 4, onBadReward: 'skip' })
    expect(badRewards).toEqual({ count: 20, reasons: { strict: 4, throws: 16 } })
    await expect(run([])).rejects.toThrow(/at least one reward function/)
    await expect(run(1 as never)).rejects.toThrow(/rewards\[0\]: expected a function, got 1/)
    await expect(run(capitals, { rewardWeights: [1, 2] })).rejects.toThrow(/rewardWeights/)
    await expect(run(werReward())).rejects.toThrow(/reward 'wer' of .*reference/)
    peft.model.dispose()
  })

  it('refuses prompts and settings that it cannot use', async () => {
    const peft = await adapted()
    const [good] = records
    const run = (more: unknown, changes: Partial<TrainGrpoOptions> = {}) =>
      trainGrpo(peft, [good, more] as never, options({ maxSteps: 1, ...changes }))
    await expect(run({ text: 'x' })).rejects.toThrow(/^records\[1\]: prompt: expected a text or a list of messages/)
    await expect(run({ prompt: 'x'.repeat(99) }, { maxLength: 50 })).rejects.toThrow(
      /records\[1\]: prompt: expected 1 to 50/,
    )
    const audio = { prompt: [{ role: 'user', content: [{ type: 'audio', audio: 'a.wav' }] }] }
    await expect(run(audio)).rejects.toThrow(/records\[1\]: .*audio/)
    const { badRecords } = await run({ prompt: '' }, { onBadRecord: 'skip' })
    expect(badRecords).toEqual({ count: 1, reasons: { 'invalid record': 1 } })
    peft.model.unfreeze('model.norm')
    await expect(run(good, { beta: 0.1 })).rejects.toThrow(/^trainGrpo: beta: expected 0 .*'model\.norm\.weight'/)
    peft.model.dispose()
    const network = await vt.DecoderLM.fromPretrained(model)
    await expect(trainGrpo(network, records, options({ beta: 0.1 }))).rejects.toThrow(
      /^trainGrpo: beta: expected 0 without/,
    )
    await trainGrpo(network, [{ prompt: 'a' }], options({ maxSteps: 1, outputDir: join(directory, 'whole') }))
    expect(existsSync(join(directory, 'whole/model/model.safetensors'))).toBe(true)
    network.dispose()
  })

  it('leaves no tensors', async () => {
    await trained(options({ maxSteps: 1 }))
    const before = await settledTensors()
    await trained(options({ maxSteps: 2, numIterations: 2 }))
    expect(await settledTensors()).toBe(before)
  })
})

it('the WER reward normalizes as Whisper’s basic normalizer', async () => {
  const { cases } = await fixture<{ text?: string; normalized: string }>('tuning/grpo')
  const texts = cases.filter(({ text }) => text !== undefined)
  expect(texts.length).toBeGreaterThan(5)
  for (const { text, normalized } of texts) expect(normalizeText(text as string)).toBe(normalized.trim())
  const answer = (completion: string, reference: unknown) =>
    ({
      ...{ prompt: '', completion, completionIds: [] },
      record: { reference, other: 'two' },
    }) as unknown as RewardAnswer
  expect(await werReward()(answer('The CAT, sat!', 'the cat sat'))).toBe(1)
  expect(await werReward()(answer('the dog sat down', 'the cat sat'))).toBeCloseTo(1 / 3, 12)
  expect(await werReward()(answer('one two three four', 'a'))).toBe(0)
  expect(await werReward({ field: 'other' })(answer('two', 'one'))).toBe(1)
})
