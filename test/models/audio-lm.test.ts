import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import {
  AdamW,
  AudioLM,
  type AudioLMConfig,
  getPeftModel,
  KvCache,
  loadSafetensors,
  ops,
  PeftModel,
  pipeline,
  scope,
  type Tensor,
  Tokenizer,
  VoxtorchError,
} from '../../lib/index.js'
import type { AudioLMMessage } from '../../lib/models/audio-lm/processor.js'
import { quantizationOf } from '../../lib/nn/quantized-weight.js'
import { expectClose, fixture, fixturePath, ROUNDING, settledTensors, tensorsOf } from '../helpers.js'
import { paddedLeft, samplesOf, type Given as WholeGiven } from './audio-lm.js'
import { atReal, get } from './decoder.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'

interface Case {
  name: string
  config: Record<string, unknown>
  tokens: number[][]
}
type Given = Omit<WholeGiven, 'featuresMask'> & Partial<Pick<WholeGiven, 'featuresMask'>>

const VOXTRAL_TOWER = {
  ...{ hiddenSize: 12, numHiddenLayers: 1, numAttentionHeads: 3, intermediateSize: 48, numMelBins: 8 },
}
const TINY_LLAMA = {
  ...{
    hiddenSize: 16,
    intermediateSize: 20,
    numHiddenLayers: 1,
    numAttentionHeads: 2,
    numKeyValueHeads: 1,
    headDim: 8,
  },
}

const FAMILIES = ['qwen2_audio', 'voxtral', 'audioflamingo3'] as const
type Family = (typeof FAMILIES)[number]
const files = new Map(
  await Promise.all(FAMILIES.map(async (name) => [name, await fixture<Case>(`models/audio-lm-${name}`)] as const)),
)
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-audio-lm-'))
afterAll(() => rmSync(directory, { recursive: true }))

function open(name: Family) {
  const file = get(files.get(name))
  const [one] = file.cases
  const model = new AudioLM(camelKeys(get(one).config) as AudioLMConfig).eval()
  loadParameters(model, file, name)
  const inputs = camelKeys(tensorsOf(file, name, 'in')) as unknown as Given
  const real = inputs.attentionMask.to({ dtype: 'float32' })
  return { file, model, inputs, expected: tensorsOf(file, name, 'out'), real, tokens: get(one).tokens }
}

