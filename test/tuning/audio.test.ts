import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import * as vt from '../../lib/index.js'
import type { AudioLMConversation } from '../../lib/models/audio-lm/processor.js'
import { type RewardAnswer, trainDpo, trainGrpo, werReward } from '../../lib/tuning/index.js'
import { fixturePath } from '../helpers.js'

vt.setNumThreads(1)
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-tuning-audio-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const folder = fixturePath('models/audio-lm-folder-qwen2_audio')

const samplesOf = (count: number, factor: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => (((i * i * 37 + i * factor) % 2001) - 1000) / 4096)
const audio = (count: number, factor: number) => ({ type: 'audio', audio: samplesOf(count, factor) })
const user = (...content: unknown[]) => [{ role: 'user', content }]
const assistant = (content: string) => [{ role: 'assistant', content }]

// Clips of unequal lengths, two clips, and none.
const prompts = [
  user(audio(4960, 11), { type: 'text', text: 'Who?' }),
  user(audio(1600, 5), { type: 'text', text: 'and' }, audio(3200, 7)),
  user({ type: 'text', text: 'Why?' }),
]
const records = prompts.map((prompt, i) => ({ prompt, chosen: assistant(`yes ${i}`), rejected: assistant('no') }))

async function adapted() {
  const model = await vt.AudioLM.fromPretrained(folder)
  vt.manualSeed(3)
  const peft = model.trainParts({ encoder: 'lora', connector: 'lora', decoder: 'lora' }, { r: 2 })
  return { model, peft: peft as vt.PeftModel<vt.AudioLM>, tokenizer: model.tokenizer as vt.Tokenizer }
}

/** Sum of the log-probabilities of an answer, from the whole logits. */
async function logpOf(model: vt.AudioLM, prompt: unknown, answer: unknown): Promise<number> {
  const whole = [...(prompt as unknown[]), ...(answer as unknown[])] as unknown as AudioLMConversation
  return vt.scope(() =>
    vt.noGrad(async () => {
      const start = (await model.prepare(prompt as AudioLMConversation)).inputIds.size(1)
      const inputs = await model.prepare(whole, { addGenerationPrompt: false })
      const { logits } = await model.eval().forward(inputs)
      const rows = vt.functional.logSoftmax((logits as vt.Tensor).squeeze(0), -1).toArray() as number[][]
      const ids = ((inputs.inputIds.toArray() as unknown[][])[0] as unknown[]).map(Number)
      return ids.reduce((sum, id, i) => (i < start ? sum : sum + (rows[i - 1]?.[id] as number)), 0)
    }),
  )
}

it('DPO with clips in the prompt has the loss of the whole logits', async () => {
  const { model, peft, tokenizer } = await adapted()
  const options = { tokenizer, outputDir: join(directory, 'dpo'), batchSize: 2, learningRate: 0.02, beta: 0.5 }
  const more = { maxSteps: 3, evalRecords: records as never, args: { reportTo: 'none' as const } }
  const { valid } = await trainDpo(peft, records as never, { ...options, ...more })
  let [loss, moved] = [0, 0]
  for (const { prompt, chosen, rejected } of records) {
    const margin = async () => (await logpOf(model, prompt, chosen)) - (await logpOf(model, prompt, rejected))
    const delta = (await margin()) - (await peft.disableAdapter(margin))
    loss += Math.log1p(Math.exp(-0.5 * delta)) / records.length
    moved = Math.max(moved, Math.abs(delta))
  }
  expect(moved).toBeGreaterThan(1e-3)
  expect(Math.abs((valid?.loss as number) / loss - 1)).toBeLessThan(1e-5)
  const grown = model.namedParameters().filter(([name, one]) => name.includes('lora_B') && one.ne(0).any().item())
  for (const part of ['audio_tower', 'multi_modal_projector', 'language_model'])
    expect(
      grown.some(([name]) => name.startsWith(part)),
      part,
    ).toBe(true)
  model.dispose()
})

it('refuses audio that it cannot use, by record', async () => {
  const { model, peft, tokenizer } = await adapted()
  const run = (record: unknown, more: object = {}) =>
    trainDpo(peft, [records[0], record] as never, {
      ...{ tokenizer, outputDir: join(directory, 'refused'), args: { saveStrategy: 'no', reportTo: 'none' }, ...more },
    })
  const [good] = records as [(typeof records)[0]]
  await expect(run({ ...good, rejected: good.chosen })).rejects.toThrow(/^records\[1\]: expected chosen and rejected/)
  await expect(run({ ...good, chosen: [{ role: 'assistant', content: [audio(1600, 5)] }] })).rejects.toThrow(
    /^records\[1\]: chosen: expected a text, got audio/,
  )
  const missing = user({ type: 'audio', audio: join(directory, 'nowhere.wav') })
  await expect(run({ ...good, prompt: missing })).rejects.toThrow(/^records\[1\]: .*nowhere\.wav/)
  await expect(run(good, { maxLength: 30, truncationMode: 'keep_end' })).rejects.toThrow(
    /^records\[0\]: expected prompt, audio and answer within maxLength 30/,
  )
  model.dispose()
})

it('GRPO samples from prompts with clips as generate does, and trains every part', async () => {
  const { model, peft, tokenizer } = await adapted()
  const answers: (readonly number[])[] = []
  const few = (answer: RewardAnswer) => {
    answers.push(answer.completionIds)
    return answer.completionIds.filter((id) => id < 128).length
  }
  const data = prompts.map((prompt) => ({ prompt, reference: 'yes' }))
  const { valid } = await trainGrpo(peft, data as never, {
    ...{ tokenizer, rewards: [few, werReward()], outputDir: join(directory, 'grpo'), numGenerations: 4, batchSize: 2 },
    ...{ maxCompletionLength: 5, learningRate: 0.02, maxSteps: 4, numIterations: 2, beta: 0.1 },
    ...{ evalRecords: data as never, args: { reportTo: 'none' } },
  })
  expect(valid?.['rewards/wer']).toBeTypeOf('number')
  const greedy = answers.slice(-3)
  for (const [i, prompt] of prompts.entries()) {
    const inputs = await model.prepare(prompt as AudioLMConversation)
    const { tokens } = await model.eval().generate(inputs, { maxNewTokens: 5 })
    expect(greedy[i]).toEqual(tokens[0])
  }
  const grown = model.namedParameters().filter(([name, one]) => name.includes('lora_B') && one.ne(0).any().item())
  expect(grown.some(([name]) => name.startsWith('audio_tower'))).toBe(true)
  model.dispose()
})
