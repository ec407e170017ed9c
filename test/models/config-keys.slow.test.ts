import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import * as voxtorch from '../../lib/index.js'
import {
  Beats,
  Bert,
  BigVGAN,
  Clip,
  ClipVisionModel,
  ConfigError,
  DecoderLM,
  InternVL,
  LanguageBind,
  type Module,
  manualSeed,
  noGrad,
  QFormer,
  Roberta,
  RobertaForSequenceClassification,
  scope,
  type Tensor,
  tensor,
  UnitVoicebox,
  Wav2Vec2ForCTC,
  Whisper,
} from '../../lib/index.js'

type Config = Record<string, unknown>
interface Found {
  other: unknown
  with: Config
  effects: string[]
  count?: number
  values?: number[]
}
interface Class {
  architecture: string
  base: Config
  count: number
  values: number[]
  keys: Record<string, Found>
}

const fixture = JSON.parse(readFileSync(new URL('../fixtures/models/config-keys.json', import.meta.url), 'utf8')) as {
  classes: Record<string, Class>
  defaults: Record<string, Config>
  lora: Config
}

const camelKey = (key: string) => key.replace(/_([a-z0-9])/g, (_, c: string) => c.toUpperCase())
const camel = (config: Config): Config =>
  Object.fromEntries(
    Object.entries(config).map(([key, value]) => [
      camelKey(key),
      value !== null && typeof value === 'object' && !Array.isArray(value) && !/^(id2label|label2id)$/.test(key)
        ? camel(value as Config)
        : value,
    ]),
  )

type Made = Module & { config: Config }
type Forward = (inputs: Config) => Promise<Record<string, unknown>>
const DECODERS = [
  'llama',
  'mistral',
  'qwen2',
  'phi3',
  'qwen3',
  'olmo2',
  'smollm3',
  'granite',
  'gemma2',
  'gemma3_text',
  'ministral',
  'ministral3',
  'mixtral',
  'qwen3_moe',
]
function make(name: string, config: Config, options: object = {}): Made {
  manualSeed(0)
  if (DECODERS.includes(name)) return new DecoderLM({ modelType: name, ...config } as never, options) as never
  if (name === 'Idefics3') return new voxtorch.SmolVLM({ modelType: 'idefics3', ...config } as never, options) as never
  return new (voxtorch as unknown as Record<string, new (config: Config, options: object) => Made>)[name]!(config, options) // biome-ignore format: one line
}

const sines = (count: number, step: number, start = 0): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * step + start))

const isFloat = (value: Tensor) => value.dtype === 'float32'

/** Names under which transformers lists a tied tensor a second time: the last one that it fills. */
const TIED: Record<string, string> = {
  'model.embed_tokens.weight': 'lm_head.weight',
  'model.decoder.embed_tokens.weight': 'proj_out.weight',
  'model.text_model.embed_tokens.weight': 'lm_head.weight',
  'roberta.embeddings.word_embeddings.weight': 'lm_head.decoder.weight',
  'lm_head.bias': 'lm_head.decoder.bias',
}

/** The name of a parameter of SmolVLM in files. */
const inSmolVLM = (name: string): string =>
  name.startsWith('language_model.lm_head.')
    ? name.slice('language_model.'.length)
    : `model.${name.replace(/^language_model\.model\./, 'text_model.')}`

/** Weights that the reference has too. */
function fill(model: Made): void {
  const tied = model.config.tieWordEmbeddings === true && !(model instanceof RobertaForSequenceClassification)
  noGrad(() =>
    scope(() => {
      for (const [name, value] of Object.entries(model.stateDict())) {
        // The encoder's positions are sines already; codebooks are sums over counts.
        const isKept = /(encoder\.embed_positions\.weight|cluster_usage|initialized)$/.test(name)
        if (!isFloat(value) || isKept) continue
        const theirs = model instanceof voxtorch.SmolVLM ? inSmolVLM(name) : name
        const last = (tied && TIED[theirs]) || theirs
        const start = Buffer.from(last).reduce((sum, byte) => sum + byte, 0) % 97
        value.copy_(
          tensor(sines(value.numel(), 0.37, start))
            .mul(0.2)
            .view(value.shape),
        )
        if (name.endsWith('running_var')) value.abs_().add_(0.1)
      }
    }),
  )
}

