import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import * as vt from '../../lib/index.js'
import { type PreferenceRecord, type TrainDpoOptions, trainDpo } from '../../lib/tuning/index.js'
import { settledTensors } from '../helpers.js'
import { writeTextModel } from '../serve/text-model.mjs'

vt.setNumThreads(1)
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-dpo-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const model = join(directory, 'model')
await writeTextModel(model, vt.DecoderLM, { hiddenSize: 32, intermediateSize: 48, numHiddenLayers: 2 })
const tokenizer = await vt.Tokenizer.fromPretrained(model)

const LOSSES = ['sigmoid', 'ipo', 'kto', 'orpo', 'simpo'] as const
const WORDS = 'ant bee cat dog eel fox gnu hen ibis jay kite lark'.split(' ')

/** Questions whose better answers end in "yes". */
const recordOf = (word: string, i: number): PreferenceRecord => ({
  prompt: [{ role: 'user', content: `is ${word} ${i}?` }],
  chosen: [{ role: 'assistant', content: `${word} yes` }],
  rejected: [{ role: 'assistant', content: `${word} no` }],
})
const records = WORDS.slice(0, 8).map(recordOf)
const heldOut = WORDS.slice(8).map(recordOf)

let runs = 0
const options = (more: Partial<TrainDpoOptions> = {}): TrainDpoOptions => ({
  ...{ tokenizer, outputDir: join(directory, `run${runs++}`), evalRecords: heldOut, batchSize: 4, learningRate: 2e-3 },
  ...{ beta: 0.5, epochs: 6, ...more },
  args: { reportTo: 'none', ...more.args },
})

async function adapted(dropout = 0): Promise<vt.PeftModel<vt.DecoderLM>> {
  const network = await vt.DecoderLM.fromPretrained(model)
  vt.manualSeed(1)
  return vt.getPeftModel(network, { r: 4, loraAlpha: 16, loraDropout: dropout, targetModules: 'all-linear' })
}

const valuesOf = (network: vt.Module) =>
  vt.scope(() => network.parameters().map((one) => (one.requiresGrad ? one.detach().toArray() : [])))

async function trained(more: Partial<TrainDpoOptions> = {}, peft?: vt.PeftModel<vt.DecoderLM>) {
  const own = peft ?? (await adapted())
  const results = await trainDpo(own, records, options(more))
  const values = valuesOf(own.model)
  own.model.dispose()
  return { results, values }
}

/** The sum of the log-probabilities of an answer, from the logits of the whole vocabulary. */
async function logpOf(
  network: vt.DecoderLM,
  { prompt, chosen, rejected }: PreferenceRecord,
  which: 'chosen' | 'rejected',
) {
  const messages = prompt as vt.ChatMessage[]
  const start = tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true }).length
  const answer = (which === 'chosen' ? chosen : rejected) as vt.ChatMessage[]
  const ids = tokenizer.applyChatTemplate([...messages, ...answer])
  return vt.scope(() =>
    vt.noGrad(async () => {
      const { logits } = await network.forward({ inputIds: vt.tensor([ids]) })
      const tokens = vt.functional.logSoftmax((logits as vt.Tensor).squeeze(0), -1)
      const found = ids.map((id, i) =>
        i < start
          ? 0
          : Number(
              tokens
                .select(0, i - 1)
                .select(0, id)
                .item(),
            ),
      )
      const every = ids.slice(1).map((id, i) => Number(tokens.select(0, i).select(0, id).item()))
      return { sum: found.reduce((sum, value) => sum + value, 0), length: ids.length - start, every }
    }),
  )
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x))
const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

