import { describe, expect, it } from 'vitest'
import {
  autograd,
  Generator,
  LanguageBind,
  type Module,
  manualSeed,
  noGrad,
  randn,
  scope,
  Tensor,
  tensor,
} from '../../../lib/index.js'
import {
  CauseScorer,
  EmotionClassifier,
  EmotionPairClassifier,
  FrameHead,
  LanguageBindEmotionEncoder,
  PairHead,
  PointerHead,
  SpanTagger,
} from '../../../lib/systems/emotion/index.js'
import { expectClose } from '../../helpers.js'
import { counted } from './counts.js'

// LanguageBind's encoders of pictures, depth and warmth, tubes, and all heads and scorers of the emotion system: what the CPU says and
// learns, and nobody waits for what is there.

const host = { device: 'cpu' } as const
const random = new Generator(12)
const draw = (shape: number[]) => randn(shape, { ...host, generator: random })
const whole = (values: number[] | number[][]) => tensor(values, { dtype: 'int64', ...host })
const bools = (rows: number[][]) => tensor(rows, { dtype: 'uint8', ...host }).to({ dtype: 'bool' })

/** Whatever tensors there are, on the device. */
function away<T>(given: T): T {
  if (given instanceof Tensor) return given.to('cuda') as T
  if (Array.isArray(given)) return given.map(away) as T
  if (typeof given !== 'object' || given === null) return given
  return Object.fromEntries(Object.entries(given).map(([name, value]) => [name, away(value)])) as T
}

const shape = { numHiddenLayers: 2, hiddenSize: 32, intermediateSize: 48, numAttentionHeads: 4, hiddenAct: 'gelu' }
const textConfig = { ...shape, vocabSize: 20, maxPositionEmbeddings: 8 }
const pictures = { textConfig, visionConfig: { ...shape, imageSize: 8, patchSize: 4 }, projectionDim: 16 }
const bind = (modality: string, vision: object = {}) =>
  LanguageBind.fromConfig({ [modality]: { ...pictures, visionConfig: { ...pictures.visionConfig, ...vision } } })

const masked = {
  mask: bools([
    [1, 1, 1],
    [1, 1, 0],
  ]),
  speakers: whole([
    [0, 1, 0],
    [0, 0, 0],
  ]),
}
const there = { ...masked, present: { text: masked.mask, video: masked.mask } }
const dialogs = { ...there, vectors: { text: draw([2, 3, 12]), video: draw([2, 3, 8]) } }

/** What it is given is of its own network: the table holds them together. */
type Run = (network: Module, given: never) => Promise<Tensor[]> | Tensor[]
const named =
  (...names: string[]): Run =>
  async (network, given) => {
    const output = (await (network as unknown as { forward(g: object): Promise<Record<string, Tensor>> }).forward(
      given,
    )) as Record<string, Tensor>
    return names.map((name) => output[name] as Tensor)
  }
/** Networks, what they are given, and what comes out. */
const NETWORKS: [string, () => Module, object, Run][] = [
  ["LanguageBind's image", () => bind('image'), { image: draw([2, 3, 8, 8]) }, named('image')],
  ["LanguageBind's depth", () => bind('depth'), { depth: draw([2, 3, 8, 8]) }, named('depth')],
  ["LanguageBind's thermal", () => bind('thermal'), { thermal: draw([2, 3, 8, 8]) }, named('thermal')],
  [
    'tubes and a class token of each frame',
    () => bind('video', { addTimeAttn: true, numFrames: 4, clipType: 'vl_new', tubeSize: 1 }),
    { video: draw([2, 3, 4, 8, 8]) },
    named('video'),
  ],
  [
    "fusion 'frames'",
    () => new EmotionClassifier({ sizes: { text: 12, video: 8 }, steps: { text: 3, video: 2 }, fusion: 'frames', labels: ['a', 'b'], dropout: 0 }),
    dialogs,
    named('logits'),
  ],
  [
    'FrameHead',
    () => new FrameHead({ videoSize: 8, textSize: 12, labels: 3 }),
    { video: draw([2, 4, 8]), text: draw([2, 3, 12]), mask: masked.mask },
    (network, { video, text, mask }: never) => [(network as FrameHead).forward(video, text, mask)],
  ],
  [
    'PairHead',
    () => new PairHead({ size: 10, labels: 3 }),
    { vectors: draw([4, 10]) },
    (network, { vectors }: never) => Object.values((network as PairHead).forward(vectors)),
  ],
  [
    'EmotionPairClassifier',
    () => new EmotionPairClassifier({ sizes: { text: 12, video: 8 }, labels: ['a', 'b'] }),
    { ...there, mask: bools([[1, 1], [1, 1]]), speakers: whole([[0, 1], [0, 0]]), present: { text: bools([[1, 1], [1, 0]]), video: bools([[1, 1], [1, 1]]) }, vectors: { text: draw([2, 2, 12]), video: draw([2, 2, 8]) } },
    named('emotion', 'cause'),
  ],
  [
    'PointerHead',
    () => new PointerHead({ size: 12, layers: 1, heads: 2, maxUtterances: 4, dropout: 0 }),
    { video: draw([3, 12]), text: draw([3, 12]) },
    (network, { video, text }: never) => [(network as PointerHead).forward(video, text, [[2, 0], [1, 1]])],
  ],
  [
    'CauseScorer',
    () => new CauseScorer({ size: 12, emotions: 3, hiddenSize: 16, dropout: 0 }),
    { ...masked, vectors: draw([2, 3, 12]), emotions: whole([[0, 1, -1], [2, 0, 0]]) },
    (network, given) => [(network as CauseScorer).forward(given)],
  ],
  [
    'SpanTagger',
    () => new SpanTagger({ size: 12, emotions: 3, hiddenSize: 16, dropout: 0 }),
    { words: draw([2, 3, 12]), mask: masked.mask, effect: draw([2, 12]), emotions: whole([0, 2]), distances: whole([8, 7]) },
    (network, given) => [(network as SpanTagger).forward(given)],
  ],
] // biome-ignore format: a table

