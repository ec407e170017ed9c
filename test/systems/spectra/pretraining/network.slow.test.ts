import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import * as vt from '../../../../lib/index.js'
import * as spectra from '../../../../lib/systems/spectra/index.js'
import { SpectraForPreTraining } from '../../../../lib/systems/spectra/index.js'
import { smallSpectra } from '../network.js'
import { dataPath, hasData, letters, sine, temporary, writeClip } from './helpers.js'

const folder = temporary()
const [VOCABULARY, MASK] = [40, 39]
vt.setNumThreads(1)

function network(vocabulary = VOCABULARY): SpectraForPreTraining {
  vt.manualSeed(4)
  return SpectraForPreTraining.fromConfig(smallSpectra(vocabulary))
}

type Rows = number[][]
/** Plain arithmetic, so that nothing that is tested computes what is expected. */
const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, value, i) => sum + value * b[i]!, 0)
const linear = (x: readonly number[], weight: Rows, bias: readonly number[]) =>
  weight.map((row, i) => dot(row, x) + bias[i]!)
function gelu(x: number): number {
  // Half the integral of exp(-t²), by Simpson's rule.
  const [z, steps] = [Math.abs(x) / Math.SQRT2, 400]
  const h = z / steps
  let sum = 1 + Math.exp(-z * z)
  for (let i = 1; i < steps; i++) sum += (i % 2 ? 4 : 2) * Math.exp(-((i * h) ** 2))
  return (x / 2) * (1 + (Math.sign(x) * 2 * h * sum) / (3 * Math.sqrt(Math.PI)))
}
function layerNorm(x: readonly number[], weight: readonly number[], bias: readonly number[]): number[] {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length
  const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length
  return x.map((value, i) => ((value - mean) / Math.sqrt(variance + 1e-5)) * weight[i]! + bias[i]!)
}
const crossEntropy = (logits: readonly number[], target: number) =>
  Math.log(logits.reduce((sum, value) => sum + Math.exp(value), 0)) - logits[target]!
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

/** The frames that the convolutions give for a clip: three layers, each a convolution, a norm over channels, and GELU. */
function convolved(clip: Float32Array, weights: Record<string, vt.Tensor>): Rows {
  const strides = [10, 8, 4]
  let channels: Rows = [[...clip]]
  for (const [l, stride] of strides.entries()) {
    const of = (name: string) => weights[`audio_encoder.feature_extractor.conv_layers.${l}.${name}`]!.toArray()
    const [kernel, bias] = [of('conv.weight') as number[][][], of('conv.bias') as number[]]
    const [scale, shift] = [of('layer_norm.weight') as number[], of('layer_norm.bias') as number[]]
    const width = kernel[0]![0]!.length
    const frames = Math.floor((channels[0]!.length - width) / stride) + 1
    const rows = Array.from({ length: frames }, (_, f) => {
      const sums = kernel.map((taps, c) =>
        taps.reduce((sum, tap, i) => sum + dot(tap, channels[i]!.slice(f * stride, f * stride + width)), bias[c]!),
      )
      return layerNorm(sums, scale, shift).map(gelu)
    })
    if (l === strides.length - 1) return rows
    channels = rows[0]!.map((_, c) => rows.map((row) => row[c]!))
  }
  return []
}