const IDS = [
  [5, 6, 7, 8, 9, 10, 39, 2, 2, 2],
  [5, 3, 4, 38, 11, 12, 13, 14, 15, 39],
]
const ids = (rows: number[][]) => tensor(rows, { dtype: 'int64' })

const wave = (shape: number[]): Tensor =>
  tensor(
    sines(
      shape.reduce((a, b) => a * b, 1),
      0.11,
    ),
  ).view(shape)

function inputsOf(name: string, config: Config): Config {
  if (name.startsWith('Wav2Vec2Bert')) {
    const width = config.featureProjectionInputDim as number
    return { inputFeatures: wave([2, 24, width]) }
  }
  const speech = /^(Wav|Hubert|Data2Vec)/.test(name)
  if (speech) return { inputValues: wave([2, 400]) }
  if (name === 'Whisper') {
    const [bands, steps] = [config.numMelBins as number, 2 * (config.maxSourcePositions as number)]
    return { inputFeatures: wave([1, bands, steps]) }
  }
  if (name.startsWith('Parakeet') || name === 'FastConformerEncoder') {
    const width = ((config.encoderConfig ?? config) as Config).numMelBins as number
    const features = { inputFeatures: wave([2, 40, width]) }
    if (!name.startsWith('Parakeet')) return features
    // transformers shifts the labels outside of its classes.
    return {
      ...features,
      attentionMask: voxtorch.ones([2, 40]),
      ...(name !== 'ParakeetForCTC' && { outputLogits: true }),
    }
  }
  if (name === 'Moonshine') return { inputValues: wave([2, 2400]) }
  if (name === 'Mimi') return { inputValues: wave([2, config.audioChannels as number, 150]) }
  const vision = (config.visionConfig ?? config) as Config
  const side = vision.imageSize as number
  const channels = (vision.numChannels as number) ?? 3
  if (name === 'SmolVLM' || name === 'Idefics3') {
    const count = (side / (vision.patchSize as number) / (config.scaleFactor as number)) ** 2
    const inputIds = ids([[5, ...Array<number>(count).fill(config.imageTokenId as number), 6, 7, 8]])
    return { inputIds, labels: inputIds, pixelValues: wave([1, channels, side, side]), logitsToKeep: 0 }
  }
  const images = /^(Clip|Siglip)/.test(name) ? { pixelValues: wave([2, channels, side, side]) } : {}
  return name.endsWith('VisionModel') ? images : { inputIds: ids(IDS), ...images }
}

function labelsOf(name: string): Config {
  if (/CTC|RNNT|TDT/.test(name)) return { labels: ids([[5, 6], [7, 8]]) } // biome-ignore format: one line
  if (name.includes('FrameClassification')) return {}
  if (name.includes('Token')) return { labels: ids([[0, 1, 0, 1, 0, 1, 0, 1, 0, 1], Array<number>(10).fill(1)]) }
  if (name.includes('SequenceClassification') || name.includes('XVector')) return { labels: tensor([0, 1], { dtype: 'int64' }) } // biome-ignore format: one line
  if (name === 'Whisper') return { labels: ids([[5, 6, 7, 57]]), logitsToKeep: 0 }
  if (name === 'Moonshine') return { labels: ids([[5, 6, 7, 2], [8, 9, 10, 2]]), logitsToKeep: 0 } // biome-ignore format: one line
  if (DECODERS.includes(name)) return { labels: ids(IDS), logitsToKeep: 0 }
  return name === 'Clip' ? { returnLoss: true } : {}
}

const OUTPUTS = ['logits', 'logitsPerImage', 'lastHiddenState', 'poolerOutput', 'audioValues']
const outputsOf = (output: Record<string, unknown>): Tensor[] =>
  OUTPUTS.map((key) => output[key] as Tensor | null | undefined).filter((value) => value != null)
const numbersOf = (value: Tensor): number[] => [value.detach().float().toArray()].flat(9) as number[]
const bytesOf = (values: Tensor[]): string => values.map((value) => numbersOf(value).join()).join(';')

