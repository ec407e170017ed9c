import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import * as vt from '../../lib/index.js'
import { BadRecords } from '../../lib/kit/records.js'
import { examplesOf } from '../../lib/tuning/examples.js'
import { type SftRecord, type TrainSftOptions, trainSft } from '../../lib/tuning/index.js'
import { normalizeText } from '../../lib/tuning/normalize-text.js'
import { expectClose, fixture, settledTensors, tensorsOf } from '../helpers.js'
import { camelKeys, expectGradients, loadParameters } from '../models/networks.js'
import { writeTextModel } from '../serve/text-model.mjs'

vt.setNumThreads(1)
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-sft-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const model = join(directory, 'model')
await writeTextModel(model, vt.DecoderLM, { hiddenSize: 32, intermediateSize: 48, numHiddenLayers: 2 })
const tokenizer = await vt.Tokenizer.fromPretrained(model)

const WORDS = 'ant bee cat dog eel fox gnu hen ibis jay kite lark'.split(' ')
const user = (content: unknown) => ({ role: 'user', content })
const assistant = (content: unknown) => ({ role: 'assistant', content })
/** Questions that all have one answer. */
const recordOf = (word: string): SftRecord => ({ messages: [user(word), assistant('yes')] })
const records = WORDS.slice(0, 8).map(recordOf)
const heldOut = WORDS.slice(8).map(recordOf)

let runs = 0
const options = (more: Partial<TrainSftOptions> = {}): TrainSftOptions => ({
  ...{ tokenizer, outputDir: join(directory, `run${runs++}`), batchSize: 4, learningRate: 5e-3, epochs: 2, ...more },
  args: { reportTo: 'none', ...more.args },
})

async function adapted(dropout = 0): Promise<vt.PeftModel<vt.DecoderLM>> {
  const network = await vt.DecoderLM.fromPretrained(model)
  vt.manualSeed(1)
  return vt.getPeftModel(network, { r: 4, loraAlpha: 16, loraDropout: dropout, targetModules: 'all-linear' })
}

const valuesOf = (network: vt.Module) =>
  vt.scope(() => network.parameters().map((one) => (one.requiresGrad ? one.detach().toArray() : [])))

async function trained(more: Partial<TrainSftOptions> = {}, peft?: vt.PeftModel<vt.DecoderLM>) {
  const own = peft ?? (await adapted())
  const results = await trainSft(own, records, options(more))
  const values = valuesOf(own.model)
  own.model.dispose()
  return { results, values }
}

const settings = { maxLength: 1024, truncationMode: 'keep_start', trainOn: 'assistant', longAudio: 'error' } as const

/** The examples of records, with the texts that contribute to the loss. */
async function read(some: readonly SftRecord[], changes: object = {}, own: vt.Tokenizer = tokenizer) {
  const reader = { tokenizer: own, media: null, settings: { ...settings, ...changes } }
  const bad = new BadRecords('stop')
  const { examples, truncated } = await examplesOf(reader, some, bad, 'records')
  const texts = examples.map(({ labels }) => own.decode(labels.filter((id) => id >= 0)))
  return { examples, texts, truncated }
}