describe.each(FAMILIES)('%s against transformers', (name) => {
  it('encoder, connector, logits, loss and gradients', async () => {
    const { file, model, inputs, expected, real } = open(name)
    const { inputFeatures, featuresMask } = inputs
    inputFeatures.requiresGrad_()
    const states = await model.encodeAudio({ inputFeatures, ...(featuresMask && { featuresMask }) })
    expectClose(await rowsOf(states, featuresMask), get(expected.states), 1e-5, 'states')
    const { logits, loss, audioEmbeds } = await model.forward({ ...inputs, logitsToKeep: 0 })
    expectClose(get(audioEmbeds), get(expected.embeds), 1e-5, 'embeddings')
    expectClose(atReal(get(logits), real, 1), get(expected.logits), 1e-5, 'logits')
    expectClose(get(loss), get(expected.loss), 1e-5, 'loss')
    await get(loss).backward()
    expectClose(get(inputFeatures.grad), get(expected['features.grad']), 1e-5, 'gradient of features')
    await expectGradients(model, file, name, {
      // transformers computes the language model's norms, rotations and softmax in float32.
      exact: 32 * ROUNDING.float32,
      again: async (as) => {
        const again = await model.forward({ ...inputs, inputFeatures: as(inputFeatures) })
        await get(again.loss).backward()
      },
    })
  })

  it('generates the same tokens, padded on the left, streamed, and after a cached prefix', async () => {
    const { model, inputs, tokens } = open(name)
    const { inputFeatures, featuresMask } = inputs
    const audio = { inputFeatures, ...(featuresMask && { featuresMask }) }
    const greedy = { maxNewTokens: 6, eosTokenId: [] }
    const prompt = paddedLeft(inputs)
    expect((await model.generate({ ...prompt, ...audio }, greedy)).tokens).toEqual(tokens)
    const audioEmbeds = await model.projectAudio(await model.encodeAudio(audio), featuresMask ?? null)
    expect((await model.generate({ ...prompt, audioEmbeds }, greedy)).tokens).toEqual(tokens)
    // A row without audio, streamed.
    const length = Number(get(inputs.attentionMask.sum(1).toArray() as number[])[2])
    const text = inputs.inputIds.narrow(0, 2, 1).narrow(1, 0, length)
    const streamed: (number | null)[] = []
    for await (const step of model.stream({ inputIds: text }, greedy)) streamed.push(get(step.tokens)[0] ?? null)
    expect(streamed).toEqual(get(tokens)[2])
    // The first row in two turns: the first clip and the text after it are in the cache of the second.
    const row = inputs.inputIds.narrow(0, 0, 1)
    const ids = get(row.toArray() as number[][])[0] as number[]
    const end = ids.indexOf(28) + 3
    const counts = (ids.slice(0, end) as number[]).filter((id) => id === 26).length
    const rest = ids.filter((id) => id === 26).length - counts
    const cache = new KvCache()
    await model.forward({ inputIds: row.narrow(1, 0, end), audioEmbeds: audioEmbeds.narrow(0, 0, counts), cache })
    const next = { inputIds: row.narrow(1, end, ids.length - end), audioEmbeds: audioEmbeds.narrow(0, counts, rest) }
    expect((await model.generate({ ...next, cache }, greedy)).tokens[0]).toEqual(tokens[0])
  })
})

it('has the same loss and gradients packed, and with checkpointing', async () => {
  const { model, inputs } = open('audioflamingo3')
  const lengths = (inputs.attentionMask.sum(1).toArray() as number[]).map(Number)
  const packed = (rows: Tensor) =>
    ops.cat(lengths.map((count, i) => rows.select(0, i).narrow(0, 0, count))).unsqueeze(0)
  const { inputFeatures, featuresMask } = inputs
  const audio = { inputFeatures, ...(featuresMask && { featuresMask }) }
  const row = { inputIds: packed(inputs.inputIds), labels: packed(inputs.labels), sequenceLengths: lengths, ...audio }
  const passed = async (given: Given | typeof row) => {
    model.zeroGrad()
    const { loss } = await model.forward(given)
    await get(loss).backward()
    const grads = model.namedParameters().flatMap(([name, { grad }]) => (grad ? [[name, grad.clone()] as const] : []))
    return { loss: get(loss), grads: new Map(grads) }
  }
  model.to({ dtype: 'float64' })
  const alone = await passed(inputs)
  expect(alone.grads.size).toBeGreaterThan(40)
  const others = [await passed(row)]
  model.audio_tower.gradientCheckpointing(true)
  model.language_model.gradientCheckpointing(true)
  model.train()
  others.push(await passed(inputs), await passed(row))
  for (const { loss, grads } of others) {
    expectClose(loss, alone.loss, 1e-10, 'loss')
    for (const [name, grad] of alone.grads) {
      // The bias of the keys is 0 in exact arithmetic.
      if (!name.endsWith('k_proj.bias')) expectClose(get(grads.get(name)), grad, 1e-8, name)
    }
  }
})