/** What a network of a configuration is, in the words of test/reference/config_keys.py. */
const lookedAt = (name: string, config: Config) => scope(() => lookedAtInside(name, config))
async function lookedAtInside(name: string, config: Config) {
  const model = make(name, config)
  try {
    const state = Object.entries(model.stateDict())
    const seen: Record<string, string> = {
      shapes: JSON.stringify(state.map(([key, { shape }]) => [key, shape])),
      initial: bytesOf(state.filter(([, value]) => isFloat(value)).map(([, value]) => value)),
    }
    fill(model)
    const inputs = { ...inputsOf(name, model.config), ...labelsOf(name) }
    model.eval()
    const forward = (model.forward as unknown as Forward).bind(model)
    const output = await forward(inputs)
    seen.output = bytesOf(outputsOf(output))
    const loss = output.loss as Tensor | null | undefined
    if (loss && loss.ndim === 0 && loss.requiresGrad) await loss.backward()
    const gradients = model.parameters().flatMap(({ grad }) => (grad ? [grad] : []))
    seen.loss = (loss ? bytesOf([loss]) : '') + bytesOf(gradients)
    model.train()
    manualSeed(1)
    seen.training = bytesOf(outputsOf(await forward(inputs)))
    const values = numbersOf(outputsOf(output)[0] as Tensor).slice(0, 4)
    return { seen, values, count: model.parameters().reduce((sum, one) => sum + one.numel(), 0) }
  } finally {
    model.dispose()
  }
}

/** Keys that voxtorch has no part in, each with the reason. */
const ELSEWHERE: Record<string, string> = {
  output_hidden_states: 'an input of forward, refused in a configuration',
  output_attentions: 'an input of forward, refused in a configuration',
}

/** Keys of which transformers computes another value, and voxtorch refuses it. */
const REFUSED_HERE = [
  'is_decoder',
  'initializer_factor',
  'resid_pdrop',
  'embd_pdrop',
  'max_bucket_distance',
  'problem_type',
  'router_jitter_noise',
  'use_bidirectional_attention',
]
/** The same of one class: a head's matrix is the embeddings', and a classifier reads all frames. */
const REFUSED_BY: Record<string, readonly string[]> = {
  // Another number than that of num_experts.
  qwen3_moe: ['num_local_experts'],
  RobertaForMaskedLM: ['tie_word_embeddings'],
  WavLMForXVector: ['add_adapter'],
  // Without parts for each kind of layer, which transformers ignores.
  gemma3_text: ['rope_parameters'],
  // Both parts have the encoder's heads, in transformers too, which ignores the decoder's numbers.
  Moonshine: ['encoder_num_attention_heads', 'decoder_num_attention_heads', 'decoder_num_key_value_heads'],
  // A stream's output equals the whole clip's only with these.
  Mimi: ['use_causal_conv', 'trim_right_ratio', 'use_streaming'],
  FastConformerEncoder: ['num_key_value_heads'],
  ParakeetForCTC: ['encoder_config.num_key_value_heads'],
  ParakeetForRNNT: ['encoder_config.num_key_value_heads'],
  ParakeetForTDT: ['encoder_config.num_key_value_heads'],
}

describe.each(Object.entries(fixture.classes))('the configuration of %s', (name, { base, keys, values, count }) => {
  const whole = camel(base)
  let before: Awaited<ReturnType<typeof lookedAt>>

  it("makes transformers' network", async () => {
    before = await lookedAt(name, whole)
    expect(before.count).toBe(count)
    for (const [i, value] of values.entries()) expect(before.values[i]).toBeCloseTo(value, 4)
  })

  it.each(Object.entries(keys).filter(([key]) => !((key.split('.').at(-1) as string) in ELSEWHERE)))(
    'reads or refuses %s',
    async (key, found) => {
      const path = key.split('.').map(camelKey)
      const changed = (value: Config): Config => {
        const one = structuredClone(whole)
        const inner = path.slice(0, -1).reduce((at, part) => at[part] as Config, one)
        Object.assign(inner, camel(found.with), value)
        return one
      }
      const other = camel({ value: found.other }).value
      let after: Awaited<ReturnType<typeof lookedAt>>
      try {
        after = await lookedAt(name, changed({ [path.at(-1) as string]: other }))
      } catch (error) {
        expect(error, key).toBeInstanceOf(voxtorch.VoxtorchError)
        const mayRefuse = [...REFUSED_HERE, ...(REFUSED_BY[name] ?? [])].includes(key)
        expect({ key, mayRefuse: mayRefuse || found.effects.includes('refused') }).toEqual({ key, mayRefuse: true })
        return
      }
      const first = Object.keys(found.with).length > 0 ? await lookedAt(name, changed({})) : before
      const effects = Object.keys(after.seen).filter((kind) => after.seen[kind] !== first.seen[kind])
      const mine = effects.includes('shapes') ? ['shapes'] : effects
      if (found.effects.includes('refused')) return
      // What changes in transformers changes here.
      const isShape = mine.includes('shapes')
      // Some classes have no loss here.
      const seen = (kind: string) => isShape || mine.includes(kind) || (kind === 'loss' && before.seen.loss === '')
      const lacking = found.effects.filter((kind) => !seen(kind))
      expect({ key, effects: lacking }).toEqual({ key, effects: [] })
      expect({ key, count: after.count }).toEqual({ key, count: found.count })
      for (const [i, value] of (found.values ?? []).entries()) expect(after.values[i], key).toBeCloseTo(value, 4)
    },
  )
})

