import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { arange, scope, type Tensor, tensor, writeWav } from '../../../lib/index.js'
import { EMOTIONS, type EmotionDialog, type EmotionUtterance } from '../../../lib/kit/emotion/dialog.js'
import type { EmotionSample } from '../../../lib/systems/languagebind-emotion/data/collate.js'
import { emotionAnswers, knownAnswers } from '../../../lib/systems/languagebind-emotion/evaluation/evaluate.js'
import type { EmotionModality } from '../../../lib/systems/languagebind-emotion/network/config.js'
import { clipSource, type EmotionTower } from '../../../lib/systems/languagebind-emotion/network/towers.js'
import { FbankTower } from '../../../lib/systems/languagebind-emotion/network/voice-tower.js'
import { type TrainedEmotion, trainEmotion } from '../../../lib/systems/languagebind-emotion/training/train.js'
import { PATIENCE } from '../../patience.js'

// Dialogs that are made here: of each emotion's number the words say one bit, the pitch of a tone another, and the colour of a
// drawn face, which moves, the third. So none of them alone can tell more than two of seven emotions apart at a time.

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emotion-made-'))
const bit = (emotion: number, which: number) => (emotion >> which) & 1
const WORDS = [
  ['the tea is on the table', 'we walked along the river', 'there is a letter for you'],
  ['who left the door open again', 'that was not what i asked', 'look at what they have done'],
] as const

async function utterance(emotion: number, id: number, seed: number): Promise<EmotionUtterance> {
  const audio = join(folder, `${seed}.wav`)
  const pitch = (bit(emotion, 1) ? 700 : 180) + 7 * (seed % 11)
  await scope(async () => {
    const wave = arange(3200)
      .mul((2 * Math.PI * pitch) / 16000)
      .sin()
      .mul(0.2 + 0.02 * (seed % 7))
    await writeWav(audio, wave, { sampleRate: 16000 })
  })
  const frames = join(folder, `${seed}`)
  mkdirSync(frames)
  for (let frame = 0; frame < 4; frame += 1)
    writeFileSync(join(frames, `${frame}.ppm`), face(bit(emotion, 2), frame, seed))
  const text = WORDS[bit(emotion, 0) as 0 | 1][seed % 3] as string
  return { id, text, speaker: 'AB'[id % 2] as string, emotion: EMOTIONS[emotion] as string, clip: { audio, frames } }
}

/** A disc on a ground, which wanders from frame to frame: 12 × 12 pixels. */
function face(warm: number, frame: number, seed: number): Buffer {
  const pixels = Buffer.alloc(3 * 144, 90)
  const [x, y] = [4 + ((frame + seed) % 4), 4 + ((2 * frame + seed) % 3)]
  for (let i = 0; i < 144; i += 1) {
    if (((i % 12) - x) ** 2 + (Math.floor(i / 12) - y) ** 2 > 9) continue
    pixels.set(warm ? [220, 120 + (seed % 30), 90] : [90, 120 + (seed % 30), 220], 3 * i)
  }
  return Buffer.concat([Buffer.from('P6\n12 12\n255\n'), pixels])
}

class LetterTower implements EmotionTower<number[]> {
  readonly modality = 'text'
  readonly size = 26
  readonly network = null
  readonly recipe = { tower: 'letters' }
  source = async (dialog: EmotionDialog, place: number) => dialog.utterances[place]?.text
  async read(dialog: EmotionDialog, place: number) {
    const counts = new Array<number>(26).fill(0)
    for (const letter of dialog.utterances[place]?.text ?? '') {
      const at = letter.charCodeAt(0) - 97
      if (at >= 0 && at < 26) counts[at] = (counts[at] as number) + 1
    }
    return counts
  }
  encode = async (inputs: readonly number[][]): Promise<Tensor> => tensor(inputs as number[][], { dtype: 'float32' })
}

/** Mean colours of the frames, and of how they change. */
class ColourTower implements EmotionTower<number[]> {
  readonly modality = 'video'
  readonly size = 6
  readonly network = null
  readonly recipe = { tower: 'colours' }
  source = async (dialog: EmotionDialog, place: number) => clipSource(dialog.utterances[place]?.clip?.frames as string)
  async read(dialog: EmotionDialog, place: number) {
    const frames = dialog.utterances[place]?.clip?.frames as string
    const means = readdirSync(frames)
      .sort()
      .map((name) => {
        const pixels = readFileSync(join(frames, name)).subarray(-3 * 144)
        return [0, 1, 2].map(
          (c) => Array.from({ length: 144 }, (_, i) => pixels[3 * i + c] as number).reduce((a, b) => a + b, 0) / 144,
        )
      })
    const over = (all: number[][], c: number) => all.reduce((sum, row) => sum + (row[c] as number), 0) / all.length
    const change = means.slice(1).map((row, i) => row.map((value, c) => Math.abs(value - (means[i]?.[c] as number))))
    return [...[0, 1, 2].map((c) => over(means, c)), ...[0, 1, 2].map((c) => over(change, c))]
  }
  encode = async (inputs: readonly number[][]): Promise<Tensor> => tensor(inputs as number[][], { dtype: 'float32' })
}

const dialogs: EmotionDialog[] = []
for (let d = 0; d < 36; d += 1) {
  const utterances: EmotionUtterance[] = []
  for (let u = 0; u < 4; u += 1) utterances.push(await utterance((d * 4 + u * 5 + d * d) % 7, u + 1, 4 * d + u))
  dialogs.push({ id: String(d), utterances, source: `dialog ${d}` })
}
const data = {
  train: dialogs.slice(0, 24),
  valid: dialogs.slice(24, 30),
  test: dialogs.slice(30),
  labels: EMOTIONS,
  notes: [],
}
const towers = [new LetterTower(), new FbankTower({ nMels: 24 }), new ColourTower()] as unknown as EmotionTower[]

/** A training for each of some rates, of which validation data chooses one: what is tested is seen with that one alone. */
async function train(some: readonly EmotionTower[]): Promise<TrainedEmotion> {
  let best: TrainedEmotion | undefined
  for (const headLearningRate of [3e-3, 1e-2]) {
    const trained = await trainEmotion({
      ...{ data, towers: some, outputDir: mkdtempSync(join(folder, 'run-')), cache: join(folder, 'cache') },
      config: { fusion: 'concat-ln', dropout: 0.1, modalityDropout: some.length > 1 ? 0.1 : 0 },
      recipe: { epochs: some.length > 1 ? 40 : 15, batchSize: 4, headLearningRate, patience: 40 },
      args: { progress: false, reportTo: 'none' },
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
      const { model, results, samples } = await train(towers)
      expect(results.test?.accuracy).toBeGreaterThanOrEqual(0.9)
      for (const tower of towers) {
        const alone = await train([tower])
        expect(alone.results.test?.accuracy, tower.modality).toBeLessThanOrEqual(0.5)
        const without = (sample: EmotionSample) => ({
          ...sample,
          vectors: { ...sample.vectors, [tower.modality as EmotionModality]: sample.labels.map(() => undefined) },
        })
        const { truth, said } = knownAnswers(await emotionAnswers(model, samples.test.map(without)), EMOTIONS)
        // Which bits are lost is known; those that are left tell two emotions from the others.
        const which = { text: 0, audio: 1, video: 2 }[tower.modality]
        const same = said.filter((label, i) =>
          [0, 1, 2].every((b) => b === which || bit(label, b) === bit(truth[i] as number, b)),
        )
        expect(same.length / truth.length, `without ${tower.modality}`).toBeGreaterThanOrEqual(0.7)
      }
    },
    PATIENCE,
  )
})