describe('the four losses of a dialog made by hand', () => {
  it('equal what plain arithmetic makes of the logits', async () => {
    using model = network()
    model.eval()
    const clips = [sine(0.3, 200), sine(0.4, 300), sine(0.25, 500)] as const
    const [previousFrames, currentFrames] = model.frameCounts(clips.map(({ length }) => length)) as [number, number]
    // Frames that are kept but predicted leave the sound as it is, so that `predict` sees the same states.
    const kept = (clip: Float32Array, frames: number[]): spectra.SpectraMaskedClip => {
      const count = model.frameCounts([clip.length])[0]!
      const mask = Int8Array.from({ length: count }, (_, f) => (frames.includes(f) ? 3 : 0))
      return { samples: clip, mask, source: Int32Array.from({ length: count }, (_, f) => f) }
    }
    const said = (inputIds: number[], predicted: Record<number, number> = {}): spectra.SpectraMaskedText => {
      return { inputIds, labels: inputIds.map((_, i) => predicted[i] ?? -100) }
    }
    const sample: spectra.SpectraPretrainingSample = {
      history: said([0, 11, 2]),
      previous: said([0, 12, MASK, 2], { 2: 13 }),
      current: said([0, 14, 15, 16, 2], { 2: 20 }),
      negative: said([0, 30, 2]),
      // From 0 to 0.1 s, of two tokens; from 0.05 to 0.15 s and to 0.4 s.
      previousWords: [['a', 1, 3, 0, 1600]],
      currentWords: [
        ['b', 1, 2, 800, 2400],
        ['c', 2, 4, 2400, 6400],
      ],
      clips: [kept(clips[0], [1, 2]), kept(clips[1], [0, currentFrames - 1]), kept(clips[2], [])],
    }
    await vt.noGrad(() =>
      vt.scope(async () => {
        const frames = (samples: number) => model.frameCounts([samples])[0]!
        const found = await model.forward(spectra.spectraPretrainingCollate({ frames })([sample]))

        const positive = [0, 11, 2, 12, MASK, 2, 14, 15, 16, 2]
        const negative = [0, 11, 2, 12, MASK, 2, 30, 2]
        const heard = async (ids: number[], second: Float32Array) => {
          const sound = vt.zeros([2, Math.max(clips[0].length, second.length)])
          sound.select(0, 0).narrow(0, 0, clips[0].length).copy_(vt.tensor(clips[0]))
          sound.select(0, 1).narrow(0, 0, second.length).copy_(vt.tensor(second))
          return model.predict({
            inputIds: vt.tensor([ids], { dtype: 'int64' }),
            attentionMask: vt.ones([1, ids.length], { dtype: 'bool' }),
            tokenTypeIds: vt.tensor([ids.map((_, i) => Number(i > 5))], { dtype: 'int64' }),
            inputValues: sound,
            audioLengths: vt.tensor([clips[0].length, second.length], { dtype: 'int64' }),
            audiosPerText: 2,
          })
        }
        const pairs = [
          await heard(positive, clips[1]),
          await heard(positive, clips[2]),
          await heard(negative, clips[1]),
          await heard(negative, clips[2]),
        ]
        const both = pairs[0]!
        const weights = model.stateDict()
        const numbers = (name: string) => weights[name]!.toArray() as never
        const states = (both.lastHiddenState.toArray() as number[][][])[0]!
        const head = (name: string, state: number[]) => {
          const hidden = linear(state, numbers(`${name}.dense.weight`), numbers(`${name}.dense.bias`)).map(gelu)
          const normal = layerNorm(hidden, numbers(`${name}.layer_norm.weight`), numbers(`${name}.layer_norm.bias`))
          return linear(normal, numbers(`${name}.decoder.weight`), numbers(`${name}.decoder.bias`))
        }

        const crs = mean(pairs.map(({ crsLogits }, i) => crossEntropy((crsLogits.toArray() as Rows)[0]!, i)))
        const mlm = mean([
          crossEntropy(head('mlm_head', states[4]!), 13),
          crossEntropy(head('mlm_head', states[7]!), 20),
        ])
        // In the row: words, the vector before the clips, the previous clip, the one between them, the current clip.
        const before = positive.length + 1
        const after = before + previousFrames + 1
        const truth = [convolved(clips[0], weights), convolved(clips[1], weights)] as const
        const frame = (position: number, target: number[]) =>
          mean(head('mam_head', states[position]!).map((value, i) => Math.abs(value - target[i]!)))
        const mam = mean([
          ...[1, 2].map((f) => frame(before + f, truth[0][f]!)),
          ...[0, currentFrames - 1].map((f) => frame(after + f, truth[1][f]!)),
        ])
        const starts = (both.starts.toArray() as Rows)[0]!
        const ends = (both.ends.toArray() as Rows)[0]!
        const tpp = mean([
          ...[[3, 0] as const, [6, 0.005] as const, [7, 0.015] as const].map(([at, time]) => (starts[at]! - time) ** 2),
          ...[[4, 0.01] as const, [6, 0.015] as const, [8, 0.04] as const].map(([at, time]) => (ends[at]! - time) ** 2),
        ])
        const close = (value: vt.Tensor, expected: number, name: string) =>
          expect(Math.abs((value.item() as number) - expected) / expected, name).toBeLessThan(2e-5)
        close(found.crsLoss, crs, 'CRS')
        close(found.mlmLoss, mlm, 'MLM')
        close(found.mamLoss, mam, 'MAM')
        close(found.tppLoss, tpp, 'TPP')
        close(found.loss, crs + mlm + mam + tpp, 'sum')
      }),
    )
  })
})

const NAMES = ['mlmLoss', 'mamLoss', 'crsLoss', 'tppLoss'] as const

