import { mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { transcribeRule } from '../../lib/cli/transcribe.js'
import { KvCache, noGrad, pipeline, randn, type Tensor, Tokenizer, tensor, writeWav } from '../../lib/index.js'
import { Moonshine } from '../../lib/models/index.js'
import type { MoonshineConfig } from '../../lib/models/moonshine/config.js'
import type { MoonshineInputs } from '../../lib/models/moonshine/inputs.js'
import { expectClose, fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'
import { camelKeys, expectGradients } from './networks.js'

const file = await fixture<{ name: string; config: Record<string, unknown> }>('models/moonshine')
const defaults = JSON.parse(await readFile(fixturePath('models/moonshine-keys.json'), 'utf8')) as object
const folder = () => mkdtemp(join(tmpdir(), 'moonshine-'))

function networkOf(name: string): { model: Moonshine; inputs: MoonshineInputs; expected: Record<string, Tensor> } {
  const { config } = file.cases.find((one) => one.name === name) as { config: Record<string, unknown> }
  const model = new Moonshine(camelKeys(config) as MoonshineConfig).eval()
  const param = tensorsOf(file, name, 'param')
  // A tied head is in the file a second time.
  if (config.tie_word_embeddings !== false) delete param['proj_out.weight']
  noGrad(() => model.loadStateDict(param))
  return {
    model,
    inputs: camelKeys(tensorsOf(file, name, 'in')) as MoonshineInputs,
    expected: tensorsOf(file, name, 'out'),
  }
}

const rowsOf = (ids: Tensor): number[][] => (ids.toArray() as (number | bigint)[][]).map((row) => row.map(Number))
/** A row up to its first end token. */
const ended = (row: number[], end = 2): number[] => (row.includes(end, 1) ? row.slice(0, row.indexOf(end, 1) + 1) : row)

describe('Moonshine against transformers', () => {
  it.each(file.cases.map(({ name }) => name))('%s: states, logits, loss and gradients', async (name) => {
    const { model, inputs, expected } = networkOf(name)
    const full = await model.forward({ ...inputs, logitsToKeep: 0, outputHiddenStates: true, outputAttentions: true })
    // Padding in front attends to nothing in transformers, and to itself here.
    const { decoderAttentionMask } = inputs
    const valid = (one: Tensor) => {
      if (!decoderAttentionMask) return one
      const mask = decoderAttentionMask.to({ dtype: one.dtype })
      return one.mul(one.ndim === 4 ? mask.unsqueeze(1).unsqueeze(-1) : mask.unsqueeze(-1))
    }
    expectClose(valid(full.logits as Tensor), valid(expected.logits as Tensor), 1e-5, 'logits')
    expectClose(full.loss as Tensor, expected.loss as Tensor, 1e-5, 'loss')
    expectClose(full.encoderLastHiddenState as Tensor, expected.encoder as Tensor, 1e-5, 'encoder')
    const lists = {
      encoder_hidden: full.encoderHiddenStates,
      decoder_hidden: full.decoderHiddenStates,
      encoder_attention: full.encoderAttentions,
      decoder_attention: full.decoderAttentions,
      cross_attention: full.crossAttentions,
    }
    for (const [key, values] of Object.entries(lists)) {
      const count = Object.keys(expected).filter((one) => one.startsWith(`${key}.`)).length
      expect(values.length, key).toBe(count)
      for (const [i, value] of values.entries()) {
        const kept = key.startsWith('encoder') ? (one: Tensor) => one : valid
        expectClose(kept(value), kept(expected[`${key}.${i}`] as Tensor), 1e-5, `${key}.${i}`)
      }
    }
    model.zeroGrad()
    const plain = await model.forward(inputs)
    expect(plain.logits).toBeNull()
    expectClose(plain.loss as Tensor, expected.loss as Tensor, 1e-5, 'loss of the fused path')
    await (plain.loss as Tensor).backward()
    await expectGradients(model, file, name, {
      again: async (as) => {
        const { loss } = await model.forward({ ...inputs, inputValues: as(inputs.inputValues as Tensor) })
        await (loss as Tensor).backward()
      },
    })
  })

  it.each(file.cases.map(({ name }) => name))('%s: greedy and beam search, and the cache of forward', async (name) => {
    const { model, inputs, expected } = networkOf(name)
    const audio = { inputValues: inputs.inputValues ?? null, inputValuesMask: inputs.attentionMask ?? null }
    const { sequences } = await model.generate(audio, { maxNewTokens: 14 })
    expect(rowsOf(sequences).map((row) => ended(row))).toEqual(
      rowsOf(expected.greedy as Tensor).map((row) => ended(row)),
    )
    const beams = await model.generate(audio, { maxNewTokens: 10, numBeams: 3 })
    expect(rowsOf(beams.sequences).map((row) => ended(row))).toEqual(
      rowsOf(expected.beams as Tensor).map((row) => ended(row)),
    )
    // Token by token, with both caches, as in one pass.
    const ids = expected.greedy as Tensor
    await noGrad(async () => {
      const { lastHiddenState, attentionMask } = await model.encode({
        inputValues: inputs.inputValues as Tensor,
        ...(inputs.attentionMask && { attentionMask: inputs.attentionMask }),
      })
      const encoded = { encoderHiddenStates: lastHiddenState, encoderAttentionMask: attentionMask }
      const { logits: whole } = await model.forward({ ...encoded, decoderInputIds: ids })
      using cache = new KvCache()
      using encoderCache = new KvCache()
      for (let i = 0; i < ids.size(1); i += 1) {
        const heard = i === 0 ? encoded : { encoderAttentionMask: attentionMask }
        const { logits } = await model.forward({ ...heard, decoderInputIds: ids.narrow(1, i, 1), cache, encoderCache })
        expectClose(logits as Tensor, (whole as Tensor).narrow(1, i, 1), 1e-5, `token ${i}`)
      }
    })
  })

  it('streams the same tokens', async () => {
    const { model, inputs } = networkOf('plain')
    const row = { inputValues: (inputs.inputValues as Tensor).narrow(0, 0, 1) }
    const { tokens } = await model.generate(row, { maxNewTokens: 9 })
    const streamed: (number | null)[] = []
    for await (const step of model.stream(row, { maxNewTokens: 9 })) streamed.push(...step.tokens)
    expect(streamed).toEqual(tokens[0])
  })

  it('checkpoints its layers: the same gradients', async () => {
    const { model, inputs } = networkOf('padded')
    const run = async () => {
      model.zeroGrad()
      await ((await model.forward(inputs)).loss as Tensor).backward()
      return Object.fromEntries(model.namedParameters().map(([key, { grad }]) => [key, (grad as Tensor).clone()]))
    }
    const plain = await run()
    model.train().gradientCheckpointing(true)
    const again = await run()
    for (const [key, value] of Object.entries(plain)) expectClose(again[key] as Tensor, value, 1e-5, key)
  })
})

describe('configuration', () => {
  it('knows each key of transformers, with its default', () => {
    const given = camelKeys(defaults as Record<string, unknown>)
    const own = new Moonshine({}, { device: 'meta' }).config as Record<string, unknown>
    const whole = new Moonshine(given as never, { device: 'meta' }).config as Record<string, unknown>
    for (const [key, value] of Object.entries(own)) {
      if (key in given) expect({ [key]: value }).toEqual({ [key]: given[key] })
      expect({ [key]: whole[key] }).toEqual({ [key]: value })
    }
    expect(Object.keys(own)).toContain('partialRotaryFactor')
  })

  it('refuses other values by name', () => {
    const make = (config: object) => () => new Moonshine({ ...small, ...config })
    expect(make({ hiddenSise: 8 })).toThrow(/hiddenSise.*did you mean 'hiddenSize'/)
    expect(make({ hiddenSize: 13 })).toThrow(/hidden_size 13 is not divisible by encoder_num_attention_heads 2/)
    expect(make({ decoderNumAttentionHeads: 1 })).toThrow(/decoder_num_attention_heads: expected .* 2, got 1/)
    expect(make({ encoderNumKeyValueHeads: 1 })).toThrow(/encoder_num_key_value_heads: expected .* 2, got 1/)
    expect(make({ partialRotaryFactor: 0.9 })).toThrow(/partial_rotary_factor: expected an even number/)
    expect(make({ ropeScaling: { type: 'linear' } })).toThrow(/ropeScaling/)
    expect(make({ ropeParameters: { ropeType: 'yarn' } })).toThrow(/ropeParameters: expected ropeType "default"/)
    expect(make({ encoderHiddenAct: 'sine' })).toThrow(/expected encoderHiddenAct "gelu" or .*, got "?'?sine/)
    expect(make({ padTokenId: 20 })).toThrow(/pad_token_id 20 is not below vocab_size 20/)
    expect(make({ decoderStartTokenId: -1 })).toThrow(/decoder_start_token_id -1/)
    expect(make({ attentionDropout: 2 })).toThrow(/attention_dropout/)
    expect(make({ encoderNumHiddenLayers: -1 })).toThrow(/encoder_num_hidden_layers/)
  })

  it('refuses inputs that do not fit', async () => {
    const { model, inputs } = networkOf('plain')
    const refused = (given: MoonshineInputs) => expect(model.forward(given)).rejects
    await refused({ inputValues: randn([1, 894]), decoderInputIds: tensor([[1n]]) }).toThrow(/at least 895 .*got 894/)
    await refused({ inputValues: inputs.inputValues ?? null }).toThrow(/decoder_input_ids or labels/)
    await refused({ decoderInputIds: tensor([[1n]]) }).toThrow(/input_values, encoder_hidden_states or a filled/)
    await refused({
      inputValues: randn([2, 1000]),
      attentionMask: randn([2, 999]),
      decoderInputIds: tensor([[1n]]),
    }).toThrow(/attention_mask must be \[2, 1000\]/)
    await refused({ inputValues: randn([2, 1000]), decoderInputIds: tensor([[1n], [1n], [1n]]) }).toThrow(/3 rows/)
    await expect(model.generate({ inputValuesMask: randn([1, 4]) })).rejects.toThrow(/inputValuesMask/)
  })

  // As transformers counts its models of the published configurations.
  it.each([
    ['tiny', 27_092_736],
    ['base', 61_513_920],
  ])('%s has the published number of parameters', (size, parameters) => {
    const model = Moonshine.fromConfig(size, { device: 'meta' })
    expect(model.parameters().reduce((sum, one) => sum + one.numel(), 0)).toBe(parameters)
  })
})

const small: MoonshineConfig = {
  vocabSize: 20,
  hiddenSize: 12,
  intermediateSize: 10,
  encoderNumHiddenLayers: 1,
  decoderNumHiddenLayers: 1,
  encoderNumAttentionHeads: 2,
  partialRotaryFactor: 0.7,
}

/** Tokens `t0`, `t1`, … with the special tokens of the networks. */
async function tokenizerOf(): Promise<Tokenizer> {
  const vocab = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [i < 3 ? `<s${i}>` : `▁t${i}`, i]))
  const special = (id: number) => ({
    ...{ id, content: `<s${id}>`, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
  })
  const contents = {
    version: '1.0',
    ...{ truncation: null, padding: null, normalizer: null, post_processor: null },
    added_tokens: [special(0), special(1), special(2)],
    pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true },
    decoder: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true },
    model: { type: 'WordLevel', vocab, unk_token: '<s0>' },
  }
  const path = join(await folder(), 'tokenizer.json')
  await writeFile(path, JSON.stringify(contents))
  return Tokenizer.fromFile(path)
}

