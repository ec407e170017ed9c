import type { AudioClip } from '../audio/clip.js'
import { logMelSpectrogram } from '../audio/features.js'
import { argumentError, requireBoolean, requireOneOf, requireOptions } from '../base/check.js'
import { Beats } from '../models/beats/beats.js'
import { Bert } from '../models/encoders/bert.js'
import { longestText } from '../models/encoders/embed-sentences.js'
import { Roberta } from '../models/encoders/roberta.js'
import { melBinsOf, windowOf } from '../models/whisper/config.js'
import { WhisperEncoder } from '../models/whisper/whisper.js'
import { noGrad, ops, scope, type Tensor } from '../tensor/index.js'
import { clipInputsOf, inputIdsOf, inputValuesOf } from './inputs.js'
import type { Loaded, NetworkOf } from './load.js'

export interface FeatureExtractionOptions {
  /** Pooling over tokens or frames: `'mean'`, `'cls'` for the first, `'none'` for all. Default `'none'`. */
  pooling?: 'none' | 'mean' | 'cls'
  /** With pooling: whether to normalize vectors to length 1. Default false. */
  normalize?: boolean
}

/** Input: text for BERT and RoBERTa, audio for the others. */
export type FeatureExtractionInput = AudioClip

/** Return features [inputs, positions, hiddenSize], padded with zeros; with pooling [inputs, hiddenSize]. */
export function extractFeatures(
  where: string,
  loaded: Loaded<NetworkOf<'feature-extraction'>>,
  inputs: readonly FeatureExtractionInput[],
  options: FeatureExtractionOptions,
): Promise<Tensor> {
  requireOptions(where, options, ['pooling', 'normalize'])
  const { pooling = 'none', normalize = false } = options
  requireOneOf(where, 'pooling', pooling, ['none', 'mean', 'cls'])
  requireBoolean(where, 'normalize', normalize)
  if (normalize && pooling === 'none')
    throw argumentError(where, 'normalize', "left out without pooling: 'mean' or 'cls'", normalize)
  if (inputs.length === 0) throw argumentError(where, 'input', 'at least one', inputs)
  return noGrad(() =>
    scope(async () => {
      const rows: Tensor[] = []
      for (const input of inputs) {
        const states = await statesOf(where, loaded, input)
        rows.push(pooling === 'none' ? states : pooling === 'mean' ? states.mean([0]) : states.select(0, 0))
      }
      if (pooling === 'none') return ops.padSequence(rows, true)
      const vectors = ops.stack(rows)
      return normalize ? vectors.div(ops.linalgVectorNorm(vectors, 2, [-1], true).clampMin(1e-12)) : vectors
    }),
  )
}

/** Compute the states [positions, hiddenSize] of one input, without padding. */
async function statesOf(
  where: string,
  { model, tokenizer, normalizesAudio }: Loaded<NetworkOf<'feature-extraction'>>,
  input: FeatureExtractionInput,
): Promise<Tensor> {
  const device = model.parameters()[0]?.device ?? 'cpu'
  if (model instanceof Roberta || model instanceof Bert) {
    if (typeof input !== 'string')
      throw argumentError(where, 'input', 'a text, since the network is a text encoder', input)
    const inputIds = await inputIdsOf(tokenizer!, longestText(model), input)
    return (await model.forward({ inputIds: inputIds.to({ device }) })).lastHiddenState.select(0, 0)
  }
  if (model instanceof WhisperEncoder) {
    const samples = await inputValuesOf(where, input)
    const window = windowOf(model.config) * 160
    // The network rejects audio longer than a window.
    const length = samples.size(1) <= window ? window : null
    const options = { nMels: melBinsOf(model.config), length }
    const inputFeatures = await logMelSpectrogram(samples.to({ device }), options)
    return (await model.forward({ inputFeatures })).lastHiddenState.select(0, 0)
  }
  const inputs =
    model instanceof Beats
      ? { inputValues: (await inputValuesOf(where, input)).to({ device }) }
      : await clipInputsOf(where, model, input, normalizesAudio)
  return (await model.forward(inputs as never)).lastHiddenState.select(0, 0)
}