describe('targets', () => {
  const two = { messages: [user('one'), assistant('first'), user('two'), assistant('second')] }

  it('are the turns of the assistant, or the last, through the end of the turn', async () => {
    expect((await read([two])).texts).toEqual(['first</s>second</s>'])
    expect((await read([two], { trainOn: 'last' })).texts).toEqual(['second</s>'])
    const parts = { messages: [user([{ type: 'text', text: 'a' }, 'b']), assistant([{ type: 'text', text: 'c' }])] }
    const { texts, examples } = await read([parts])
    expect(texts).toEqual(['c</s>'])
    expect(tokenizer.decode(examples[0]!.inputIds)).toBe('<s>user\nab</s><s>assistant\nc</s>')
    const prompted = { prompt: [user('one'), assistant('given'), user('two')], completion: [assistant('second')] }
    expect((await read([prompted])).texts).toEqual(['second</s>'])
    expect((await read([{ prompt: 'one ', completion: 'two' }])).texts).toEqual(['two</s>'])
  })

  it('are the generation blocks of a template that has them', async () => {
    const own = await vt.Tokenizer.fromPretrained(model)
    own.chatTemplate =
      "{% for m in messages %}<s>{{ m['role'] }}:{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}</s>{% endfor %}"
    expect((await read([two], {}, own)).texts).toEqual(['firstsecond'])
    expect((await read([two], { trainOn: 'last' }, own)).texts).toEqual(['second'])
    const prompted = { prompt: two.messages.slice(0, 3), completion: two.messages.slice(3) }
    expect((await read([prompted], {}, own)).texts).toEqual(['second'])
  })

  it('are found where a template renders earlier turns otherwise', async () => {
    const own = await vt.Tokenizer.fromPretrained(model)
    // Reasoning stays only in the last turn, in which it is added if there is none.
    own.chatTemplate =
      "{% for m in messages %}<s>{{ m['role'] }}\n{% if m['role'] != 'assistant' %}{{ m['content'] }}{% else %}{% if loop.last %}<think>{{ m.reasoning_content or '' }}</think>{% endif %}{{ m['content'] | trim }}{% endif %}</s>\n{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    const thought = { messages: [...two.messages.slice(0, 3), { ...assistant(' second '), reasoning_content: 'hm' }] }
    expect((await read([thought], {}, own)).texts).toEqual(['first</s>\n<think>hm</think>second</s>\n'])
    expect((await read([two], {}, own)).texts).toEqual(['first</s>\n<think></think>second</s>\n'])
  })

  it('end with whole tokens where the end of a turn differs, and with the end-of-sequence token where there is none', async () => {
    const own = await vt.Tokenizer.fromPretrained(model)
    const template = (end: string) =>
      `{% for m in messages %}<s>{{ m.role }}:{{ m.content }}${end}{% endfor %}{% if add_generation_prompt %}<s>assistant:{% endif %}`
    own.chatTemplate = `${template('|\n')}{% if not add_generation_prompt %}</s>{% endif %}`
    expect((await read([two], {}, own)).texts).toEqual(['first|\nsecond|\n</s>'])
    own.chatTemplate = template('')
    expect((await read([two], {}, own)).texts).toEqual(['firstsecond</s>'])
  })

  it('are truncated with their record, and counted', async () => {
    const { texts, truncated, examples } = await read([two], { maxLength: 30 })
    expect(examples[0]!.inputIds).toHaveLength(30)
    expect(texts).toEqual(['first</s>'])
    expect(truncated).toMatchObject({ records: 1, turns: 1 })
    expect((await read([two], { maxLength: 4, truncationMode: 'keep_end' })).texts).toEqual(['nd</s>'])
    await expect(read([two], { maxLength: 10 })).rejects.toThrow(
      /^records\[0\]: expected tokens of an answer within maxLength 10, got a record of 55 tokens whose answers are cut off/,
    )
  })
})

describe('against TRL', () => {
  it('loss and gradients of a packed batch are those of its padded batch', async () => {
    const file = await fixture<{ name: string; config: object; examples: { input_ids: number[]; labels: number[] }[] }>(
      'tuning/sft',
    )
    const { config, examples } = file.cases[0]!
    const network = new vt.DecoderLM({ modelType: 'llama', ...camelKeys(config as Record<string, unknown>) })
    loadParameters(network, file, 'loss')
    const { inputIds, labels, sequenceLengths } = vt.packSequences(['inputIds', 'labels'])(
      examples.map(({ input_ids, labels }) => ({ inputIds: input_ids, labels })),
    )
    const { loss } = await network.forward({ inputIds, labels, sequenceLengths })
    expectClose(loss as vt.Tensor, tensorsOf(file, 'loss', 'out').loss as vt.Tensor, 1e-6)
    await (loss as vt.Tensor).backward()
    await expectGradients(network, file, 'loss')
    network.dispose()
  })

  it("texts are normalized as by Whisper's basic normalizer", async () => {
    const file = await fixture<{ name: string; texts: string[]; normalized: string[] }>('tuning/sft')
    const { texts, normalized } = file.cases[1]!
    expect(texts.map(normalizeText)).toEqual(normalized)
    // In linear time.
    expect(normalizeText('<['.repeat(1e5))).toBe('')
  })
})