it('the language model is quantized while it is loaded, and its adapters train', async () => {
  const folder = fixturePath('models/audio-lm-folder-qwen2_audio')
  const model = await AudioLM.fromPretrained(folder, { quantize: { scheme: 'nf4', blockSize: 4 } })
  const schemes = ['language_model.model.layers.0.mlp.up_proj', 'audio_tower.layers.0.fc1'].map(
    (path) => quantizationOf(model.get(path))?.scheme,
  )
  expect(schemes).toEqual(['nf4', undefined])
  get(model.trainParts({ decoder: 'lora', connector: 'lora' }, { r: 2 }))
  const inputs = await model.prepare([{ role: 'user', content: [{ type: 'audio', audio: samplesOf(4960) }, 'Who?'] }])
  const { loss } = await model.train().forward({ ...inputs, labels: inputs.inputIds })
  await get(loss).backward()
  const trained = model.namedParameters().filter(([, { grad }]) => grad !== null)
  expect(trained.every(([name]) => /^(language_model|multi_modal_projector)\..*lora_/.test(name))).toBe(true)
  expect(trained.length).toBeGreaterThan(4)
  await expect(model.save(join(directory, 'quantized'))).rejects.toThrow(/quantize/)
})

/** Return the states of audio, one after the other; all of them without a mask. */
async function rowsOf(states: Tensor, mask?: Tensor): Promise<Tensor> {
  if (!mask) return states
  const lengths = mask.sum(1).toArray() as number[]
  const kept = lengths.map((steps, i) => states.select(0, i).narrow(0, 0, Math.floor(Math.ceil(Number(steps) / 2) / 2)))
  return ops.cat(kept, 0)
}

interface Size {
  name: string
  parameters?: number
  shapes?: Record<string, unknown>
  defaults?: Record<string, unknown>
}
const sizes = await fixture<Size>('models/audio-lm-sizes')
const ultravoxSizes = (await fixture<Size>('models/audio-lm-ultravox')).cases
const published = [...sizes.cases, ...ultravoxSizes].filter((one) => one.parameters)
it.each(published)('$name has $parameters parameters with their names', ({ name, parameters, shapes }) => {
  const isType = name === 'granite_speech'
  const model = AudioLM.fromConfig(isType ? { modelType: name } : name, { device: 'meta' })
  expect(model.parameters().reduce((sum, parameter) => sum + parameter.numel(), 0)).toBe(parameters)
  const found: Record<string, [shape: number[], count: number]> = {}
  // The embeddings are the output layer of a tied model.
  const skipped = model.config.textConfig.tieWordEmbeddings ? 'language_model.lm_head.weight' : ''
  for (const [key, { shape }] of Object.entries(model.stateDict())) {
    if (key === skipped) continue
    const pattern = key.replace(/\.\d+\./g, '.*.')
    found[pattern] = [shape, (found[pattern]?.[1] ?? 0) + 1]
  }
  expect(found).toEqual(shapes)
})

it.each(sizes.cases.filter((one) => one.defaults))('$name has the defaults of transformers', ({ name, defaults }) => {
  const { audio_config, ...top } = get(defaults)
  const model = new AudioLM({ modelType: name as Family }, { device: 'meta' })
  const audio = Object.entries(camelKeys(audio_config as Record<string, unknown>))
  // Those that transformers ignores too, and those of any configuration.
  const read = audio.filter(([key]) => key in (model.config.audioConfig as object))
  expect(read.length).toBeGreaterThanOrEqual(12)
  expect(Object.fromEntries(read)).toEqual(model.config.audioConfig)
  // The default id of Voxtral's published files; transformers has none.
  const known = camelKeys(top)
  const id = { audioTokenId: known.audioTokenId ?? 24 }
  const { audioConfig: _, textConfig: __, modelType: ___, ...own } = model.config
  expect(own).toEqual(Object.fromEntries(Object.entries({ ...known, ...id }).filter(([key]) => key in own)))
})

it('hostile configurations are refused by name', () => {
  const HOSTILE = [-1, 0, 1.5, 1e12, Number.NaN, 'x', null, [], [1], {}, true, 10n, Symbol('s')]
  for (const name of FAMILIES) {
    const { config } = open(name).model
    const attempts = (part: 'audioConfig' | undefined) => {
      const keys = Object.keys((part === undefined ? config : config[part]) as object)
      return keys.flatMap((key) => HOSTILE.map((value) => [key, value] as const))
    }
    for (const part of [undefined, 'audioConfig'] as const) {
      for (const [key, value] of attempts(part)) {
        const changed =
          part === undefined
            ? { ...config, [key]: value }
            : { ...config, [part]: { ...(config[part] as object), [key]: value } }
        try {
          new AudioLM(changed as never, { device: 'meta' }).dispose()
        } catch (error) {
          expect(error, `${name} ${part} ${key} ${String(value)}`).toBeInstanceOf(VoxtorchError)
        }
      }
    }
  }
})