/** The sum of what is finite, so that padding of -Infinity does not count. */
const sum = (outputs: readonly Tensor[]): Tensor =>
  outputs.map((one) => one.float().clamp(-100, 100).pow(3).sum()).reduce((a, b) => a.add(b))

describe.each(NETWORKS)('%s on the device', (_, make, given, run) => {
  manualSeed(3)
  const [on, off] = [make().eval().to({ device: 'cuda' }), make().eval().to({ device: 'cpu' })]
  off.loadStateDict(Object.fromEntries(Object.entries(on.stateDict()).map(([name, one]) => [name, one.to('cpu')])))

  it('says and learns what the CPU does', async () => {
    await scope(async () => {
      const [ours, wanted] = [await run(on, away(given) as never), await run(off, given as never)]
      for (const [i, one] of ours.entries())
        expectClose(one.detach().to('cpu').clamp(-100, 100), (wanted[i] as Tensor).detach().clamp(-100, 100), 1e-5)
      const learnt = async (outputs: Tensor[], network: Module) =>
        autograd.grad(sum(outputs), [...network.parameters()], { allowUnused: true })
      const [mine, theirs] = [await learnt(ours, on), await learnt(wanted, off)]
      const sizes = theirs.flatMap((one) => (one ? [Number(one.abs().max().item())] : []))
      const most = Math.max(...sizes)
      expect(most).toBeGreaterThan(0)
      for (const [i, one] of mine.entries()) {
        const other = theirs[i]
        expect(one === undefined || one === null).toBe(other === undefined || other === null)
        if (one && other) expect(Number(one.to('cpu').sub(other).abs().max().item()) / most, `${i}`).toBeLessThan(1e-5)
      }
    })
  })

  it('waits for nothing that is there', async () => {
    const onDevice = away(given)
    const pass = () => noGrad(() => scope(async () => void (await run(on, onDevice as never))))
    await pass()
    expect((await counted(pass)).waitsBy).toEqual({})
  })
})

describe('a encoder of LanguageBind on the device', () => {
  const config = { ...pictures, visionConfig: { ...pictures.visionConfig, addTimeAttn: true, numFrames: 4 } }
  const END = 19
  const tokenizer = { endTokenId: END }
  const made = (device: 'cpu' | 'cuda') => {
    manualSeed(5)
    const model = LanguageBind.fromConfig({ video: config }, host).eval().to({ device })
    model.tokenizer = tokenizer as never
    return model
  }
  const ids = whole([[18, 3, 5, END, END, END, END, END], [18, 4, 9, 2, 7, END, END, END]]) // biome-ignore format: one line
  const film = draw([2, 3, 4, 8, 8])

  it.each(['video', 'text'] as const)('gives the vectors and states of the CPU: %s', async (modality) => {
    const input = modality === 'text' ? ids : film
    for (const options of [{}, { useTemp: false }, { states: true }]) {
      await noGrad(async () => {
        const [ours, wanted] = [
          await new LanguageBindEmotionEncoder(made('cuda'), modality, options).encode([input]),
          await new LanguageBindEmotionEncoder(made('cpu'), modality, options).encode([input]),
        ]
        expect(ours.device).toBe('cuda:0')
        expectClose(ours.to('cpu'), wanted, 1e-5)
      })
    }
  })
})
