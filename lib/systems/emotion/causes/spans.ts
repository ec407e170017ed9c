import { defined, requireOptions, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { type ChangesOf, settings, unchecked } from '../../../base/settings.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { wholeSpan } from '../../../kit/emotion/span.js'
import { evaluateBatches } from '../../../kit/evaluate.js'
import type { RecipeResults } from '../../../kit/recipe.js'
import { savePretrained } from '../../../models/own-module.js'
import {
  Dropout,
  Embedding,
  functional,
  LayerNorm,
  Linear,
  Module,
  TransformerEncoderLayer,
} from '../../../nn/index.js'
import { arange, manualSeed, ops, scope, stack, type Tensor, tensor } from '../../../tensor/index.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import { onDevice } from '../../../train/trainer/loss.js'
import { inBatches } from '../evaluation/evaluate.js'
import { requireSamples, trainHead } from '../training/head.js'
import { type HeadKind, loadHead } from '../training/head-files.js'
import { EMOTION_RECIPE } from '../training/recipe.js'

const SPANS: HeadKind = { modelType: 'emotion-spans', savedBy: 'trainSpans', loadedBy: 'loadSpans' }

/** Encoder of the whitespace-separated words of texts, such as `EmotionTextEncoder`. */
export interface WordReader {
  words(texts: readonly string[]): Promise<Float32Array[][]>
}

/** A cause whose span is to be predicted. */
interface SpanSample {
  /** Word vectors of the utterance that is the cause. */
  words: readonly Float32Array[]
  /** Mean word vector of the utterance with the emotion. */
  effect: Float32Array
  emotion: number
  /** Position of the cause relative to the effect in utterances, from -8 to 8. */
  distance: number
  /** True span [start, end); undefined if it is unknown. */
  span?: readonly [number, number]
  whole: readonly [number, number]
}

interface SpanBatch {
  words: Tensor
  mask: Tensor
  effect: Tensor
  emotions: Tensor
  distances: Tensor
  /** int64 [causes, 2]: index of the first and of the last word. */
  labels: Tensor
}

const FAR = 8

/** Tagger of the words of a cause: logits that the span begins or ends at each word. */
export class SpanTagger extends Module {
  norm: LayerNorm
  entry: Linear
  effect: Linear
  emotion: Embedding
  distance: Embedding
  layer: TransformerEncoderLayer
  dropout: Dropout
  out: Linear

  constructor(readonly config: { size: number; emotions: number; hiddenSize?: number; dropout?: number }) {
    super()
    requireOptions('SpanTagger', config, ['size', 'emotions', 'hiddenSize', 'dropout'])
    const { size, emotions, hiddenSize = 96, dropout = 0.2 } = config
    this.norm = new LayerNorm([size])
    this.entry = new Linear(size, hiddenSize)
    this.effect = new Linear(size, hiddenSize)
    this.emotion = new Embedding(emotions, hiddenSize)
    this.distance = new Embedding(2 * FAR + 1, hiddenSize)
    const sizes = { dimFeedforward: 2 * hiddenSize, dropout, activation: 'gelu' as const }
    this.layer = new TransformerEncoderLayer(hiddenSize, 4, { ...sizes, batchFirst: true, normFirst: true })
    this.dropout = new Dropout(dropout)
    this.out = new Linear(hiddenSize, 2)
  }

  /** Return logits [causes, 2, words] of begin and end; -Infinity at padding. */
  override forward({ words, mask, effect, emotions, distances }: Omit<SpanBatch, 'labels'>): Tensor {
    return scope(() => {
      const why = this.effect
        .forward(this.norm.forward(effect))
        .add(this.emotion.forward(emotions))
        .add(this.distance.forward(distances))
      const places = positions(words.size(1), this.entry.outFeatures, words)
      const states = this.entry
        .forward(this.dropout.forward(this.norm.forward(words)))
        .add(why.unsqueeze(1))
        .add(places)
      const encoded = this.layer.forward(states, { keyPaddingMask: mask.logicalNot() })
      const logits = this.out.forward(encoded).transpose(1, 2) // [causes, 2, words]
      return ops.maskedFill(logits, mask.logicalNot().unsqueeze(1), Number.NEGATIVE_INFINITY)
    })
  }
}

/** Return sinusoidal positions [1, words, size]. */
function positions(count: number, size: number, like: Tensor): Tensor {
  const rates = arange(size / 2, { device: like.device })
    .mul((-2 * Math.log(1e4)) / size)
    .exp()
  const angles = arange(count, { device: like.device }).unsqueeze(1).mul(rates.unsqueeze(0))
  return ops.cat([angles.sin(), angles.cos()], 1).unsqueeze(0).to({ dtype: like.dtype })
}

const RECIPE = settings({
  epochs: { type: 'number', default: 6 },
  batchSize: { type: 'integer', min: 1, default: 32 },
  learningRate: { type: 'number', default: 1e-3 },
  seed: { type: 'integer', default: 42 },
  patience: { type: 'integer', default: 3 },
})

const SETTINGS = settings({
  reader: { type: unchecked<WordReader>(), required: true },
  /** Dialogs with the spans of their causes, as in subtask 1 of ECF. */
  train: { type: unchecked<readonly EmotionDialog[]>(), required: true },
  valid: { type: unchecked<readonly EmotionDialog[]>(), required: true },
  labels: { type: unchecked<readonly string[]>(), required: true },
  outputDir: { type: 'string', required: true },
  recipe: { type: unchecked<ChangesOf<typeof RECIPE.table>>() },
  hiddenSize: { type: 'integer', min: 1 },
  args: { type: unchecked<Partial<TrainingArguments>>() },
})

/** Options of `trainSpans`. @interface */
export type TrainSpansOptions = ChangesOf<typeof SETTINGS.table>

export interface SpanResults extends RecipeResults<Record<string, number>> {
  /** Bonus on the score of the whole utterance when it is compared with the best other span; fitted on validation data. */
  bias: number
  /** Fraction of validation spans that are found exactly, and that whole utterances match exactly (`floor`). */
  exact: number
  floor: number
}

/**
 * Train a tagger of the spans of true causes, and fit on validation data how much better than the whole utterance a span must
 * score. The baseline is the whole utterance without punctuation at its ends.
 */
export async function trainSpans(
  given: TrainSpansOptions,
): Promise<{ results: SpanResults; tagger: SpanTagger; bias: number }> {
  const where = 'trainSpans'
  const options = SETTINGS.read(where, given)
  const { reader, labels, hiddenSize } = options
  const { learningRate, ...recipe } = RECIPE.read(`${where}: recipe`, options.recipe)
  const known = async (dialogs: readonly EmotionDialog[]) =>
    (await spanSamples(reader, dialogs, labels)).filter(
      ({ span, words }) => span && span[1] > span[0] && span[1] <= words.length,
    )
  const data = { train: await known(options.train), valid: await known(options.valid), test: [] }
  for (const part of ['train', 'valid'] as const)
    requireSamples(
      `${where}: ${part}`,
      data[part],
      'a cause with a span',
      options[part],
      "Use data of ECF's subtask 1.",
    )
  manualSeed(recipe.seed)
  const size = (data.train[0] as SpanSample).effect.length
  const tagger = new SpanTagger({ size, emotions: labels.length, ...defined({ hiddenSize }) })
  let found = { bias: 0, exact: 0, floor: 0 }
  const results = await trainHead<SpanTagger, SpanSample, SpanBatch, SpanResults>({
    ...{ model: tagger, options, data },
    recipe: { ...EMOTION_RECIPE, ...recipe, headLearningRate: learningRate, keyMetric: 'loss' },
    collate: spanCollate,
    computeLoss: (network, { labels: truth, ...inputs }) => {
      const logits = network.forward(inputs)
      const each = (which: number) => functional.crossEntropy(logits.select(1, which).float(), truth.select(1, which))
      return scope(() => ({ loss: each(0).add(each(1)) }))
    },
    countItems: ({ labels: truth }) => truth.size(0),
    async calibrate() {
      found = await bestBias(tagger, data.valid)
    },
    save: (folder) =>
      savePretrained(folder, tagger, { modelType: SPANS.modelType, ...tagger.config, bias: found.bias }),
    more: () => found,
  })
  return { results, tagger, bias: results.bias }
}

/** Load a tagger that `trainSpans` saved. @throws CheckpointError for a folder of another kind */
export async function loadSpans(folder: string): Promise<{ tagger: SpanTagger; bias: number }> {
  let bias = 0
  const tagger = await loadHead(SPANS, folder, (config: SpanTagger['config'] & { bias: number }) => {
    const { bias: saved, ...rest } = config
    bias = Number(saved)
    return new SpanTagger(rest)
  })
  return { tagger, bias }
}

/** Return dialogs with the predicted spans of their causes. */
export async function findSpans(
  { tagger, bias }: { tagger: SpanTagger; bias: number },
  reader: WordReader,
  dialogs: readonly EmotionDialog[],
  labels: readonly string[],
): Promise<EmotionDialog[]> {
  const samples = await spanSamples(reader, dialogs, labels)
  const spans = decoded(await scoresOf(tagger, samples), samples, bias)
  let at = 0
  return dialogs.map((dialog) => {
    if (dialog.causes === undefined) return dialog
    return { ...dialog, causes: dialog.causes.map((cause) => ({ ...cause, span: spans[at++] as [number, number] })) }
  })
}

/** Make samples of the causes of dialogs, in order. Each utterance is encoded once. */
async function spanSamples(
  reader: WordReader,
  dialogs: readonly EmotionDialog[],
  labels: readonly string[],
): Promise<SpanSample[]> {
  const samples: SpanSample[] = []
  for (const { utterances, causes = [], source } of dialogs) {
    if (causes.length === 0) continue
    const indices = [...new Set(causes.flatMap(({ effect, cause }) => [effect, cause]))]
    const read = await reader.words(indices.map((place) => utterances[place]?.text ?? ''))
    const words = new Map(indices.map((place, i) => [place, read[i] as Float32Array[]]))
    const size = read.flat()[0]?.length ?? 1
    for (const { effect, cause, emotion, span } of causes) {
      const emotionClass = labels.indexOf(emotion)
      if (emotionClass < 0)
        throw new DataError(
          `${source}: emotion of a cause: expected one of ${labels.join(', ')}, got ${shown(emotion)}. Correct it, or change the labels.`,
          { emotion },
        )
      samples.push({
        words: words.get(cause) as Float32Array[],
        effect: meanOf(words.get(effect) as Float32Array[], size),
        emotion: emotionClass,
        distance: Math.max(-FAR, Math.min(FAR, cause - effect)),
        ...(span && { span }),
        whole: wholeSpan(utterances[cause]?.text ?? ''),
      })
    }
  }
  return samples
}

function meanOf(rows: readonly Float32Array[], size: number): Float32Array {
  const mean = new Float32Array(size)
  for (const row of rows)
    for (let i = 0; i < size; i += 1) mean[i] = (mean[i] as number) + (row[i] as number) / rows.length
  return mean
}

function spanCollate(samples: readonly SpanSample[]): SpanBatch {
  return scope(() => {
    const most = Math.max(1, ...samples.map(({ words }) => words.length))
    const size = (samples[0] as SpanSample).effect.length
    const flat = new Float32Array(samples.length * most * size)
    const mask = new Uint8Array(samples.length * most)
    for (const [row, { words }] of samples.entries()) {
      for (const [i, word] of words.entries()) {
        flat.set(word, (row * most + i) * size)
        mask[row * most + i] = 1
      }
      // A text without words gets one empty place, because attention needs at least one.
      if (words.length === 0) mask[row * most] = 1
    }
    const whole = (values: readonly number[]) => tensor(BigInt64Array.from(values, BigInt), { device: 'cpu' })
    return {
      words: tensor(flat, { shape: [samples.length, most, size], device: 'cpu' }),
      mask: tensor(mask, { shape: [samples.length, most], dtype: 'uint8', device: 'cpu' }).to({ dtype: 'bool' }),
      effect: stack(samples.map(({ effect }) => tensor(effect, { device: 'cpu' }))),
      emotions: whole(samples.map(({ emotion }) => emotion)),
      distances: whole(samples.map(({ distance }) => distance + FAR)),
      labels: whole(samples.flatMap(({ span = [0, 1] }) => [span[0], span[1] - 1])).reshape([-1, 2]),
    }
  })
}

/** Compute the log-probabilities that each cause's span begins and ends at each word. */
async function scoresOf(tagger: SpanTagger, samples: readonly SpanSample[]): Promise<number[][][]> {
  const { device } = tagger.parameters()[0] as Tensor
  const rows = await evaluateBatches(tagger, inBatches(samples, 64), async (some) => {
    const { labels: _, ...inputs } = spanCollate(some)
    return tagger
      .forward(await onDevice(inputs, device))
      .logSoftmax(2)
      .toArray() as number[][][]
  })
  return rows.flat()
}

function decoded(scores: readonly number[][][], samples: readonly SpanSample[], bias: number): [number, number][] {
  return samples.map(({ words, whole }, i): [number, number] => {
    const [begins = [], ends = []] = scores[i] as number[][]
    // Words after the encoder's maximum length have no score.
    if (whole[1] > words.length || whole[1] <= whole[0]) return [whole[0], whole[1]]
    let best: [number, number] = [whole[0], whole[1]]
    let most = (begins[whole[0]] as number) + (ends[whole[1] - 1] as number) + bias
    for (let from = 0; from < words.length; from += 1) {
      for (let to = from; to < words.length; to += 1) {
        const score = (begins[from] as number) + (ends[to] as number)
        if (score > most) [best, most] = [[from, to + 1], score]
      }
    }
    return best
  })
}

async function bestBias(tagger: SpanTagger, samples: readonly SpanSample[]) {
  const scores = await scoresOf(tagger, samples)
  const exact = (bias: number) =>
    decoded(scores, samples, bias).filter(([from, to], i) => {
      const { span } = samples[i] as SpanSample
      return span?.[0] === from && span[1] === to
    }).length / samples.length
  const floor = exact(1e6)
  let best = { bias: 1e6, exact: floor }
  for (const bias of [0, 0.5, 1, 1.5, 2, 3, 4, 6]) {
    const found = exact(bias)
    if (found > best.exact) best = { bias, exact: found }
  }
  return { ...best, floor }
}