interface FolderCase {
  conversations: AudioLMMessage[][]
  texts: string[]
  tokens: number[][]
}

const withClips = (conversations: AudioLMMessage[][]): AudioLMMessage[][] =>
  conversations.map((messages) =>
    messages.map(({ role, content }) => ({
      role,
      content:
        typeof content === 'string'
          ? content
          : content.map((part) =>
              typeof part === 'object' && part.type === 'audio'
                ? { type: 'audio' as const, audio: samplesOf(part.audio as unknown as number) }
                : part,
            ),
    })),
  )

async function openFolder(family: 'qwen2_audio' | 'audioflamingo3') {
  const name = `audio-lm-folder-${family}`
  const file = await fixture<FolderCase>(`models/${name}`)
  const folder = fixturePath(`models/${name}`)
  const [one] = file.cases
  const conversations = withClips(get(one).conversations)
  return {
    folder,
    model: await AudioLM.fromPretrained(folder),
    ...get(one),
    conversations,
    expected: tensorsOf(file, name, 'out'),
  }
}

describe.each(['qwen2_audio', 'audioflamingo3'] as const)('%s: the folder of transformers', (family) => {
  it('prepares conversations as the processor, and answers alike', async () => {
    const { model, conversations, expected, texts, tokens } = await openFolder(family)
    // transformers cuts clips.
    const inputs = await model.prepare(conversations, { longAudio: 'cut' })
    expect(
      model.tokenizer?.decode(get(inputs.inputIds.toArray() as number[][])[1] as number[], {
        skipSpecialTokens: false,
      }),
    ).toContain(model.audioToken)
    expect(inputs.inputIds.equal(get(expected.input_ids))).toBe(true)
    expect(inputs.attentionMask.equal(get(expected.attention_mask))).toBe(true)
    expectClose(get(inputs.inputFeatures), get(expected.features), 1e-5, 'features')
    expect(get(inputs.featuresMask).equal(get(expected.mask))).toBe(true)
    const { logits } = await model.forward({ ...inputs, logitsToKeep: 1 })
    expectClose(get(logits).select(1, 0), get(expected.logits), 1e-5, 'logits')
    expect((await model.generate(inputs, { maxNewTokens: 6, eosTokenId: [] })).tokens).toEqual(tokens)
    // A row alone, and the beams of both.
    const alone = await model.prepare(get(conversations[1]), { longAudio: 'cut' })
    expect((await model.generate(alone, { maxNewTokens: 6, eosTokenId: [] })).tokens[0]).toEqual(tokens[1])
    const beams = await model.generate(inputs, { maxNewTokens: 4, numBeams: 2 })
    expect(beams.tokens).toHaveLength(2)
    if (family !== 'qwen2_audio') return
    // Folders without a template.
    get(model.tokenizer).chatTemplate = null
    const again = await model.prepare(conversations, { longAudio: 'cut' })
    expect(again.inputIds.equal(inputs.inputIds)).toBe(true)
    expect(texts[0]).toContain('Audio 3: ')
  })

  it('is written again', async () => {
    const warn = vi.spyOn(process, 'emitWarning')
    const { model, conversations, folder, expected } = await openFolder(family)
    expect(warn.mock.calls.filter(([message]) => String(message).includes('not read'))).toEqual([])
    warn.mockRestore()
    const to = join(directory, family)
    await model.save(to)
    const config = (from: string) => JSON.parse(readFileSync(join(from, 'config.json'), 'utf8'))
    const [mine, theirs] = [config(to), config(folder)]
    for (const key of [
      'architectures',
      'model_type',
      'audio_token_id',
      'audio_token_index',
      'projector_bias',
      'dtype',
    ]) {
      expect(mine[key], key).toEqual(theirs[key])
    }
    expect(mine.audio_config).toMatchObject(theirs.audio_config)
    const [a, b] = await Promise.all([to, folder].map((from) => loadSafetensors(join(from, 'model.safetensors'))))
    const named = (name: string) =>
      name
        .replace(/^model\.language_model\./, 'language_model.model.')
        .replace(/^lm_head\./, 'language_model.lm_head.')
        .replace(/^model\./, '')
    const tensors = Object.fromEntries(Object.entries(get(b).tensors).map(([name, one]) => [named(name), one]))
    expect(Object.keys(get(a).tensors).sort()).toEqual(Object.keys(tensors).sort())
    for (const [name, one] of Object.entries(get(a).tensors)) expect(one.equal(get(tensors[name])), name).toBe(true)
    const again = await AudioLM.fromPretrained(to)
    const { logits } = await again.forward({
      ...(await again.prepare(conversations, { longAudio: 'cut' })),
      logitsToKeep: 1,
    })
    expectClose(get(logits).select(1, 0), get(expected.logits), 1e-5, 'logits')
  })
})

