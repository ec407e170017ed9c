import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { dataset } from '../../../examples/demo/speak.js'
import { Random } from '../../../lib/data/random.js'
import { LanguageBind, type Tensor, tensor } from '../../../lib/index.js'
import { EMOTIONS, type EmotionDialog, type EmotionUtterance } from '../../../lib/kit/emotion/dialog.js'
import type { EmotionSample } from '../../../lib/systems/emotion/data/collate.js'
import { emotionAnswers, knownAnswers } from '../../../lib/systems/emotion/evaluation/evaluate.js'
import type { EmotionModality } from '../../../lib/systems/emotion/network/config.js'
import type { EmotionEncoder } from '../../../lib/systems/emotion/network/encoders.js'
import { LanguageBindEmotionEncoder } from '../../../lib/systems/emotion/network/languagebind-encoders.js'
import { EmotionFbankEncoder } from '../../../lib/systems/emotion/network/voice-encoder.js'
import { type TrainedEmotion, trainEmotion } from '../../../lib/systems/emotion/training/train.js'
import { PATIENCE } from '../../patience.js'
import { face } from '../emoverse/faces.js'

// Dialogs that are made here: of each emotion's number the words say one bit, the voice another, and a drawn face, which moves, the
// third. The sentences are people's (of npm's sentiment, praise and blame), the voices espeak-ng's. So none of them alone can tell
// more than two of seven emotions apart at a time.

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emotion-made-'))
const bit = (emotion: number, which: number) => (emotion >> which) & 1

/** Short sentences of reviews, blame and praise, whose words say so. */
const PLAIN = [
  /\b(?:bad|worst|waste|terrible|poor|disappointed)\b/i,
  /\b(?:great|love|loved|excellent|best)\b/i,
] as const
const sentences = ['imdb', 'yelp', 'amazon'].flatMap((name) => {
  const file = createRequire(import.meta.url).resolve(`sentiment/test/fixtures/${name}.json`)
  return JSON.parse(readFileSync(file, 'utf8')) as { text: string; class: number }[]
})
const said = ([0, 1] as const).map((which) =>
  sentences.flatMap(({ text, class: kind }) =>
    kind === which && text.length < 45 && PLAIN[which].test(text) && !PLAIN[(1 - which) as 0 | 1].test(text)
      ? [text.trim()]
      : [],
  ),
) as [string[], string[]]
// A few dozen, which recur: each is spoken once by either voice.
for (const list of said) list.splice(36)

/** A low and even voice, or a high and lively one. */
const VOICES = [
  { voice: 'en+m3', pitch: 15, speed: 150, range: 20 },
  { voice: 'en+f2', pitch: 85, speed: 190, range: 80 },
] as const
// Emotions, and what is drawn besides: numbers in a row would tell of one what another is.
const chance = new Random(11)
const FACE = ['Anger.', 'Surprise.'] as const

function utterance(emotion: number, id: number, seed: number): EmotionUtterance {
  const frames = join(folder, `${seed}`)
  mkdirSync(frames)
  const [skin, first, pace] = [chance.below(2), chance.below(2), 1 + chance.below(3)]
  for (let frame = 0; frame < 4; frame += 1) {
    // From frame to frame it moves; its skin stays.
    const draw = (count: number) => (count === 4 ? skin : (frame * pace + first) % count)
    writeFileSync(join(frames, `${frame}.ppm`), face(FACE[bit(emotion, 2) as 0 | 1], draw))
  }
  const own = said[bit(emotion, 0) as 0 | 1]
  const which = chance.below(own.length)
  const spoken = `${bit(emotion, 1)}-${bit(emotion, 0)}-${which}.wav`
  const clip = { audio: join(folder, spoken), frames }
  return { id, text: own[which] as string, speaker: 'AB'[id % 2] as string, emotion: EMOTIONS[emotion] as string, clip } // biome-ignore format: one line
}

const dialogs: EmotionDialog[] = []
for (let d = 0; d < 168; d += 1) {
  const utterances: EmotionUtterance[] = []
  for (let u = 0; u < 4; u += 1) utterances.push(utterance(chance.below(7), u + 1, 4 * d + u))
  dialogs.push({ id: String(d), utterances, source: `dialog ${d}` })
}
const data = { train: dialogs.slice(0, 128),
  valid: dialogs.slice(128, 136),
  test: dialogs.slice(136), labels: EMOTIONS, notes: [] } // biome-ignore format: one line

async function speak(): Promise<void> {
  const wanted = dialogs.flatMap(({ utterances }) =>
    utterances.map(({ text, emotion, clip }) => ({
      ...VOICES[bit(EMOTIONS.indexOf(emotion as never), 1) as 0 | 1],
      ...{ file: clip?.audio as string, text },
    })),
  )
  const spoken = dataset([...new Map(wanted.map((one) => [one.file, one])).values()])
  for (let i = 0; i < spoken.length; i += 1) {
    const { file, wav } = await spoken.get(i)
    writeFileSync(file, wav)
  }
}

/** Which words a sentence has, of those that occur three times in what is learnt from. */
class WordEncoder implements EmotionEncoder<number[]> {
  readonly modality = 'text'
  readonly network = null
  readonly recipe = { encoder: 'words' }
  readonly #words: string[]

  constructor(texts: readonly string[]) {
    const counts = new Map<string, number>()
    for (const text of texts) for (const word of new Set(wordsOf(text))) counts.set(word, (counts.get(word) ?? 0) + 1)
    this.#words = [...counts].flatMap(([word, count]) => (count >= 3 ? [word] : []))
  }