describe('trainSft', () => {
  it('learns the answers, and keeps the best checkpoint by generated answers', async () => {
    const { results } = await trained({
      ...{ evalRecords: heldOut, epochs: 8, metrics: ['wer', 'cer', 'exactMatch', 'rougeL'], keyMetric: 'exactMatch' },
      ...{ maxNewTokens: 8, learningRate: 2e-2, earlyStoppingPatience: 2 },
    })
    expect(results.valid).toMatchObject({ wer: 0, cer: 0, exactMatch: 1, rougeL: 1 })
    expect(results.samples).toEqual({ train: 8, valid: 4, test: 0 })
    // Two evaluations after the first with all answers right.
    expect(results.globalStep).toBe((results.bestStep as number) + 4)
    const untrained = await trained({ evalRecords: heldOut, learningRate: 0, epochs: 1, metrics: ['exactMatch'] })
    expect(untrained.results.valid?.exactMatch).toBe(0)
  })

  it('a packed batch has the loss and gradients of its records alone', async () => {
    const { examples } = await read([...records, { messages: [user('longer'), assistant('a longer answer')] }])
    const network = await vt.DecoderLM.fromPretrained(model)
    const parameters = network.parameters()
    const gradients = () =>
      parameters.map((one) => {
        const grad = one.grad as vt.Tensor
        one.grad = null
        return grad
      })
    const count = examples.reduce((sum, { labels }) => sum + labels.filter((id) => id >= 0).length, 0)
    let alone = 0
    for (const { inputIds, labels } of examples) {
      const { loss } = await network.forward({
        ...{ inputIds: vt.tensor([inputIds]), labels: vt.tensor([labels]), reduction: 'sum' },
      })
      alone += Number((loss as vt.Tensor).item()) / count
      await (loss as vt.Tensor).div(count).backward()
    }
    const expected = gradients()
    const { inputIds, labels, sequenceLengths } = vt.packSequences(['inputIds', 'labels'])(examples)
    const { loss } = await network.forward({ inputIds, labels, sequenceLengths })
    expect(Number((loss as vt.Tensor).item())).toBeCloseTo(alone, 5)
    await (loss as vt.Tensor).backward()
    for (const [i, grad] of gradients().entries()) expectClose(grad, expected[i] as vt.Tensor, 1e-5)
    network.dispose()
  })

  it('fills batches, and groups records by length', async () => {
    const { results } = await trained({ packing: true, maxLength: 32, batchSize: 2, epochs: 1 })
    // Two records of 23 to 25 tokens are in 64.
    expect(results.globalStep).toBe(4)
    expect((await trained({ groupByLength: true, epochs: 1 })).results.globalStep).toBe(2)
  })

  it('a run that was killed ends with the same weights', async () => {
    const more: Partial<TrainSftOptions> = {
      ...{ loraplusLrRatio: 4, neftuneNoiseAlpha: 5, saveSteps: 2, epochs: 4, evalRecords: heldOut, packing: true },
      ...{ metrics: ['cer'], keyMetric: 'cer', maxNewTokens: 4, maxLength: 32, batchSize: 2 },
    }
    const whole = await trained(more, await adapted(0.1))
    const killed = options(more)
    const onStepEnd = ({ state }: vt.CallbackContext) => {
      if (state.globalStep === 7) throw new Error('killed')
    }
    const peft = await adapted(0.1)
    await expect(trainSft(peft, records, { ...killed, callbacks: [{ onStepEnd }] })).rejects.toThrow('killed')
    peft.model.dispose()
    const resumed = await trained(killed, await adapted(0.1))
    expect(resumed.values).toEqual(whole.values)
    expect(resumed.results).toEqual(whole.results)
  })

  it('writes the adapter, the merged model and a GGUF file', async () => {
    const folder = join(directory, 'saved')
    const peft = await adapted()
    await trainSft(
      peft,
      records,
      options({ outputDir: folder, merge: true, gguf: 'F32', args: { reportTo: ['html'] } }),
    )
    for (const file of ['adapter/adapter_config.json', 'report.html', 'results.json'])
      expect(existsSync(join(folder, file)), file).toBe(true)
    const inputIds = vt.tensor([tokenizer.encode('some text').inputIds])
    const { logits } = await peft.model.forward({ inputIds })
    for (const from of ['model', 'model.gguf']) {
      const merged = await vt.DecoderLM.fromPretrained(join(folder, from))
      const again = await vt.Tokenizer.fromPretrained(join(folder, from))
      expect(again.encode('some text').inputIds).toEqual(tokenizer.encode('some text').inputIds)
      expectClose((await merged.forward({ inputIds })).logits as vt.Tensor, logits as vt.Tensor, 1e-4)
      merged.dispose()
    }
    peft.model.dispose()
  })

  it('trains all weights by Muon', async () => {
    const network = await vt.DecoderLM.fromPretrained(model)
    const { valid } = await trainSft(
      network,
      records,
      options({ optim: 'muon', evalRecords: heldOut, metrics: ['exactMatch'], epochs: 10, learningRate: 1e-2 }),
    )
    expect(valid?.exactMatch).toBe(1)
    network.dispose()
  })

  it('refuses, or counts, records that cannot be used', async () => {
    const peft = await adapted()
    const good = records[0] as SftRecord
    const cyclic: Record<string, unknown> = {}
    cyclic.self = cyclic
    const bad: [unknown, string, RegExp][] = [
      [null, 'invalid record', /records\[1\]: expected an object, got null/],
      [{}, 'invalid record', /records\[1\]: expected messages, or prompt and completion, got both or neither/],
      [{ messages: [] }, 'invalid record', /messages: expected a list of messages/],
      [{ prompt: 'a' }, 'invalid record', /prompt: expected a list of messages with role and content, or two texts/],
      [{ ...good, tools: 'x' }, 'invalid record', /tools: expected a list/],
      [
        { messages: [{ ...user('a'), extra: cyclic }, assistant('b')] },
        'invalid record',
        /messages\[0\]\.extra: expected a value that JSON/,
      ],
      [{ ...good, tools: [cyclic] }, 'invalid record', /tools: expected a value that JSON can represent/],
      [{ messages: [user('a'), assistant('')] }, 'empty answer', /messages\[1\]: expected an answer of the assistant/],
      [
        { messages: new Array(2000).fill([user('a'), assistant('b')]).flat() },
        'long conversation',
        /messages: expected at most 67108864 for the number of messages times their characters, got 4000/,
      ],
      [{ prompt: 'a', completion: '' }, 'empty answer', /completion: expected an answer, got an empty one/],
      [{ messages: [user('a')] }, 'no answer', /expected a message of the assistant, got none/],
      [{ messages: [user('x'.repeat(80)), assistant('a')] }, 'truncated answer', /within maxLength 64/],
      [
        { messages: [user([{ type: 'audio', audio: 'a.wav' }]), assistant('a')] },
        'invalid record',
        /messages\[0\]\.content\[0\]: expected parts of type 'text' for a DecoderLM, got "audio"/,
      ],
      [{ ...good, audio: 'a.wav' }, 'clips', /expected no audio for a DecoderLM/],
      [
        { prompt: 'a', completion: 'b', audio: 'a.wav' },
        'clips',
        /prompt: expected messages with a record that has audio/,
      ],
    ]
    for (const [record, , message] of bad) {
      const refused = trainSft(peft, [good, record] as SftRecord[], options({ maxLength: 64 }))
      await expect(refused).rejects.toThrow(message)
      await expect(refused).rejects.toThrow(vt.DataError)
    }
    const all = [...records, ...bad.map(([record]) => record)] as SftRecord[]
    const more = { maxLength: 64, onBadRecord: 'skip', maxSteps: 1 } as const
    const { badRecords, samples } = await trainSft(peft, all, options(more))
    expect(samples.train).toBe(records.length)
    const reasons: Record<string, number> = {}
    for (const [, reason] of bad) reasons[reason] = (reasons[reason] ?? 0) + 1
    expect(badRecords).toEqual({ count: bad.length, reasons })
    const file = join(directory, 'bad.jsonl')
    writeFileSync(file, `${JSON.stringify(good)}\n\n${JSON.stringify({ messages: [user('a')] })}\nnot JSON\n`)
    await expect(trainSft(peft, file, options())).rejects.toThrow(
      `${file}, line 3: expected a message of the assistant`,
    )
    const counted = await trainSft(peft, file, options(more))
    expect(counted.badRecords).toEqual({ count: 2, reasons: { 'no answer': 1, 'unreadable record': 1 } })
    await expect(trainSft(peft, [], options())).rejects.toThrow(/at least one record in records, got none/)
    const without = await vt.Tokenizer.fromPretrained(model)
    without.chatTemplate = null
    await expect(trainSft(peft, records, options({ tokenizer: without, onBadRecord: 'skip' }))).rejects.toThrow(
      /has no chat template/,
    )
    peft.model.dispose()
  })

  it('reads integers of any size in fields, and reports errors of the model as they are', async () => {
    const big = { messages: [{ ...user('a'), id: 2n ** 70n }, assistant('b')] } as SftRecord
    expect((await read([big])).texts).toEqual(['b</s>'])
    const wrong = vi.spyOn(vt.Tokenizer.prototype, 'encodeAsync').mockRejectedValue(new vt.ConfigError('no side'))
    try {
      const bad = new BadRecords('skip')
      await expect(examplesOf({ tokenizer, media: null, settings }, [big], bad, 'records')).rejects.toThrow('no side')
      expect(bad.count).toBe(0)
    } finally {
      wrong.mockRestore()
    }
    const own = await vt.Tokenizer.fromPretrained(model)
    own.chatTemplate = "{{ raise_exception('no roles') }}"
    await expect(read([big], {}, own)).rejects.toThrow(/^records\[0\]: the chat template rejected.*no roles/)
  })

  it('refuses settings that nothing reads, by name', async () => {
    const peft = await adapted()
    const wrong: [Partial<TrainSftOptions>, RegExp][] = [
      [{ metrics: ['wer'] }, /^trainSft: metrics: expected evalRecords with it/],
      [{ earlyStoppingPatience: 2 }, /^trainSft: earlyStoppingPatience: expected evalRecords/],
      [{ evalRecords: heldOut, keyMetric: 'wer' }, /^trainSft: keyMetric: expected 'loss' or one of metrics/],
      [{ evalRecords: heldOut, metrics: ['bleu' as never] }, /metrics\[0\]/],
      [
        { evalRecords: heldOut, metrics: ['rougeL'], normalizer: 'english' },
        /^trainSft: normalizer: expected it with the metric wer or cer/,
      ],
      [
        { evalRecords: heldOut, metrics: ['wer'], spellings: 'normalizer.json' },
        /^trainSft: spellings: expected it with normalizer 'english'/,
      ],
      [
        { evalRecords: heldOut, metrics: ['wer'], normalizer: 'english', spellings: directory },
        /^trainSft: spellings: expected normalizer\.json or its folder/,
      ],
      [{ longAudio: 'error' }, /^trainSft: longAudio: expected it for an AudioLM only, got 'error' for DecoderLM/],
      [{ packing: true, groupByLength: true }, /groupByLength: expected it without packing/],
      [{ optim: 'adam' as never }, /optim/],
      [{ loraplusLrRatio: 4, optim: 'muon' }, /expected optim 'adamw_torch' with it, got 'muon'/],
      [{ args: { outputDir: 'elsewhere' } }, /args.outputDir/],
    ]
    for (const [more, message] of wrong) await expect(trainSft(peft, records, options(more))).rejects.toThrow(message)
    // Before any record is read.
    const english = { evalRecords: heldOut, metrics: ['wer'], normalizer: 'english', spellings: directory } as const
    await expect(trainSft(peft, [{}], options(english))).rejects.toThrow(/^trainSft: spellings: expected normalizer/)
    await expect(trainSft(new vt.Linear(1, 1) as never, records, options())).rejects.toThrow(/a DecoderLM, an AudioLM/)
    peft.model.dispose()
    const network = await vt.DecoderLM.fromPretrained(model)
    await expect(trainSft(network, records, options({ merge: true }))).rejects.toThrow(/without adapters/)
    network.dispose()
  })

  it('computes the error rates of texts that a normalizer has changed', async () => {
    const spellings = join(directory, 'normalizer.json')
    writeFileSync(spellings, JSON.stringify({ colour: 'color' }))
    const answer = 'Mr. Grey won’t pay twenty for the colour'.replace('’', "'")
    const reference = 'mister grey will not pay 20 for the color'
    const held = [{ messages: [user('Say it'), assistant(reference)] }]
    const real = vt.Tokenizer.prototype.decode
    const decode = vi.spyOn(vt.Tokenizer.prototype, 'decode').mockImplementation(function (
      this: vt.Tokenizer,
      ...given
    ) {
      return (given[1] as { skipSpecialTokens?: boolean })?.skipSpecialTokens ? answer : real.apply(this, given)
    })
    const more = { evalRecords: held, metrics: ['wer'], maxSteps: 1, maxNewTokens: 2 } as const
    try {
      expect((await trained({ ...more, normalizer: 'english', spellings })).results.valid?.wer).toBe(0)
      expect((await trained({ ...more, normalizer: 'english' })).results.valid?.wer).toBeCloseTo(1 / 9, 6)
      expect((await trained(more)).results.valid?.wer).toBeGreaterThan(0.4)
    } finally {
      decode.mockRestore()
    }
  })

  it('leaves nothing behind', async () => {
    const more = { maxSteps: 2, evalRecords: heldOut, metrics: ['wer'], maxNewTokens: 2 } as const
    await trained(more)
    const before = await settledTensors()
    await trained(more)
    expect(await settledTensors()).toBe(before)
    expect(readFileSync(join(directory, `run${runs - 1}`, 'results.json'), 'utf8')).toContain('"truncated"')
  })
})