describe('voxtral: the prompts of mistral-common', async () => {
  interface PromptCase {
    name: string
    messages?: AudioLMMessage[]
    language?: string | null
    samples?: number
    ids: number[]
  }
  const prompts = await fixture<PromptCase>('models/audio-lm-tekken')
  const model = new AudioLM({
    modelType: 'voxtral',
    audioConfig: { ...VOXTRAL_TOWER, maxSourcePositions: 48 },
    textConfig: { ...TINY_LLAMA, vocabSize: 292 },
  }).eval()
  model.tokenizer = await Tokenizer.fromPretrained(fixturePath('models/audio-lm-tekken'))
  const chats = prompts.cases.filter(({ messages }) => messages)

  it.each(chats)('$name', async ({ messages, ids }) => {
    const inputs = await model.prepare(get(withClips([get(messages)])[0]))
    expect(inputs.inputIds.toArray()).toEqual([ids])
    const { logits } = await model.forward({ ...inputs, logitsToKeep: 1 })
    expect(get(logits).isfinite().all().item()).toBe(true)
  })

  it.each(prompts.cases.filter(({ samples }) => samples))('$name', async ({ language, samples, ids }) => {
    const { audioTokens } = await model.features(samplesOf(get(samples)))
    const text = `<s>[INST][BEGIN_AUDIO][AUDIO][/INST]${language ? `lang:${language}` : ''}[TRANSCRIBE]`
    const { inputIds } = get(model.tokenizer).encode(model.prompt(text, audioTokens), { addSpecialTokens: false })
    expect(inputIds).toEqual(ids)
  })
})

it('long clips are refused, cut or read in windows', async () => {
  const { model } = await openFolder('qwen2_audio')
  const clip = samplesOf(40_000)
  await expect(model.features(clip)).rejects.toThrow(/2\.50 s, more than 1\.00 s.*longAudio/)
  const cut = await model.features(clip, { longAudio: 'cut' })
  expect([cut.inputFeatures.shape, cut.audioTokens]).toEqual([[1, 8, 100], [25]])
  const all = await model.features([clip, clip], { longAudio: 'windows' })
  expect([all.inputFeatures.shape, all.audioTokens]).toEqual([
    [6, 8, 100],
    [62, 62],
  ])
  expect(get(all.featuresMask).sum(1).toArray()).toEqual([100, 100, 50, 100, 100, 50])
  const { model: voxtral } = open('voxtral')
  const { inputFeatures, featuresMask, audioTokens } = await voxtral.features(samplesOf(5000))
  expect([inputFeatures.shape, featuresMask, audioTokens]).toEqual([[2, 8, 24], null, [6]])
})

