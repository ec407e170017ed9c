import { ConfigError } from '../../../base/errors.js'
import type { Module } from '../../../nn/index.js'
import { AdamW } from '../../../train/adam.js'
import type { HeadRecipe } from './recipe.js'

/** Create AdamW with one learning rate for the encoders and one for all other weights; biases, norms and scales do not decay. */
export function emotionOptimizer(
  model: Module,
  { headLearningRate, encoderLearningRate, weightDecay }: Omit<HeadRecipe, 'keyMetric'>,
): AdamW {
  const trained = model.namedParameters().filter(([, parameter]) => parameter.requiresGrad)
  const groups = [false, true].flatMap((isEncoder) =>
    [false, true].flatMap((decays) => {
      const params = trained
        .filter(([name, parameter]) => name.startsWith('encoders.') === isEncoder && parameter.ndim > 1 === decays)
        .map(([, parameter]) => parameter)
      const lr = isEncoder ? encoderLearningRate : headLearningRate
      return params.length === 0 ? [] : [{ params, lr, weightDecay: decays ? weightDecay : 0 }]
    }),
  )
  if (groups.length === 0)
    throw new ConfigError(
      'trainEmotion: expected at least one trainable parameter, got a frozen model. Set `requiresGrad` on the layers to train.',
      {},
    )
  return new AdamW(groups, { lr: headLearningRate })
}
