import { requireOptions, requireWhole } from '../../../base/check.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { evaluateBatches } from '../../../kit/evaluate.js'
import type { Tensor } from '../../../tensor/index.js'
import { batchOn, type EmotionSample, emotionCollate } from '../data/collate.js'
import type { EmotionClassifier } from '../network/network.js'
import { bestTemperature, type EmotionMetrics, emotionMetrics, reliability, softmaxOf } from './metrics.js'

/** The logits that a classifier returns for one dialog. */
export interface DialogAnswer {
  dialog: EmotionDialog
  /** Logits of each utterance, in the order of the labels: [utterances][labels]. */
  logits: number[][]
  /** The vectors from which the logits are computed, with `states: true`. */
  states?: Float32Array[]
}

export interface AnswerOptions {
  /** Dialogs per batch. Default 8. */
  batchSize?: number
  /** Whether to return the vectors from which the logits are computed. Default false. */
  states?: boolean
}

/** Run a classifier on dialogs, in evaluation mode and without gradients. */
export async function emotionAnswers(
  model: EmotionClassifier,
  samples: readonly EmotionSample[],
  options: AnswerOptions = {},
): Promise<DialogAnswer[]> {
  requireOptions('emotionAnswers', options, ['batchSize', 'states'])
  const { batchSize = 8, states = false } = options
  requireWhole('emotionAnswers', 'batchSize', batchSize, 1)
  const collate = emotionCollate(model.config.sizes, model.ownEncoders)
  const device = (model.head.parameters()[0] as Tensor).device
  const parts = await evaluateBatches(model, inBatches(samples, batchSize), async (some) => {
    const { labels: _, known: __, ...inputs } = batchOn(await collate(some), device)
    const output = await model.forward(inputs)
    const logits = output.logits.to({ dtype: 'float32', device: 'cpu' }).toArray() as number[][][]
    const rows = states ? (output.states.to({ dtype: 'float32', device: 'cpu' }).toArray() as number[][][]) : undefined
    return some.map(({ dialog }, i): DialogAnswer => {
      const count = dialog.utterances.length
      const own = rows?.[i]?.slice(0, count).map((row) => Float32Array.from(row))
      return { dialog, logits: (logits[i] as number[][]).slice(0, count), ...(own && { states: own }) }
    })
  })
  return parts.flat()
}

/** Yield samples in batches, in order. */
export function* inBatches<S>(all: readonly S[], size: number): Generator<readonly S[]> {
  for (let from = 0; from < all.length; from += size) yield all.slice(from, from + size)
}

/** Return logits and classes of the utterances whose emotion is known. */
export function knownAnswers(answers: readonly DialogAnswer[], labels: readonly string[]) {
  const logits: number[][] = []
  const truth: number[] = []
  for (const { dialog, logits: rows } of answers) {
    for (const [place, { emotion }] of dialog.utterances.entries()) {
      if (emotion === undefined) continue
      logits.push(rows[place] as number[])
      truth.push(labels.indexOf(emotion))
    }
  }
  return { logits, truth, predicted: logits.map((row) => row.indexOf(Math.max(...row))) }
}

/** Compute the metrics of answers, with the expected calibration error at a temperature. */
export function measureAnswers(
  answers: readonly DialogAnswer[],
  labels: readonly string[],
  temperature: number,
): EmotionMetrics & { calibrationError: number } {
  const { logits, truth, predicted } = knownAnswers(answers, labels)
  const probabilities = logits.map((row) => softmaxOf(row, temperature))
  return { ...emotionMetrics(truth, predicted), calibrationError: reliability(probabilities, truth).error }
}

/** Set the classifier's temperature to the one that fits the validation data best, and return it. */
export async function calibrate(model: EmotionClassifier, samples: readonly EmotionSample[]): Promise<number> {
  const { logits, truth } = knownAnswers(await emotionAnswers(model, samples), model.config.labels)
  model.config.temperature = bestTemperature(logits, truth)
  return model.config.temperature
}
