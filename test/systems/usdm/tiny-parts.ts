import {
  BigVGAN,
  DecoderLM,
  Linear,
  Module,
  noGrad,
  ops,
  scope,
  type Tensor,
  Tokenizer,
  tensor,
  UnitExtractor,
  UnitVoicebox,
  Wav2Vec2,
  zerosLike,
} from '../../../lib/index.js'
import { UsdmTokenizer, type UsdmVocoder, type UsdmVoicebox } from '../../../lib/systems/usdm/index.js'
import { fixture, tensorsOf } from '../../helpers.js'
import { camelKeys, loadParameters } from '../../models/networks.js'
import { writeTextModel } from '../../serve/text-model.mjs'

const file = await fixture<{ name: string; config: Record<string, unknown> }>('models/units')

/** The XLS-R of the fixture with its 40 centroids. */
export async function tinyUnits(): Promise<UnitExtractor> {
  const network = new Wav2Vec2(camelKeys(file.cases[0]?.config ?? {})).eval()
  loadParameters(network, file, 'units')
  const { centroids } = tensorsOf(file, 'units', 'in')
  return UnitExtractor.fromPretrained({ encoder: network, kmeans: centroids as Tensor, layer: 2 })
}
export const UNITS = 40

/** A token for each byte, and those of speech. */
export async function tinyTokenizer(folder: string): Promise<UsdmTokenizer> {
  await writeTextModel(folder, DecoderLM)
  return UsdmTokenizer.extend(await Tokenizer.fromPretrained(folder), { units: UNITS })
}

/** Random weights, which say something else to everything. */
export function tinyLlm(vocabSize: number, config: object = {}): DecoderLM {
  return DecoderLM.fromConfig(
    {
      ...{ modelType: 'mistral', vocabSize, hiddenSize: 48, intermediateSize: 96, numHiddenLayers: 2 },
      ...{ numAttentionHeads: 4, numKeyValueHeads: 2, maxPositionEmbeddings: 2048, initializerRange: 0.2 },
      ...config,
    },
    { seed: 11 },
  ).eval()
}

/** What comes behind what, the likeliest first: letters, and names of tokens such as `<|unit5|>`. */
export type Script = Record<string, string | string[]>

/** Hears "hi!", replies "ok.", and says eight units. */
export const SCRIPT: Script = {
  '<|correspond|>': ['h', '<|unit5|>'],
  h: 'i',
  i: '!',
  '!': '\n',
  '\n': 'o',
  o: 'k',
  k: '.',
  '.': '<|correspond|>',
  ...Object.fromEntries(Array.from({ length: 7 }, (_, i) => [`<|unit${i + 5}|>`, `<|unit${i + 6}|>`])),
  '<|unit12|>': '\n',
}

/** A language model whose layers do nothing: the last token alone decides what comes next, by a script. */
export function scriptedLlm(tokenizer: UsdmTokenizer, script: Script = SCRIPT, config: object = {}): DecoderLM {
  const { vocabSize } = tokenizer
  const hiddenSize = Math.ceil(vocabSize / 8) * 8
  const model = tinyLlm(vocabSize, { hiddenSize, intermediateSize: 8, numHiddenLayers: 1, ...config })
  const id = (text: string): number =>
    tokenizer.tokenizer.tokenToId(text) ?? (tokenizer.encode(text, { addBos: false })[0] as number)
  const next = new Float32Array(vocabSize * hiddenSize)
  for (const [before, after] of Object.entries(script)) {
    const list = [after].flat()
    for (const [i, one] of list.entries()) next[id(one) * hiddenSize + id(before)] = list.length - i
  }
  const alone = new Float32Array(vocabSize * hiddenSize)
  for (let i = 0; i < vocabSize; i++) alone[i * hiddenSize + i] = 1
  const table = (values: Float32Array) => tensor(values).reshape([vocabSize, hiddenSize])
  const state = Object.entries(model.stateDict()).map(([name, value]) => {
    if (name === 'lm_head.weight') return [name, table(next)] as const
    if (name === 'model.embed_tokens.weight') return [name, table(alone)] as const
    return [name, /o_proj|down_proj/.test(name) ? zerosLike(value) : value] as const
  })
  model.loadStateDict(Object.fromEntries(state))
  return model
}