it('wrong inputs are refused by name', async () => {
  const { model, conversations } = await openFolder('qwen2_audio')
  const refused = async (made: () => Promise<unknown> | unknown, ...messages: RegExp[]) => {
    const error = await Promise.resolve()
      .then(made)
      .then(
        () => undefined,
        (thrown: unknown) => thrown,
      )
    expect(error).toBeInstanceOf(VoxtorchError)
    for (const message of messages) expect((error as Error).message).toMatch(message)
  }
  await refused(() => model.prompt('<|AUDIO|> and <|AUDIO|>', [3]), /expected 2 clips for 2 times <\|AUDIO\|>.*got 1/)
  await refused(() => model.prompt('none', [3]), /expected 0 clips.*got 1/)
  await refused(() => model.prompt('<|AUDIO|>', [0]), /audioTokens/)
  await refused(() => model.prompt('<|AUDIO|>', [2 ** 30]), /at most 1048576 audio tokens/)
  const said = [{ role: 'user', content: 'a <|AUDIO|> in the text' }]
  await refused(() => model.prepare(said), /expected 1 clips for 1 times.*got 0/)
  await refused(() => model.prepare([]), /conversations/)
  await refused(() => model.prepare([{ role: 'user', content: [{ type: 'image' } as never] }]), /content\[0\]\.type/)
  await refused(() => model.prepare([{ role: 'user', content: [{ type: 'audio' } as never] }]), /content\[0\]\.audio/)
  await refused(() => model.features(join(directory, 'nowhere.wav')), /nowhere\.wav/)
  await refused(() => model.features([]), /clips/)
  await refused(() => model.features(new Float32Array(100)), /at least one token, got 100 samples/)
  const inputs = await model.prepare(conversations, { longAudio: 'cut' })
  const { inputFeatures, featuresMask, ...texts } = inputs
  const audioEmbeds = await model.projectAudio(await model.encodeAudio({ inputFeatures, featuresMask }), featuresMask)
  const twice = ops.cat([audioEmbeds, audioEmbeds], 1)
  await refused(() => model.forward({ ...texts, audioEmbeds: twice }), /audioEmbeds: expected embeddings of width \d+/)
  const inputsEmbeds = await model.embed(texts.inputIds, { audioEmbeds })
  await refused(() => model.forward({ ...texts, inputsEmbeds } as never), /expected inputIds, got inputsEmbeds/)
  await refused(
    () =>
      model.forward({
        ...inputs,
        inputFeatures: get(inputs.inputFeatures).narrow(0, 0, 1),
        featuresMask: get(inputs.featuresMask).narrow(0, 0, 1),
      }),
    /expected 8 times <\|AUDIO\|> \(260\) for the audio tokens, got 46 in inputIds/,
  )
  await refused(
    () => model.forward({ ...inputs, featuresMask: get(inputs.featuresMask).narrow(0, 0, 1) }),
    /featuresMask: expected \[4, 100\]/,
  )
  const { inputIds } = inputs
  const left = get(featuresMask).flip([1])
  await refused(() => model.forward({ ...inputs, featuresMask: left }), /got 0 before audio in window 0/)
  const short = get(featuresMask).narrow(1, 0, 50)
  await refused(() => model.forward({ ...inputs, featuresMask: short }), /expected \[4, 100\]/)
  await refused(
    () => model.forward({ inputIds, featuresMask }),
    /expected inputFeatures or audioFeatures or audioEmbeds with featuresMask/,
  )
  await refused(() => model.forward({ ...inputs, pixelValues: inputIds } as never), /pixel_?[vV]alues/)
  const { model: voxtral, inputs: whole } = open('voxtral')
  await refused(() => voxtral.forward({ ...whole, featuresMask: whole.inputIds }), /encodes whole windows/)
  await refused(() => voxtral.prepare(said), /tokenizer/)
  for (const [change, message] of [
    [{ modelType: 'wav2vec2' }, /modelType/],
    [{ audioConfig: 3 }, /audioConfig/],
    [{ audioConfig: { dModel: 7 } }, /d_model/],
    [{ audioConfig: { poolSize: 7 } }, /poolSize/],
    [{ audioTokenIndex: -1 }, /audioTokenIndex/],
    [{ textConfig: { modelType: 'gpt2' } }, /gpt2/],
    [{ projectorBias: false }, /projectorBias/],
  ] as const) {
    await refused(() => new AudioLM({ modelType: 'qwen2_audio', ...change } as never), message)
  }
  expect(() => AudioLM.fromConfig('voxtral-9b')).toThrow(/voxtral-mini-3b/)
})