describe('trainDpo', () => {
  it.each(LOSSES)('%s: held-out pairs are preferred after training, and the other way round', async (loss) => {
    // ORPO's supervised loss needs longer to leave the order of the pairs to the other part.
    const more = { loss, ...(loss === 'orpo' && { beta: 2, epochs: 12 }) }
    const { results: before } = await trained({ ...more, learningRate: 0, epochs: 1 })
    expect(before.valid?.rewardsAccuracies).toBeLessThan(1)
    const { results } = await trained(more)
    expect(results.valid?.rewardsAccuracies).toBe(1)
    expect(results.samples).toEqual({ train: 8, valid: 4, test: 0 })
    const turned = records.map(({ prompt, chosen, rejected }) => ({ prompt, chosen: rejected, rejected: chosen }))
    const peft = await adapted()
    const { valid } = await trainDpo(peft, turned as PreferenceRecord[], options(more))
    expect(valid?.rewardsAccuracies).toBe(0)
    peft.model.dispose()
  })

  it.each([
    ['sigmoid', Math.log(2)],
    ['ipo', 1],
    ['kto', 0.5],
  ] as const)('%s begins where model and reference are equal', async (loss, expected) => {
    const { results } = await trained({ loss, learningRate: 0, epochs: 1 })
    expect(results.valid?.loss).toBeCloseTo(expected, 5)
    expect(results.valid?.rewardsMargins).toBeCloseTo(0, 5)
  })

  it.each(LOSSES)('%s: loss and rewards are those of the whole logits', async (loss) => {
    const peft = await adapted()
    const { valid } = await trainDpo(peft, records, options({ loss, epochs: 2 }))
    const rows = async (which: 'chosen' | 'rejected') =>
      Promise.all(heldOut.map((record) => logpOf(peft.model, record, which)))
    const [chosen, rejected] = [await rows('chosen'), await rows('rejected')]
    const [refChosen, refRejected] = await peft.disableAdapter(
      async () => [await rows('chosen'), await rows('rejected')] as const,
    )
    const beta = 0.5
    const means = loss === 'orpo' || loss === 'simpo'
    const rewards = (own: typeof chosen, reference: typeof chosen) =>
      own.map(({ sum, length }, i) => beta * (means ? sum / length : sum - reference[i]!.sum))
    const [better, worse] = [rewards(chosen, refChosen), rewards(rejected, refRejected)]
    const margins = better.map((value, i) => value - worse[i]!)
    expect(valid?.rewardsChosen).toBeCloseTo(mean(better), 4)
    expect(valid?.rewardsMargins).toBeCloseTo(mean(margins), 4)
    if (loss === 'sigmoid') expect(valid?.loss).toBeCloseTo(mean(margins.map((one) => -Math.log(sigmoid(one)))), 4)
    const odds = (x: number) => x - Math.log1p(-Math.exp(x))
    if (loss === 'orpo') {
      const ratios = better.map((value, i) => odds(value / beta) - odds(worse[i]! / beta))
      const supervised = -mean(chosen.flatMap(({ every }) => every))
      expect(valid?.loss).toBeCloseTo(supervised - mean(ratios.map((one) => beta * Math.log(sigmoid(one)))), 4)
    }
    if (loss === 'kto') {
      // Each prompt with the answers of the pair before.
      const others = heldOut.map((record, i) => {
        const { chosen, rejected } = heldOut.at(i - 1) as PreferenceRecord
        return { ...record, chosen, rejected }
      })
      const sums = async () => [
        ...(await Promise.all(others.map(async (record) => (await logpOf(peft.model, record, 'chosen')).sum))),
        ...(await Promise.all(others.map(async (record) => (await logpOf(peft.model, record, 'rejected')).sum))),
      ]
      const [own, reference] = [await sums(), await peft.disableAdapter(sums)]
      const kl = Math.max(0, mean(own.map((value, i) => value - reference[i]!))) * beta
      const losses = [...better.map((one) => 1 - sigmoid(one - kl)), ...worse.map((one) => 1 - sigmoid(kl - one))]
      expect(valid?.loss).toBeCloseTo(mean(losses), 4)
    }
    if (loss === 'simpo') expect(valid?.loss).toBeCloseTo(mean(margins.map((one) => -Math.log(sigmoid(one - 0.5)))), 4)
    if (loss === 'ipo') {
      const each = better.map(
        (value, i) => value / beta / chosen[i]!.length - worse[i]! / beta / rejected[i]!.length - 1 / (2 * beta),
      )
      expect(valid?.loss).toBeCloseTo(mean(each.map((one) => one ** 2)), 4)
    }
    peft.model.dispose()
  })

  it('KTO with labels: loss as in TRL, with the answer before in the batch of the data', async () => {
    const labels = [true, false, true, true]
    const given = heldOut.map(({ prompt, chosen, rejected }, i) => ({
      ...{ prompt: prompt as vt.ChatMessage[], completion: labels[i] ? chosen : rejected, label: labels[i] as boolean },
    }))
    const train = records.map(({ prompt, chosen, rejected }, i) => ({
      ...{ prompt: prompt as vt.ChatMessage[], completion: i % 3 ? chosen : rejected, label: i % 3 > 0 },
    }))
    const run = async (precomputeRefLogProbs: boolean) => {
      const peft = await adapted()
      const more = { loss: 'kto', epochs: 3, batchSize: 3, desirableWeight: 1.5, precomputeRefLogProbs } as const
      return { peft, ...(await trainDpo(peft, train, options({ ...more, evalRecords: given }))) }
    }
    const { peft, valid, samples } = await run(false)
    expect(samples).toEqual({ train: 8, valid: 4, test: 0 })
    // Batches of three records; the last one is alone.
    const others = [2, 0, 1, 2]
    const sumsOf = async () => {
      const sum = async (record: unknown) => (await logpOf(peft.model, record as PreferenceRecord, 'chosen')).sum
      const own = given.map(({ prompt, completion }) => ({ prompt, chosen: completion, rejected: completion }))
      const mixed = own.map((one, i) => ({ ...one, chosen: own[others[i] as number]?.chosen }))
      return { own: await Promise.all(own.map(sum)), mixed: await Promise.all(mixed.map(sum)) }
    }
    const [now, before] = [await sumsOf(), await peft.disableAdapter(sumsOf)]
    const ratios = now.own.map((value, i) => value - (before.own[i] as number))
    const kl = Math.max(0, mean(now.mixed.map((value, i) => value - (before.mixed[i] as number))))
    const losses = ratios.map((one, i) => (labels[i] ? 1.5 : 1) * (1 - sigmoid((labels[i] ? 0.5 : -0.5) * (one - kl))))
    expect(valid?.loss).toBeCloseTo(mean(losses), 4)
    expect(valid?.rewardsRejected).toBeCloseTo(0.5 * (ratios[1] as number), 4)
    expect(valid?.rewardsMargins).toBeGreaterThan(0)
    expect(valid).not.toHaveProperty('rewardsAccuracies')
    peft.model.dispose()
    const once = await run(true)
    expect(once.valid?.loss).toBeCloseTo(valid?.loss as number, 4)
    const [good] = train
    const refused = (record: unknown, more: Partial<TrainDpoOptions>) =>
      trainDpo(once.peft, [good, record] as never, options(more))
    await expect(refused(good, { loss: 'sigmoid' })).rejects.toThrow(/records\[0\]: completion: .*Use loss 'kto'/)
    await expect(refused({ ...good, label: 1 }, { loss: 'kto' })).rejects.toThrow(/records\[1\]: label: expected true/)
    await expect(refused({ ...good, chosen: 'x' }, { loss: 'kto' })).rejects.toThrow(/records\[1\]: .*got both/)
    once.peft.model.dispose()
  })

  it('a run that was killed ends with the same weights', async () => {
    const more = { loss: 'kto', loraplusLrRatio: 4, neftuneNoiseAlpha: 5, saveSteps: 4, epochs: 4 } as const
    const whole = await trained(more, await adapted(0.1))
    const killed = options(more)
    const onStepEnd = ({ state }: vt.CallbackContext) => {
      if (state.globalStep === 6) throw new Error('killed')
    }
    const peft = await adapted(0.1)
    await expect(trainDpo(peft, records, { ...killed, callbacks: [{ onStepEnd }] })).rejects.toThrow('killed')
    peft.model.dispose()
    const resumed = await trained(killed, await adapted(0.1))
    expect(resumed.values).toEqual(whole.values)
    expect(resumed.results).toEqual(whole.results)
  })

  it('computes the reference once or at each step, and writes the adapter, metrics and a report', async () => {
    const each = await trained({ args: { reportTo: ['jsonl', 'html'] }, outputDir: join(directory, 'reported') })
    const once = await trained({ precomputeRefLogProbs: true })
    expect(once.results.valid?.loss).toBeCloseTo(each.results.valid?.loss as number, 4)
    const folder = join(directory, 'reported')
    for (const file of ['adapter/adapter_config.json', 'metrics.jsonl', 'report.html', 'results.json'])
      expect(existsSync(join(folder, file)), file).toBe(true)
    expect(readFileSync(join(folder, 'metrics.jsonl'), 'utf8')).toContain('evalRewardsAccuracies')
    const network = await vt.DecoderLM.fromPretrained(model)
    const loaded = await vt.PeftModel.fromPretrained(network, join(folder, 'adapter'), { isTrainable: true })
    expect(valuesOf(loaded.model)).toEqual(each.values)
    network.dispose()
  })

  it('trains all weights against what they were', async () => {
    const network = await vt.DecoderLM.fromPretrained(model)
    const { valid } = await trainDpo(network, records, options())
    expect(valid?.rewardsAccuracies).toBe(1)
    expect(valid?.loss).toBeLessThan(Math.log(2))
    await expect(trainDpo(network, records, options({ precomputeRefLogProbs: false }))).rejects.toThrow(
      /^trainDpo: precomputeRefLogProbs: expected true without adapters/,
    )
    network.dispose()
  })

  it('computes the reference before training where weights besides adapters train', async () => {
    const peft = await adapted()
    peft.model.unfreeze('model.norm')
    await expect(trainDpo(peft, records, options({ precomputeRefLogProbs: false }))).rejects.toThrow(
      /^trainDpo: precomputeRefLogProbs: .*got false with 'model\.norm\.weight'/,
    )
    const both = async (more: Partial<TrainDpoOptions>) => {
      const own = await adapted()
      own.model.unfreeze('model.norm')
      return (await trained({ learningRate: 0.02, maxSteps: 3, ...more }, own)).results.valid
    }
    expect(await both({})).toEqual(await both({ precomputeRefLogProbs: true }))
    peft.model.dispose()
  })

  it('reads texts, conversations that share their beginning, and JSON Lines', async () => {
    const file = join(directory, 'pairs.jsonl')
    const texts = WORDS.map((word) => ({ prompt: `${word}: `, chosen: 'yes', rejected: 'no', score: 1 }))
    const shared = WORDS.map((word, i) => {
      const { prompt, chosen, rejected } = recordOf(word, i) as unknown as Record<string, vt.ChatMessage[]>
      return { chosen: [...prompt!, ...chosen!], rejected: [...prompt!, ...rejected!] }
    })
    writeFileSync(file, [...texts, ...shared].map((one) => JSON.stringify(one)).join('\n'))
    const peft = await adapted()
    const { samples } = await trainDpo(peft, file, options({ maxSteps: 1 }))
    expect(samples.train).toBe(24)
    // Records whose prompt is given are the same pairs as those that share it.
    const alike = async (given: PreferenceRecord[]) =>
      (await trained({ evalRecords: given, maxSteps: 1, learningRate: 0, loss: 'simpo' })).results.valid
    expect(await alike(shared)).toEqual(await alike(WORDS.map(recordOf)))
    peft.model.dispose()
  })

  it('refuses, or counts, records that cannot be used', async () => {
    const peft = await adapted()
    const good = records[0] as PreferenceRecord
    const long = [{ role: 'user', content: 'x'.repeat(80) }]
    const bad: [unknown, RegExp][] = [
      [{ ...good, rejected: good.chosen }, /records\[1\]: expected chosen and rejected answers that differ, got equal/],
      [{ ...good, chosen: '' }, /records\[1\]: expected prompt, chosen and rejected to be all texts or all lists/],
      [
        { ...good, chosen: [{ role: 'assistant', content: '' }] },
        /records\[1\]: chosen: expected an answer, got an empty/,
      ],
      [
        { ...good, prompt: long },
        /records\[1\]: expected tokens of the chosen answer within maxLength 64, got a prompt of/,
      ],
      [{ ...good, rejected: 7 }, /records\[1\]: rejected: expected a text or a list of messages/],
      [{ ...good, prompt: [{ content: 'x' }] }, /records\[1\]: prompt: expected a text or a list of messages/],
      [{ chosen: 'a', rejected: 'b' }, /records\[1\]: prompt: expected a text, got none/],
      [{ chosen: good.chosen, rejected: good.rejected }, /records\[1\]: prompt: expected one, or conversations/],
      [
        { prompt: '', chosen: 'a', rejected: 'b' },
        /records\[1\]: prompt: expected at least one token before the answers/,
      ],
      [{ ...good, tools: 'x' }, /records\[1\]: tools: expected a list/],
      [null, /records\[1\]: expected an object, got null/],
    ]
    for (const [record, message] of bad) {
      const refused = trainDpo(peft, [good, record] as PreferenceRecord[], options({ maxLength: 64 }))
      await expect(refused).rejects.toThrow(message)
      await expect(refused).rejects.toThrow(vt.DataError)
    }
    const all = [...records, ...bad.map(([record]) => record)] as PreferenceRecord[]
    const { badRecords, samples } = await trainDpo(
      peft,
      all,
      options({ maxLength: 64, onBadRecord: 'skip', maxSteps: 1 }),
    )
    expect(samples.train).toBe(records.length)
    expect(badRecords).toEqual({
      count: bad.length,
      reasons: { 'equal answers': 1, 'truncated answer': 1, 'invalid record': bad.length - 2 },
    })
    const file = join(directory, 'bad.jsonl')
    writeFileSync(file, `${JSON.stringify(good)}\n\n${JSON.stringify({ ...good, rejected: good.chosen })}\n`)
    await expect(trainDpo(peft, file, options())).rejects.toThrow(`${file}, line 3: expected chosen and rejected`)
    await expect(trainDpo(peft, [], options())).rejects.toThrow(/at least one pair in records, got none/)
    await expect(trainDpo(peft, [good], options({ loss: 'kto' }))).rejects.toThrow(/at least two pairs/)
    // With the end kept, the answers of the long prompt stay.
    const kept = await trainDpo(
      peft,
      [{ ...good, prompt: long }],
      options({ maxLength: 64, truncationMode: 'keep_end', maxSteps: 1 }),
    )
    expect(kept.samples.train).toBe(1)
    peft.model.dispose()
  })

  it('refuses settings that nothing reads, by name', async () => {
    const peft = await adapted()
    const wrong: [Partial<TrainDpoOptions>, RegExp][] = [
      [{ simpoGamma: 1 }, /^trainDpo: simpoGamma: expected it only with loss 'simpo', got 1 with 'sigmoid'/],
      [{ loss: 'ipo', labelSmoothing: 0.1 }, /labelSmoothing/],
      [{ loss: 'orpo', precomputeRefLogProbs: true }, /precomputeRefLogProbs/],
      [{ desirableWeight: 2 }, /desirableWeight/],
      [{ beta: 0 }, /beta to be a number above 0/],
      [{ loss: 'dpo' as never }, /loss to be 'sigmoid', 'ipo', 'kto', 'orpo', 'simpo'/],
      [{ lossType: 'ipo' } as never, /lossType/],
      [{ tokenizer: 'x' as never }, /tokenizer to be a Tokenizer/],
      [{ loraplusLrRatio: 4, args: { optim: 'sgd' } }, /expected optim 'adamw_torch' with it, got 'sgd'/],
      [{ args: { outputDir: 'elsewhere' } }, /args.outputDir/],
    ]
    for (const [more, message] of wrong) await expect(trainDpo(peft, records, options(more))).rejects.toThrow(message)
    await expect(trainDpo(new vt.Linear(1, 1) as never, records, options())).rejects.toThrow(/a DecoderLM/)
    peft.model.dispose()
    const network = await vt.DecoderLM.fromPretrained(model)
    await expect(trainDpo(network, records, options({ loraplusLrRatio: 4 }))).rejects.toThrow(/without adapters/)
    network.dispose()
  })

  it('leaves nothing behind', async () => {
    await trained({ maxSteps: 2, loraplusLrRatio: 2 })
    const before = await settledTensors()
    await trained({ maxSteps: 2, loraplusLrRatio: 2 })
    expect(await settledTensors()).toBe(before)
  })
})