const OF_TYPE: Record<string, string> = {
  Bert: 'bert',
  Roberta: 'roberta',
  RobertaForMaskedLM: 'roberta',
  RobertaForSequenceClassification: 'roberta',
  Wav2Vec2ForCTC: 'wav2vec2',
  Wav2Vec2ForSequenceClassification: 'wav2vec2',
  WavLMForCTC: 'wavlm',
  WavLMForXVector: 'wavlm',
  HubertForCTC: 'hubert',
  Data2VecAudioForCTC: 'data2vec-audio',
  Wav2Vec2ConformerForCTC: 'wav2vec2-conformer',
  Wav2Vec2BertForCTC: 'wav2vec2-bert',
  Wav2Vec2BertForSequenceClassification: 'wav2vec2-bert',
  Whisper: 'whisper',
  Clip: 'clip',
  SiglipVisionModel: 'siglip_vision_model',
  SmolVLM: 'smolvlm',
  Idefics3: 'idefics3',
  Moonshine: 'moonshine',
  Mimi: 'mimi',
  FastConformerEncoder: 'parakeet_encoder',
  ParakeetForCTC: 'parakeet_ctc',
  ParakeetForRNNT: 'parakeet_rnnt',
  ParakeetForTDT: 'parakeet_tdt',
}

/** Defaults that differ from transformers' class, each with the reason. */
const OWN_DEFAULTS: Record<string, readonly string[]> = {
  // A decoder ends where its file says; a table row without gradient is there where one is named.
  llama: ['bosTokenId', 'eosTokenId', 'ropeParameters'],
  mistral: ['bosTokenId', 'eosTokenId', 'ropeParameters'],
  qwen2: ['numKeyValueHeads', 'ropeParameters', 'layerTypes'],
  phi3: ['bosTokenId', 'eosTokenId', 'padTokenId', 'ropeParameters'],
  qwen3: ['slidingWindow', 'ropeParameters', 'layerTypes'],
  olmo2: ['bosTokenId', 'eosTokenId', 'padTokenId', 'ropeParameters'],
  smollm3: ['bosTokenId', 'eosTokenId', 'padTokenId', 'ropeParameters', 'layerTypes', 'noRopeLayers'],
  granite: ['bosTokenId', 'eosTokenId', 'ropeParameters'],
  gemma2: ['bosTokenId', 'eosTokenId', 'padTokenId', 'ropeParameters', 'layerTypes'],
  gemma3_text: ['bosTokenId', 'eosTokenId', 'padTokenId', 'ropeParameters', 'layerTypes', 'useBidirectionalAttention'],
  // A null of headDim is hiddenSize / numAttentionHeads.
  ministral: ['bosTokenId', 'eosTokenId', 'headDim', 'ropeParameters', 'layerTypes'],
  ministral3: ['bosTokenId', 'eosTokenId', 'padTokenId', 'ropeParameters'],
  mixtral: ['bosTokenId', 'eosTokenId', 'headDim', 'ropeParameters'],
  // A head needs a vocabulary.
  Wav2Vec2ConformerForCTC: ['vocabSize', 'outputHiddenSize'],
  Wav2Vec2BertForCTC: ['vocabSize', 'outputHiddenSize'],
  // numExperts here, as in published files.
  qwen3_moe: ['ropeParameters', 'slidingWindow', 'mlpOnlyLayers', 'numLocalExperts'],
  // Under the keys of transformers 4.
  Moonshine: ['ropeParameters'],
  Mimi: ['ropeParameters', 'FrameRate'],
  // The default of transformers, 2, does not divide its own number of patches.
  SmolVLM: ['scaleFactor', 'textConfig.ropeParameters'],
  Idefics3: ['scaleFactor', 'textConfig.ropeParameters'],
}