async function speaker(): Promise<Moonshine> {
  const { model } = networkOf('plain')
  model.tokenizer = await tokenizerOf()
  return model
}

describe('transcribe', () => {
  it('decodes at most 6.5 tokens per second, also from its folder, the pipeline and the command', async () => {
    const model = await speaker()
    const samples = randn([48000]).mul(0.1)
    const { tokens } = await model.generate({ inputValues: samples.unsqueeze(0) }, { maxLength: 19 })
    const text = model.tokenizer?.decode(tokens[0] as number[], { skipSpecialTokens: true }).trim()
    const found = await model.transcribe(samples)
    expect(found).toEqual({ text, segments: text ? [{ start: 0, end: 3, text }] : [] })
    expect(text?.length).toBeGreaterThan(3)
    const one = await model.transcribe(samples, { maxTokensPerSecond: 1 })
    expect((text as string).startsWith(one.text)).toBe(true)
    expect(one.text.length).toBeLessThan((text as string).length)

    const at = await folder()
    await model.save(at)
    const again = await Moonshine.fromPretrained(at)
    expect(again.config).toMatchObject(model.config)
    expect(await again.transcribe(samples)).toEqual(found)
    using transcriber = await pipeline('automatic-speech-recognition', at)
    expect(await transcriber(samples)).toEqual({ text })
    expect(await transcriber(samples, { returnTimestamps: true })).toEqual({
      text,
      chunks: [{ text, timestamp: [0, 3] }],
    })
    await expect(transcriber(samples, { returnTimestamps: 'word' })).rejects.toThrow(/returnTimestamps/)
    await expect(transcriber(samples, { strideLengthS: 1 })).rejects.toThrow(/strideLengthS/)

    const clip = join(at, 'clip.wav')
    await writeWav(clip, samples.clamp(-1, 1), { sampleRate: 16000 })
    const lines: string[] = []
    const log = console.log
    console.log = (line: string) => void lines.push(line)
    try {
      const run = (options: object) => transcribeRule.run({ model: at, ...options } as never, [clip], {} as never)
      expect(await run({ format: 'text' })).toBe(0)
      expect(lines.join('\n')).toBe((await model.transcribe(clip)).text)
      await expect(run({ beams: 2 })).rejects.toThrow(/--beams: expected none for Moonshine, got 2/)
      await expect(run({ words: true, format: 'json' })).rejects.toThrow(/--words: expected none for Moonshine/)
    } finally {
      console.log = log
    }
  })

  it('splits a long recording at pauses, and leaves no tensor', async () => {
    const model = await speaker()
    const samples = randn([16000 * 5]).mul(0.1)
    samples.narrow(0, 32000, 16000).zero_()
    const second = await model.transcribe(samples.narrow(0, 48000, 32000))
    const before = await settledTensors()
    const vad = async (): Promise<[number, number][]> => [
      [0, 2],
      [3, 5],
    ]
    const { segments } = await model.transcribe(samples, { chunkSeconds: 2.5, vad })
    expect(segments.map(({ start, end }) => [start, end])).toEqual(await vad())
    expect(segments[1]?.text).toBe(second.text)
    await model.transcribe(samples, { chunkSeconds: 2 })
    expect(await settledTensors()).toBe(before)
  })

  it('refuses what does not fit', async () => {
    const model = await speaker()
    const refused = (options: object, samples = randn([4000])) => expect(model.transcribe(samples, options)).rejects
    await refused({ beams: 2 }).toThrow(/beams/)
    await refused({ chunkSeconds: 0.5 }).toThrow(/chunkSeconds/)
    await refused({ maxTokensPerSecond: '6' }).toThrow(/maxTokensPerSecond/)
    await refused({ vad: 'energy' }).toThrow(/vad/)
    await refused({}, randn([894])).toThrow(/at least 895 samples, got 894/)
    model.tokenizer = null
    await refused({}).toThrow(/tokenizer/)
  })

  it('reports missing and unexpected tensors by name', async () => {
    const at = await folder()
    await (await speaker()).save(at)
    const changed = JSON.parse(await readFile(join(at, 'config.json'), 'utf8')) as Record<string, unknown>
    await writeFile(join(at, 'config.json'), JSON.stringify({ ...changed, decoder_num_hidden_layers: 3 }))
    await expect(Moonshine.fromPretrained(at)).rejects.toThrow(/model\.decoder\.layers\.2\.\S+/)
    await writeFile(join(at, 'config.json'), JSON.stringify({ ...changed, decoder_num_hidden_layers: 1 }))
    await expect(Moonshine.fromPretrained(at)).rejects.toThrow(/model\.decoder\.layers\.1\.\S+/)
  })
})