/** Pre-trains; the mean of each loss over the first and over the last steps. */
async function fallen(model: SpectraForPreTraining, data: string, vocabulary: number, maskId: number, steps: number) {
  const losses: spectra.SpectraLosses[] = []
  await spectra.pretrainSpectra({
    ...{ model, data, mlm: { vocabSize: vocabulary, maskId }, mam: { minSpan: 3, maxSpan: 8 } },
    args: {
      ...{ outputDir: join(folder, `run-${vocabulary}`), perDeviceTrainBatchSize: 6, gradientAccumulationSteps: 1 },
      ...{
        maxSteps: steps,
        learningRate: 3e-3,
        loggingSteps: 1,
        saveStrategy: 'no',
        reportTo: 'none',
        progress: false,
      },
    },
    onLosses: (loss) => losses.push(loss),
  })
  const part = (rows: spectra.SpectraLosses[]) =>
    Object.fromEntries(NAMES.map((name) => [name, mean(rows.map((row) => row[name]!))]))
  return { first: part(losses.slice(0, 5)), last: part(losses.slice(-10)) }
}
const sum = (losses: Record<string, number>) => NAMES.reduce((total, name) => total + losses[name]!, 0)

describe('pre-training the real network', () => {
  it('makes all losses fall on dialogs that are made up, and its word times come near', async () => {
    const random = new vt.Random(2)
    const spelled = ['abc', 'de', 'fgh', 'ij']
    const turns: spectra.SpectraDialogTurn[] = []
    for (let dialog = 0; dialog < 4; dialog++) {
      for (let turn = 0; turn < 5; turn++) {
        const wav = `${dialog}-${turn}.wav`
        // Each word is a pitch, and each dialog has its own, so that text, speech and context belong together.
        const chosen = Array.from({ length: 4 }, () => (random.below(8) ? dialog : random.below(4)))
        const sound = chosen.map((word) => sine(0.2, 200 + 300 * word))
        await writeClip(join(folder, wav), Float32Array.from(sound.flatMap((part) => [...part])))
        const words = chosen.map((word, i) => ({ word: spelled[word]!, start: i / 5, end: (i + 1) / 5 }))
        turns.push({ dialog: String(dialog), turn, wav, words })
      }
    }
    const data = join(folder, 'made-up')
    await spectra.prepareSpectraPretraining(turns, { output: data, tokenizer: letters, audioRoot: folder })
    using model = network()
    const { first, last } = await fallen(model, data, VOCABULARY, MASK, 120)
    expect(last.mlmLoss).toBeLessThan(0.7 * first.mlmLoss!)
    expect(last.mamLoss).toBeLessThan(0.8 * first.mamLoss!)
    expect(last.tppLoss).toBeLessThan(0.1 * first.tppLoss!)
    expect(last.crsLoss).toBeLessThan(0.9 * first.crsLoss!)

    // alignWords with the network itself: words in order, and no longer anywhere.
    const [clip, text] = [sine(0.8, 200), 'abc abc abc abc']
    const found = await spectra.alignWords(model, { audio: clip, text, tokenizer: letters })
    expect(found.words.map(({ word }) => word)).toEqual(text.split(' '))
    found.words.forEach(({ start, end }, i) => {
      expect(Math.abs(start - i / 5)).toBeLessThan(0.4)
      expect(end).toBeGreaterThanOrEqual(start)
    })
    expect(await spectra.alignWords(model, { audio: clip, text, tokenizer: letters })).toEqual(found)
    expect(model.training).toBe(true)
  })

  // Word times are uniform: nobody measured them.
  it.skipIf(!hasData('emodb') || !hasData('tokenizers/roberta-base'))(
    'makes the loss fall on ../shared/data/emodb, whose clips are taken for turns',
    async () => {
      const tokenizer = await vt.Tokenizer.fromPretrained(dataPath('tokenizers/roberta-base'))
      const data = join(folder, 'emodb')
      const some = (async function* () {
        let count = 0
        for await (const turn of spectra.clipTurns(dataPath('emodb'))) if (count++ < 40) yield turn
      })()
      const options = { output: data, tokenizer, audioRoot: dataPath('emodb'), wordTimes: spectra.UNIFORM_WORD_TIMES }
      const { examples } = await spectra.prepareSpectraPretraining(some, options)
      expect(examples).toBeGreaterThan(30)
      using model = network(tokenizer.vocabSize)
      const { first, last } = await fallen(model, data, tokenizer.vocabSize, 50264, 40)
      expect(sum(last)).toBeLessThan(0.75 * sum(first))
      for (const name of ['mlmLoss', 'mamLoss', 'tppLoss']) expect(last[name], name).toBeLessThan(first[name]!)
    },
  )
})