  get size(): number {
    return this.#words.length
  }

  source = async (dialog: EmotionDialog, place: number) => dialog.utterances[place]?.text
  async read(dialog: EmotionDialog, place: number) {
    const own = new Set(wordsOf(dialog.utterances[place]?.text ?? ''))
    return this.#words.map((word) => Number(own.has(word)))
  }
  encode = async (inputs: readonly number[][]): Promise<Tensor> => tensor(inputs as number[][], { dtype: 'float32' })
}
const wordsOf = (text: string): string[] => text.toLowerCase().match(/[a-z']+/g) ?? []

/** Frames through a video encoder of LanguageBind's kind that nothing was learnt in: its states alone tell faces apart. */
function videoEncoder(): LanguageBindEmotionEncoder {
  const shape = { numHiddenLayers: 1, hiddenSize: 64, intermediateSize: 128, numAttentionHeads: 4, hiddenAct: 'gelu' }
  const visionConfig = { ...shape, imageSize: 28, patchSize: 7, addTimeAttn: true, numFrames: 4 }
  const textConfig = { ...shape, hiddenSize: 8, vocabSize: 8 }
  const bind = LanguageBind.fromConfig({ video: { textConfig, visionConfig, projectionDim: 64 } }, { seed: 3 })
  return new LanguageBindEmotionEncoder(bind.eval(), 'video', { states: true })
}

const encoders = [
  new WordEncoder(data.train.flatMap(({ utterances }) => utterances.map(({ text }) => text))),
  new EmotionFbankEncoder({ nMels: 24 }),
  videoEncoder(),
] as unknown as EmotionEncoder[]
beforeAll(speak, PATIENCE)

/** A training for each of some rates, of which validation data chooses one: what is tested is seen with that one alone. */
async function train(some: readonly EmotionEncoder[]): Promise<TrainedEmotion> {
  let best: TrainedEmotion | undefined
  for (const headLearningRate of some.length > 1 ? [3e-3, 1e-2] : [1e-2]) {
    const trained = await trainEmotion({
      ...{ data, encoders: some, outputDir: mkdtempSync(join(folder, 'run-')), cache: join(folder, 'cache') },
      config: { fusion: 'concat-ln', dropout: 0.1, modalityDropout: some.length > 1 ? 0.1 : 0 },
      recipe: { epochs: some.length > 1 ? 24 : 8, batchSize: 4, headLearningRate, patience: 40 },
      // Not each epoch: to save takes longer than to learn.
      args: {
        progress: false,
        reportTo: 'none',
        ...{ evalStrategy: 'steps', evalSteps: 64 },
        ...{ saveStrategy: 'steps', saveSteps: 64 },
      },
    })
    const accuracy = ({ results }: TrainedEmotion) => results.valid?.accuracy as number
    if (best === undefined || accuracy(trained) > accuracy(best)) best = trained
  }
  return best as TrainedEmotion
}

describe('three modalities', () => {
  it(
    'tell together what none tells alone, and one that is missing costs its share',
    async () => {
      const { model, results, samples } = await train(encoders)
      const answered = knownAnswers(await emotionAnswers(model, samples.test), EMOTIONS)
      const bits = [0, 1, 2].map(
        (b) =>
          answered.predicted.filter((label, i) => bit(label, b) === bit(answered.truth[i] as number, b)).length /
          answered.predicted.length,
      )
      const shown = (value: number | undefined) => value?.toFixed(3)
      const all = results.test?.accuracy as number
      console.log(`all three: ${shown(all)}; of words, voices and faces ${bits.map(shown)}`)
      expect(all).toBeGreaterThanOrEqual(0.9)
      for (const encoder of encoders) {
        const name = encoder.modality as EmotionModality
        const own = (await train([encoder])).results.test?.accuracy as number
        expect(own, `${name} alone`).toBeLessThanOrEqual(0.5)
        const rest = (await train(encoders.filter((one) => one !== encoder))).results.test?.accuracy as number
        // Two bits of three: what the third would tell apart is guessed, and each branch is worth its share.
        expect(rest, `trained without ${name}`).toBeLessThanOrEqual(all - 0.08)
        expect(rest, `trained without ${name}`).toBeGreaterThanOrEqual(own)
        const without = (sample: EmotionSample) => ({
          ...sample,
          vectors: { ...sample.vectors, [name]: sample.labels.map(() => undefined) },
        })
        const { truth, predicted } = knownAnswers(await emotionAnswers(model, samples.test.map(without)), EMOTIONS)
        const right = (agrees: (label: number, place: number) => boolean) =>
          predicted.filter(agrees).length / truth.length
        const lacking = right((label, i) => label === truth[i])
        // Which bits are lost is known; those that are left tell two emotions from the others.
        const which = { text: 0, audio: 1, video: 2 }[name]
        const kept = right((label, i) =>
          [0, 1, 2].every((b) => b === which || bit(label, b) === bit(truth[i] as number, b)),
        )
        console.log(
          `${name}: alone ${shown(own)}, trained without it ${shown(rest)}, missing in what is tested ${shown(lacking)} (the others' bits ${shown(kept)})`,
        )
        expect(lacking, `${name} missing`).toBeLessThanOrEqual(all - 0.08)
        expect(lacking, `${name} missing`).toBeGreaterThanOrEqual(0.3)
        expect(kept, `${name} missing, the others' bits`).toBeGreaterThanOrEqual(0.7)
      }
    },
    PATIENCE,
  )
})
