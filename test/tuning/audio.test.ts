import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import * as vt from '../../lib/index.js'
import { BadRecords } from '../../lib/kit/records.js'
import type { AudioLMConversation } from '../../lib/models/audio-lm/processor.js'
import { type RewardAnswer, trainDpo, trainGrpo, werReward } from '../../lib/tuning/index.js'
import { pairsOf } from '../../lib/tuning/pairs.js'
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

/** Log-probabilities of the tokens of a conversation, its ids, and where the answer starts; from the whole logits. */
async function tokensOf(model: vt.AudioLM, prompt: unknown, answer: unknown) {
  const whole = [...(prompt as unknown[]), ...(answer as unknown[])] as unknown as AudioLMConversation
  return vt.scope(() =>
    vt.noGrad(async () => {
      const start = (await model.prepare(prompt as AudioLMConversation)).inputIds.size(1)
      const inputs = await model.prepare(whole, { addGenerationPrompt: false })
      const { logits } = await model.eval().forward(inputs)
      const rows = vt.functional.logSoftmax((logits as vt.Tensor).squeeze(0), -1).toArray() as number[][]
      const ids = ((inputs.inputIds.toArray() as unknown[][])[0] as unknown[]).map(Number)
      return { ids, start, logps: ids.map((id, i) => (i === 0 ? 0 : (rows[i - 1]?.[id] as number))) }
    }),
  )
}

const meanOf = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

/** Sum of the log-probabilities of an answer. */
async function logpOf(model: vt.AudioLM, prompt: unknown, answer: unknown): Promise<number> {
  const { logps, start } = await tokensOf(model, prompt, answer)
  return logps.slice(start).reduce((sum, value) => sum + value, 0)
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

it('ORPO with clips has the odds of the whole logits, and a supervised loss without the audio tokens', async () => {
  const { model, peft, tokenizer } = await adapted()
  const { valid } = await trainDpo(peft, records as never, {
    ...{ tokenizer, loss: 'orpo', outputDir: join(directory, 'orpo'), batchSize: 3, learningRate: 0.02, beta: 0.4 },
    ...{ maxSteps: 2, evalRecords: records as never, args: { reportTo: 'none' } },
  })
  const supervised: number[] = []
  const odds: number[] = []
  for (const { prompt, chosen, rejected } of records) {
    const [good, bad] = [await tokensOf(model, prompt, chosen), await tokensOf(model, prompt, rejected)]
    const targets = good.ids.map((id, i) => i > 0 && id !== model.config.audioTokenIndex)
    supervised.push(...good.logps.filter((_, i) => targets[i]))
    const [better, worse] = [good, bad].map(({ logps, start }) => meanOf(logps.slice(start))) as [number, number]
    const ratio = better - worse - (Math.log1p(-Math.exp(better)) - Math.log1p(-Math.exp(worse)))
    odds.push(-Math.log1p(Math.exp(-ratio)))
    if (prompt !== prompts[2]) expect(targets.filter((one) => !one).length).toBeGreaterThan(5)
  }
  const loss = -meanOf(supervised) - 0.4 * meanOf(odds)
  expect(Math.abs((valid?.loss as number) / loss - 1)).toBeLessThan(1e-5)
  model.dispose()
})

it.each(['keep_start', 'keep_end'] as const)(
  'KTO cuts a longer answer of another record, and not the clip, with %s',
  async (truncationMode) => {
    const { model, peft, tokenizer } = await adapted()
    const long = `${'very '.repeat(40)}long`
    const labeled = prompts.map((prompt, i) => ({
      prompt,
      completion: assistant(i === 1 ? long : `yes ${i}`),
      label: i !== 1,
    }))
    const length = (content: string) => tokenizer.encode(content, { addSpecialTokens: false }).inputIds.length
    const { ids: whole, start } = await tokensOf(model, prompts[1], assistant(long))
    const maxLength = whole.length
    expect(maxLength).toBeGreaterThan(length(long))
    const settings = { maxLength, truncationMode, loss: 'kto', batchSize: 3 } as const
    const pairs = await pairsOf(model, tokenizer, labeled as never, settings, new BadRecords('stop'), 'records')
    const audioId = model.config.audioTokenIndex as number
    const countOf = (ids: readonly number[] = []) => ids.filter((id) => id === audioId).length
    // Prompts 0 and 2 have other answers: that of the last record, and the long one.
    const [first, second, third] = pairs as [(typeof pairs)[0], (typeof pairs)[0], (typeof pairs)[0]]
    expect(countOf(first.klChosen?.ids)).toBe(countOf(first.chosen?.ids))
    expect(countOf(first.klChosen?.ids)).toBeGreaterThan(5)
    expect(countOf(second.klRejected?.ids)).toBe(countOf(second.rejected?.ids))
    for (const one of pairs) expect((one.klChosen ?? one.klRejected)?.ids.length).toBeLessThanOrEqual(maxLength)
    const answer = third.klChosen as { ids: number[]; start: number }
    const own = third.chosen as { ids: number[]; start: number }
    const expected = [...own.ids.slice(0, own.start), ...whole.slice(start)]
    const kept = truncationMode === 'keep_start' ? expected.slice(0, maxLength) : expected.slice(-maxLength)
    expect(answer.ids).toEqual(kept)
    const results = await trainDpo(peft, labeled as never, {
      ...{ tokenizer, ...settings, outputDir: join(directory, `kto-${truncationMode}`), maxSteps: 2 },
      args: { reportTo: 'none' },
    })
    expect(Number.isFinite(results.trainingLoss)).toBe(true)
    expect(results.badRecords.count).toBe(0)
    model.dispose()
  },
)

it('refuses a text with an audio token in prompts and answers', async () => {
  const { model, peft, tokenizer } = await adapted()
  const run = async (record: unknown, more: object = {}) => {
    const { badRecords } = await trainDpo(peft, [records[0], records[2], record] as never, {
      ...{ tokenizer, outputDir: join(directory, `token${refusals++}`), onBadRecord: 'skip', maxSteps: 1 },
      ...{ args: { saveStrategy: 'no', reportTo: 'none' }, ...more },
    })
    return badRecords
  }
  let refusals = 0
  const bad = { count: 1, reasons: { 'invalid record': 1 } }
  const token = model.audioToken
  expect(await run(records[1])).toEqual({ count: 0, reasons: {} })
  for (const prompt of [prompts[0], prompts[2], 'Why? ']) {
    const isText = typeof prompt === 'string'
    const of = (content: string) => (isText ? content : assistant(content))
    expect(await run({ prompt, chosen: of(`I hear ${token}`), rejected: of('no') })).toEqual(bad)
    expect(await run({ prompt, chosen: of('yes'), rejected: of(`${token}${token}`) })).toEqual(bad)
    expect(await run({ prompt, completion: of(token), label: true }, { loss: 'kto', onBadRecord: 'skip' })).toEqual(bad)
  }
  expect(await run({ prompt: `Why ${token}? `, chosen: 'yes', rejected: 'no' })).toEqual(bad)
  for (const prompt of [user({ type: 'text', text: `Why ${token}?` }), `Why ${token}?`]) {
    const { badRecords } = await trainGrpo(peft, [{ prompt: prompts[2] }, { prompt }] as never, {
      ...{ tokenizer, rewards: () => 0, outputDir: join(directory, `token${refusals++}`), onBadRecord: 'skip' },
      ...{ maxSteps: 1, numGenerations: 2, maxCompletionLength: 3, args: { saveStrategy: 'no', reportTo: 'none' } },
    })
    expect(badRecords).toEqual(bad)
  }
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