it("pipeline('audio-text-to-text') answers conversations", async () => {
  const { folder, model, conversations, tokens } = await openFolder('qwen2_audio')
  using answering = await pipeline('audio-text-to-text', folder)
  const options = { maxNewTokens: 6, eosTokenId: [] as number[], longAudio: 'cut' as const }
  const many = await answering(conversations, options)
  const decoded = tokens.map((row) => get(model.tokenizer).decode(row, { skipSpecialTokens: true }))
  expect(many.map(([answer]) => get(answer).generated_text.at(-1))).toEqual(
    decoded.map((content) => ({ role: 'assistant', content })),
  )
  const snake = { max_new_tokens: 6, eos_token_id: [], long_audio: 'cut' as const }
  const [one] = await answering(get(conversations[1]), snake)
  expect(get(one).generated_text).toEqual([...get(conversations[1]), { role: 'assistant', content: decoded[1] }])
  expect(await answering([], options)).toEqual([])
  using loaded = await pipeline('audio-text-to-text', model)
  expect(await loaded(get(conversations[1]), options)).toEqual([one])
  await expect(answering(get(conversations[0]), { maxNewTokens: 2 })).rejects.toThrow(/longAudio/)
  await expect(answering(get(conversations[1]), { maxNewToken: 2 } as never)).rejects.toThrow(/maxNewToken/)
  await expect(pipeline('audio-text-to-text', fixturePath('models/whisper-tiny'))).rejects.toThrow(
    /got Whisper.*'automatic-speech-recognition'/,
  )
})

describe('parts train separately', () => {
  const LAYERS = {
    audio_tower: 'q_proj|fc2',
    multi_modal_projector: 'linear_1|linear_2',
    language_model: 'v_proj|down_proj',
  }
  it.each(Object.keys(LAYERS) as (keyof typeof LAYERS)[])('LoRA on %s alone', async (part) => {
    const { model, inputs } = open('audioflamingo3')
    const before = await model.forward(inputs)
    getPeftModel(model, { r: 2, loraAlpha: 4, targetModules: `^${part}\\..*(${LAYERS[part]})$` })
    const trained = model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad)
    expect(trained.length).toBeGreaterThan(1)
    for (const [name] of trained) expect(name).toMatch(new RegExp(`^${part}\\..*lora_[AB]`))
    expectClose(get((await model.forward(inputs)).loss), get(before.loss), 1e-6, 'loss of zero adapters')
    const optimizer = new AdamW(
      trained.map(([, parameter]) => parameter),
      { lr: 0.05 },
    )
    for (let step = 0; step < 3; step++) {
      optimizer.zeroGrad()
      await get((await model.train().forward(inputs)).loss).backward()
      await optimizer.step()
    }
    const after = get((await model.eval().forward(inputs)).loss).item() as number
    expect(after).toBeLessThan(get(before.loss).item() as number)
  })

  it.each(Object.keys(LAYERS))('%s in full, with the others frozen', async (part) => {
    const { model, inputs } = open('qwen2_audio')
    model.freeze().unfreeze(part)
    await get((await model.train().forward(inputs)).loss).backward()
    const changed = model.namedParameters().filter(([, { grad }]) => grad !== null)
    expect(changed.length).toBeGreaterThan(1)
    for (const [name] of changed) expect(name.startsWith(`${part}.`), name).toBe(true)
  })
})