/** A band spectrum for each unit, drawn once, whatever stands around it; the prompt stays where it is. */
export class TinyVoicebox extends Module implements UsdmVoicebox {
  readonly config = { nTokens: UNITS, nFeats: 80 }
  readonly bands = new Linear(UNITS, 80)
  /** Frames of prompt, and all frames, of each call. */
  calls: {
    prompt: number
    frames: number
    steps: number | undefined
    solver: 'euler' | 'heun' | undefined
    guidance: number | undefined
    seed: unknown
    units: number[]
  }[] = []
  /** Before each piece, in milliseconds. */
  pause = 0
  /** Called at each evaluation. */
  onStep: (step: number) => void = () => {}

  async generate({
    units,
    prompt,
    steps,
    solver,
    guidance,
    seed,
    signal,
  }: Parameters<UsdmVoicebox['generate']>[0]): Promise<Tensor> {
    const known = prompt?.size(2) ?? 0
    const ids = (units.toArray() as bigint[][])[0]?.map(Number) ?? []
    this.calls.push({ prompt: known, frames: units.size(1), steps, solver, guidance, seed, units: ids })
    if (this.pause > 0) await new Promise((resolve) => setTimeout(resolve, this.pause))
    for (let step = 0; step < (steps ?? 4); step++) {
      this.onStep(step)
      signal?.throwIfAborted()
      await new Promise((resolve) => setImmediate(resolve))
    }
    return noGrad(() =>
      scope(() => {
        const made = ops
          .indexSelect(this.bands.weight, 1, tensor(ids, { dtype: 'int64' }))
          .unsqueeze(0)
          .mul(8)
        return prompt ? ops.cat([prompt, made.narrow(2, known, units.size(1) - known)], 2) : made
      }),
    )
  }

  normalize(mel: Tensor): Tensor {
    return scope(() => mel.add(5.5).div(2))
  }
  denormalize(mel: Tensor): Tensor {
    return scope(() => mel.mul(2).sub(5.5))
  }
}

/** A tone for each frame, as loud as its first band: whole or in pieces the same. */
export class TinyVocoder implements UsdmVocoder {
  readonly sampleRate = 22_050
  readonly samplesPerFrame = 256

  async forward({ mel }: { mel: Tensor }): Promise<{ waveform: Tensor }> {
    return { waveform: this.#of(mel.select(0, 0)).unsqueeze(0) }
  }

  async *stream(mel: AsyncIterable<Tensor>): AsyncGenerator<Tensor, void, undefined> {
    for await (const piece of mel) yield this.#of(piece)
  }

  #of(mel: Tensor): Tensor {
    return scope(() => {
      const tone = tensor(Float32Array.from({ length: 256 }, (_, i) => 0.3 * Math.sin((2 * Math.PI * 4 * i) / 256)))
      return mel.select(0, 0).tanh().add(1.5).unsqueeze(1).mul(tone).flatten()
    })
  }
}

/** Small ones of the published kinds, with random weights. */
export function tinySpeech() {
  const voicebox = UnitVoicebox.fromConfig(
    {
      ...{ nFeats: 80, nTokens: UNITS, embeddingDim: 16, hiddenSize: 32, intermediateSize: 64, numAttentionHeads: 4 },
      ...{ numHiddenLayers: 4, convposWidth: 5, convposGroups: 4, convposDepth: 2 },
    },
    { seed: 1 },
  ).eval()
  const bigvgan = BigVGAN.fromConfig(
    {
      ...{ numMels: 80, upsampleInitialChannel: 64, upsampleRates: [4, 4, 2, 2, 2, 2] },
      ...{ upsampleKernelSizes: [8, 8, 4, 4, 4, 4], resblockKernelSizes: [3], resblockDilationSizes: [[1, 3]] },
    },
    { seed: 2 },
  ).eval()
  return { voicebox, vocoder: bigvgan }
}

/** A tone that rises: units of many kinds. */
export function chirp(seconds: number, seed = 0, rate = 16_000): Float32Array {
  return Float32Array.from({ length: Math.floor(seconds * rate) }, (_, i) => {
    const t = i / rate
    return 0.4 * Math.sin(2 * Math.PI * (120 + 90 * seed + 300 * t) * t) + 0.2 * Math.sin(i * i * 1e-4 * (seed + 1))
  })
}