/** Keys of which only transformers' default is computed; a test above shows that others are refused. */
const REFUSED = ['isDecoder', 'initializerFactor', 'residPdrop', 'routerJitterNoise']

describe('model.config', () => {
  const types = Object.entries(fixture.classes)
  it.each(types)("of %s holds what the network was built with, and transformers' defaults", (name, { keys }) => {
    const decoder = DECODERS.includes(name)
    const type = decoder ? name : (OF_TYPE[name] as string)
    const meta = (config: Config) => make(name, config, { device: 'meta' })
    using model = meta(OWN_DEFAULTS[name]?.includes('scaleFactor') ? { scaleFactor: 1 } : {})
    const expected = camel(fixture.defaults[type] as Config)
    const config = model.config as Config
    const read = Object.entries(keys).filter(([, { effects }]) => effects.length > 0 && !effects.includes('refused'))
    for (const [key] of read) {
      const path = key.split('.').map(camelKey)
      const of = (one: Config) => path.reduce((at: unknown, part) => (at as Config)[part], one)
      const isOwn = OWN_DEFAULTS[name]?.some((own) => own === path[0] || own === path.join('.'))
      if (isOwn || REFUSED.includes(path[0] as string) || REFUSED_BY[name]?.includes(key)) continue
      expect({ key, value: of(config) }).toEqual({ key, value: of(expected) })
    }
    // A configuration makes the same network again, also after it was written as JSON.
    using again = meta(JSON.parse(JSON.stringify(config)) as Config)
    expect(again.config).toEqual(config)
  })

  it('follows what sizes follow from', () => {
    using decoder = new DecoderLM({ hiddenSize: 64, numAttentionHeads: 8 }, { device: 'meta' })
    expect(decoder.config).toMatchObject({ headDim: 8, numKeyValueHeads: 8, ropeTheta: 10000, attentionBias: false })
    const { config } = decoder
    config.hiddenSize = 1
    expect(new DecoderLM({}, { device: 'meta' }).config.hiddenSize).toBe(4096)
    using speech = new Wav2Vec2ForCTC({ hiddenSize: 48 }, { device: 'meta' })
    expect(speech.config).toMatchObject({ outputHiddenSize: 48, vocabSize: 32, ctcLossReduction: 'sum' })
    ;(speech.config.convDim as number[]).push(1)
    using other = new Wav2Vec2ForCTC({}, { device: 'meta' })
    expect(other.config.convDim).toHaveLength(7)
  })
})