it('trainParts adapts, freezes and trains parts, and saves them together', async () => {
  const { model, inputs } = open('audioflamingo3')
  const peft = get(model.trainParts({ encoder: 'lora', connector: 'full', decoder: 'lora' }, { r: 2, useDora: true }))
  const trained = model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad)
  const kinds = trained.map(([name]) =>
    name.replace(/^(audio_tower|language_model)\..*\.(lora_[AB]|lora_magnitude_vector)\..*/, '$1 $2'),
  )
  expect([...new Set(kinds)].sort()).toEqual([
    ...['audio_tower', 'language_model'].flatMap((part) => [
      `${part} lora_A`,
      `${part} lora_B`,
      `${part} lora_magnitude_vector`,
    ]),
    ...['linear_1.bias', 'linear_1.weight', 'linear_2.bias', 'linear_2.weight'].map(
      (name) => `multi_modal_projector.${name}`,
    ),
  ])
  const optimizer = new AdamW(
    trained.map(([, parameter]) => parameter),
    { lr: 0.02 },
  )
  await get((await model.train().forward(inputs)).loss).backward()
  await optimizer.step()
  const after = get((await model.eval().forward(inputs)).loss)
  const to = join(directory, 'adapter')
  await peft.savePretrained(to)
  const { model: other } = open('audioflamingo3')
  await PeftModel.fromPretrained(other, to)
  expectClose(get((await other.forward(inputs)).loss), after, 1e-6, 'loss of the loaded adapter')

  expect(() => model.trainParts({ connector: 'full' })).toThrow(/expected a model without adapters/)

  const { model: whole } = open('qwen2_audio')
  expect(whole.trainParts({ encoder: 'full' })).toBeNull()
  const names = whole.namedParameters().flatMap(([name, { requiresGrad }]) => (requiresGrad ? [name] : []))
  expect(names.every((name) => name.startsWith('audio_tower.'))).toBe(true)
  expect(names).not.toContain('audio_tower.embed_positions.weight')
  expect(() => whole.trainParts({})).toThrow(/at least one part/)
  expect(() => whole.trainParts({ encoder: 'half' as never })).toThrow(/encoder/)
  expect(() => whole.trainParts({ tower: 'full' } as never)).toThrow(/tower/)
  expect(() => whole.trainParts({ encoder: 'full' }, { r: 2 })).toThrow(/lora/)
  expect(() => whole.trainParts({ encoder: 'lora' }, { targetModules: 'q_.*' })).toThrow(/targetModules/)
  for (const targetModules of [5, { q_proj: 1 }, [5], []] as never[]) {
    expect(() => whole.trainParts({ encoder: 'lora' }, { targetModules })).toThrow(
      /expected lora\.targetModules to be a list/,
    )
  }
  expect(() => whole.trainParts({ decoder: 'lora' }, { targetModules: ['q_proj', 'q_prj'] })).toThrow(
    /none is named 'q_prj'/,
  )
  const both = { encoder: 'lora', decoder: 'lora' } as const
  expect(() => whole.trainParts(both, { targetModules: ['gate_proj'] })).toThrow(/audio_tower has none of gate_proj/)
  expect(() => whole.trainParts({ encoder: 'lora' }, { modulesToSave: ['lm_head'] })).toThrow(/modulesToSave/)
})

it('leaves nothing behind', async () => {
  const { model: other, inputs } = open('audioflamingo3')
  const { config } = other
  const before = await settledTensors()
  const model = new AudioLM(config).eval()
  await scope(async () => {
    await model.forward(inputs)
    await model.generate({ inputIds: inputs.inputIds.narrow(0, 2, 1).narrow(1, 0, 4) }, { maxNewTokens: 2 })
    await model.features([samplesOf(5000), samplesOf(900)])
  })
  model.dispose()
  expect(await settledTensors()).toBeLessThanOrEqual(before)
})
