import type { AudioClip } from '../audio/clip.js'
import { argumentError, requireObject, requireOptions, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { Beats } from '../models/beats/beats.js'
import { Emotion2Vec } from '../models/emotion2vec/emotion2vec.js'
import { longestOfRoberta } from '../models/encoders/embed-sentences.js'
import { RobertaForSequenceClassification } from '../models/encoders/roberta-classification.js'
import type { LabelConfig } from '../models/labels.js'
import { SpectraClassifier } from '../systems/spectra/answer/classifier.js'
import type { SpectraTurn } from '../systems/spectra/answer/turns.js'
import { noGrad, scope, type Tensor } from '../tensor/index.js'
import { clipInputsOf, inputIdsOf } from './inputs.js'
import type { Loaded, NetworkOf } from './load.js'

export interface ClassificationOptions {
  /** Number of top classes to return; null for all. Default 5, for emotions all. */
  topK?: number | null
}

/** A class, and its probability from 0 to 1. */
export interface ClassificationOutput {
  label: string
  score: number
}

/**
 * Input of `emotion-recognition`: audio for an audio network, text for a text network, and for SPECTRA a turn with `text` and `audio`, and
 * optionally earlier turns.
 */
export type EmotionInput = AudioClip | SpectraTurn

export async function classify(
  where: string,
  { model, normalizesAudio }: Loaded<NetworkOf<'audio-classification'>>,
  audio: AudioClip,
  options: ClassificationOptions,
): Promise<ClassificationOutput[]> {
  const topK = most(where, options, 5)
  if (model instanceof Beats) {
    return scope(async () => {
      const tags = await model.tag(audio, { topK: Math.min(topK, 2 ** 31) })
      return tags.map(({ label, probability }) => ({ label, score: probability }))
    })
  }
  return best(await noGrad(() => scope(() => logitsOf(where, model, audio, normalizesAudio))), topK)
}

export async function recognizeEmotion(
  where: string,
  { model, tokenizer, normalizesAudio }: Loaded<NetworkOf<'emotion-recognition'>>,
  input: EmotionInput,
  options: ClassificationOptions,
): Promise<ClassificationOutput[]> {
  const topK = most(where, options, Number.POSITIVE_INFINITY)
  if (model instanceof SpectraClassifier) {
    requireObject(where, 'input', input)
    if (!('text' in (input as object))) throw argumentError(where, 'input', 'a turn: { text, audio }', input)
    const [answer] = await model.classify([input as SpectraTurn])
    if (answer?.kind !== 'classification') throw quantity(where)
    return best(
      answer.probabilities.map(({ label, probability }) => ({ label, score: probability })),
      topK,
    )
  }
  return best(
    await noGrad(() =>
      scope(async () => {
        if (!(model instanceof RobertaForSequenceClassification)) {
          return logitsOf(where, model, input as AudioClip, normalizesAudio)
        }
        if (typeof input !== 'string')
          throw argumentError(where, 'input', 'a text, since the network is a text encoder', input)
        const inputIds = await inputIdsOf(tokenizer!, longestOfRoberta(model.config), input)
        const { logits } = await model.forward({ inputIds: inputIds.to({ device: deviceOf(model) }) })
        return scored(model.config, logits)
      }),
    ),
    topK,
  )
}

/** Return an error about a fine-tuned SPECTRA that predicts a quantity, such as sentiment, not emotions. */
export const quantity = (where: string): ConfigError =>
  new ConfigError(
    `${where}: expected a SPECTRA that predicts classes, got one that predicts a quantity. Use SpectraClassifier.`,
  )

type AudioClassifier = Exclude<NetworkOf<'audio-classification'>, Beats>

async function logitsOf(where: string, model: AudioClassifier, audio: AudioClip, normalizes: boolean) {
  const { logits } = await model.forward(await clipInputsOf(where, model, audio, normalizes))
  if (logits === null) {
    throw new ConfigError(
      `${where}: expected an Emotion2Vec with a classifier, got one without. Load emotion2vec+, or train a classifier.`,
    )
  }
  const scores = await scored(model.config, logits)
  const used = scores.filter(({ label }) => !(model instanceof Emotion2Vec && label.startsWith('unuse')))
  if (used.length === scores.length) return scores
  // FunASR computes the softmax without these classes.
  const sum = used.reduce((total, { score }) => total + score, 0)
  return used.map(({ label, score }) => ({ label, score: score / sum }))
}

const deviceOf = (model: { parameters(): Tensor[] }) => model.parameters()[0]?.device ?? 'cpu'

/** Convert logits [1, classes] to scores by the problem type. */
async function scored(config: LabelConfig, logits: Tensor): Promise<ClassificationOutput[]> {
  const values = logits.select(0, 0).to({ device: 'cpu', dtype: 'float32' })
  const { problemType, id2label } = config
  const isQuantity = problemType === 'regression' || (problemType == null && values.size(0) === 1)
  const scores = isQuantity
    ? values
    : problemType === 'multi_label_classification'
      ? values.sigmoid()
      : values.softmax(-1)
  return Array.from((await scores.data()) as Float32Array, (score, i) => ({
    label: id2label?.[i] ?? `LABEL_${i}`,
    score,
  }))
}

function most(where: string, options: ClassificationOptions, usual: number): number {
  requireOptions(where, options, ['topK'])
  const { topK = usual } = options
  if (topK === null || topK === Number.POSITIVE_INFINITY) return Number.POSITIVE_INFINITY
  requireWhole(where, 'topK', topK, 1)
  return topK
}

const best = (classes: ClassificationOutput[], topK: number): ClassificationOutput[] =>
  classes.sort((a, b) => b.score - a.score).slice(0, topK)