describe('a key that no network has', () => {
  const meta = { device: 'meta' } as const
  const misspelt: [string, () => unknown, string][] = [
    ['Bert', () => new Bert({ hidenSize: 8 }, meta), "'hidenSize'; did you mean 'hiddenSize'?"],
    ['in the spelling of files', () => new Bert({ hidden_size: 8 }, meta), "'hidden_size'; did you mean 'hiddenSize'?"],
    ['Roberta.fromConfig', () => Roberta.fromConfig({ numLayers: 3 }, meta), "'numLayers'"],
    ['a head', () => new Wav2Vec2ForCTC({ vocabSise: 3 }, meta), "'vocabSise'; did you mean 'vocabSize'?"],
    ['ClipVisionModel', () => new ClipVisionModel({ nonsense: 1 }, meta), "got 'nonsense'"],
    ['Clip, in a part', () => new Clip({ textConfig: { hidenSize: 8 } }, meta), "textConfig: expected a key of its configuration, got 'hidenSize'"], // biome-ignore format: one line
    ['DecoderLM.fromConfig', () => DecoderLM.fromConfig({ numHiddenLayer: 2 }, meta), "'numHiddenLayer'; did you mean 'numHiddenLayers'?"], // biome-ignore format: one line
    ['a rope scaling', () => new DecoderLM({ ropeScaling: { ropeTyp: 'linear' } as never }, meta), "ropeScaling: expected a key of its configuration, got 'ropeTyp'"], // biome-ignore format: one line
    ['Whisper', () => new Whisper({ nMels: 8 }, meta), "'nMels'"],
    ['Beats', () => new Beats({ encoderLayer: 8 }, meta), "'encoderLayer'; did you mean 'encoderLayers'?"],
    ['BigVGAN', () => new BigVGAN({ numMel: 8 }, meta), "'numMel'; did you mean 'numMels'?"],
    ['UnitVoicebox', () => new UnitVoicebox({ nFeat: 8 }, meta), "'nFeat'; did you mean 'nFeats'?"],
    ['QFormer', () => new QFormer({ windows: 8 }, meta), "'windows'; did you mean 'window'?"],
    ['InternVL, in a part', () => new InternVL({ llmConfig: { hidenSize: 8 } }, meta), "llmConfig: expected a key of its configuration, got 'hidenSize'"], // biome-ignore format: one line
    ['LanguageBind, in a part', () => new LanguageBind({ image: { visionConfig: { hidenSize: 8 } } }, meta), "'hidenSize'"], // biome-ignore format: one line
    ['a long one', () => new Bert({ ['x'.repeat(1e6)]: 8 }, meta), `got '${'x'.repeat(100)}…'`],
  ]
  it.each(misspelt)('is refused with the nearest one: %s', (_, build, message) => {
    expect(build).toThrow(ConfigError)
    expect(build).toThrow(message)
  })

  const refused: [string, () => unknown, string][] = [
    ['a decoder for an encoder', () => new Bert({ isDecoder: true }, meta), 'expected isDecoder false, got true'],
    ['relative positions', () => new Roberta({ positionEmbeddingType: 'relative_key' }, meta), 'expected positionEmbeddingType "absolute"'], // biome-ignore format: one line
    ['pruned heads', () => new Bert({ prunedHeads: { 0: [1] } }, meta), 'expected prunedHeads {}'],
    ['outputs', () => new Bert({ outputAttentions: true }, meta), 'expected outputAttentions as an input of forward'],
    ['biases of Mistral', () => new DecoderLM({ modelType: 'mistral', attentionBias: true }, meta), 'expected attentionBias false'], // biome-ignore format: one line
  ]
  it.each(refused)('and so is a value that cannot be computed: %s', (_, build, message) => {
    expect(build).toThrow(ConfigError)
    expect(build).toThrow(message)
  })
})

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-config-keys-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe('the files of others', () => {
  const warnings: string[] = []
  beforeEach(() => {
    warnings.length = 0
    vi.spyOn(process, 'emitWarning').mockImplementation((warning) => void warnings.push(String(warning)))
  })
  afterEach(() => void vi.restoreAllMocks())
  const edit = (directory: string, change: (config: Config) => void) => {
    const file = join(directory, 'config.json')
    const config = JSON.parse(readFileSync(file, 'utf8')) as Config
    change(config)
    writeFileSync(file, JSON.stringify(config))
  }
  const size = { vocabSize: 11, hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 8 }

  it('have unknown keys reported once by name, and written again', async () => {
    const directory = join(folder, 'bert')
    using made = new Bert({ ...size, maxPositionEmbeddings: 6 })
    await made.save(directory)
    edit(
      directory,
      (config) =>
      Object.assign(config, { emotion_labels: ['a'], transformers_version: '4.1', _commit_hash: 'x', use_cache: true, output_attentions: true }), // biome-ignore format: one line
    )
    for (const _ of [1, 2]) {
      using read = await Bert.fromPretrained(directory)
      expect(read.config.hiddenSize).toBe(8)
      expect(read.config).not.toHaveProperty('emotionLabels')
      await read.save(join(folder, 'again'))
      expect(new Bert(read.config, { device: 'meta' }).config).toEqual(read.config)
    }
    expect(warnings).toEqual([
      `${directory}: these keys are not read: emotion_labels, output_attentions. The network is built without them.`,
    ])
    const saved = JSON.parse(readFileSync(join(folder, 'again', 'config.json'), 'utf8')) as Config
    expect(saved).toMatchObject({
      emotion_labels: ['a'],
      _commit_hash: 'x',
      transformers_version: '4.1',
      hidden_size: 8,
    })
  })

  it('have those of their parts reported too', async () => {
    const directory = join(folder, 'clip')
    const part = { hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 8 }
    const vision = { ...part, imageSize: 4, patchSize: 2 }
    using made = new Clip({ textConfig: { ...part, vocabSize: 11 }, visionConfig: vision, projectionDim: 4 })
    await made.save(directory)
    edit(directory, (config) => Object.assign(config.vision_config as Config, { new_norm: true }))
    using read = await Clip.fromPretrained(directory)
    expect(warnings).toEqual([expect.stringContaining('these keys are not read: vision_config.new_norm.')])
    await read.save(join(folder, 'clip-again'))
    const saved = JSON.parse(readFileSync(join(folder, 'clip-again', 'config.json'), 'utf8')) as Config
    expect(saved.vision_config).toMatchObject({ hidden_size: 8, new_norm: true })
  })

  it('are refused where a key asks for what is not computed, and a change of the caller is checked as his own', async () => {
    const directory = join(folder, 'refused')
    using made = new Bert({ ...size, maxPositionEmbeddings: 6 })
    await made.save(directory)
    await expect(Bert.fromPretrained(directory, { config: { hidenSize: 8 } })).rejects.toThrow("'hidenSize'")
    edit(directory, (config) => Object.assign(config, { position_embedding_type: 'relative_key' }))
    await expect(Bert.fromPretrained(directory)).rejects.toThrow('positionEmbeddingType "absolute"')
  })

  it("say of audio what is read, refused or reported: every key of transformers' feature extractors", async () => {
    const speech = { hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 8, convDim: [4], convKernel: [10], convStride: [5], numConvPosEmbeddings: 4, numConvPosEmbeddingGroups: 2 } // biome-ignore format: one line
    const waveform = join(folder, 'waveform')
    using ctc = new Wav2Vec2ForCTC(speech)
    await ctc.save(waveform)
    const spectrogram = join(folder, 'spectrogram')
    const { base } = fixture.classes.Whisper as Class
    using whisper = new Whisper(camel(base))
    await whisper.save(spectrogram)
    const harmless = [
      'feature_extractor_type',
      'processor_class',
      'padding_side',
      'return_attention_mask',
      'mel_filters',
    ]
    const both = [
      ['Wav2Vec2FeatureExtractor', waveform, (at: string) => Wav2Vec2ForCTC.fromPretrained(at)],
      ['WhisperFeatureExtractor', spectrogram, (at: string) => Whisper.fromPretrained(at)],
    ] as const
    for (const [kind, directory, load] of both) {
      const own = JSON.parse(readFileSync(join(directory, 'preprocessor_config.json'), 'utf8')) as Config
      for (const [key, value] of Object.entries({ ...fixture.defaults[kind], made_up: 1 })) {
        const other = typeof value === 'number' ? value + 1 : typeof value === 'boolean' ? !value : 'other'
        writeFileSync(join(directory, 'preprocessor_config.json'), JSON.stringify({ ...own, [key]: other }))
        warnings.length = 0
        let outcome = 'ignored'
        try {
          using model = await load(directory)
          if (warnings.some((text) => text.includes(key))) outcome = 'reported'
          else if (model instanceof Wav2Vec2ForCTC && !model.normalizesAudio) outcome = 'used'
        } catch (error) {
          expect(error).toBeInstanceOf(ConfigError)
          outcome = 'refused'
        }
        const known = harmless.includes(key) || (kind === 'WhisperFeatureExtractor' && key === 'do_normalize')
        if (!known) expect({ kind, key, outcome }).not.toEqual({ kind, key, outcome: 'ignored' })
      }
    }
    // transformers 5 has them in one file with the tokenizer's.
    rmSync(join(waveform, 'preprocessor_config.json'))
    writeFileSync(
      join(waveform, 'processor_config.json'),
      JSON.stringify({ feature_extractor: { do_normalize: false } }),
    )
    using model = await Wav2Vec2ForCTC.fromPretrained(waveform)
    expect(model.normalizesAudio).toBe(false)
  })

  it("of adapters: every key of peft's LoraConfig is used or refused", async () => {
    const { LoraConfig } = voxtorch
    const own = new Set(Object.keys(new LoraConfig({ targetModules: ['x'] })))
    const directory = join(folder, 'lora')
    mkdirSync(directory)
    const model = new voxtorch.Sequential(new voxtorch.Linear(2, 2))
    const lora = { ...fixture.lora, target_modules: ['0'] }
    // What other programs read, or what peft reads before there are weights.
    const harmless = ['auto_mapping', 'peft_version', 'megatron_config', 'megatron_core', 'loftq_config', 'qalora_group_size', 'runtime_config'] // biome-ignore format: one line
    for (const [key, value] of Object.entries(fixture.lora)) {
      if (own.has(camelKey(key)) || harmless.includes(key)) continue
      const other = typeof value === 'boolean' ? !value : { a: 1 }
      writeFileSync(join(directory, 'adapter_config.json'), JSON.stringify({ ...lora, [key]: other }))
      const load = voxtorch.PeftModel.fromPretrained(model, directory)
      await expect(load, key).rejects.toThrow(key)
    }
  })
})
