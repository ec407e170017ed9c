import { argumentError } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { type ChangesOf, objectOf, settings } from '../../../base/settings.js'
import type { GenerationConfig } from '../../../generation/config.js'
import { batchesOf, evaluate, evaluateBatches } from '../../../kit/evaluate.js'
import { Module } from '../../../nn/index.js'
import type { Tensor } from '../../../tensor/index.js'
import { type SalmonnPrompt, salmonnCollate } from '../data/collate.js'
import type { SalmonnDataset, SalmonnSample } from '../data/dataset.js'
import { salmonnLoss } from '../training/loss.js'
import { type TrajectoryPair, type TrajectoryScores, trajectoryScores } from './metrics.js'

/** Generation settings of the published decode configuration. */
export const SALMONN_GENERATION: Readonly<GenerationConfig> = {
  maxNewTokens: 200,
  numBeams: 4,
  doSample: false,
  minLength: 1,
  temperature: 1,
  topP: 0.9,
  repetitionPenalty: 1,
  lengthPenalty: 1,
}

const SCORE_SETTINGS = settings({
  /** Changes to {@link SALMONN_GENERATION}. */
  generation: { type: objectOf<GenerationConfig>(), default: {} },
  /** Questions per batch. */
  batchSize: { type: 'integer', min: 1, default: 8 },
})

/** @interface */
export type ScoreSalmonnOptions = ChangesOf<typeof SCORE_SETTINGS.table>

export interface ScoredSalmonn {
  scores: TrajectoryScores
  /** Prompts and answers, in the order of the data. */
  answers: (TrajectoryPair & { task: string; prompt: string })[]
}

/** Scored answers, with loss and accuracy of the reference answers under teacher forcing. */
export interface MeasuredSalmonn extends ScoredSalmonn {
  /** Mean loss over entries with an answer; null if there are none. */
  loss: number | null
  /** Token accuracy of these answers under teacher forcing; null if there are none. */
  accuracy: number | null
}

interface Generating {
  generate(prompts: SalmonnPrompt[], options: GenerationConfig): Promise<{ texts: string[] }>
}

/**
 * Generate and score the answers to a whole dataset, in evaluation mode.
 * @throws ConfigError for a model without `generate(prompts, options)`, or with a different number of answers
 */
export async function scoreSalmonn(
  model: Module,
  dataset: SalmonnDataset,
  options: ScoreSalmonnOptions = {},
): Promise<ScoredSalmonn> {
  const where = 'scoreSalmonn'
  if (!(model instanceof Module)) throw argumentError(where, 'model', 'a Module', model)
  const { generation, batchSize } = SCORE_SETTINGS.read(where, options)
  const generating = model as Module & Partial<Generating>
  if (typeof generating.generate !== 'function') {
    throw new ConfigError(
      `${where}.model: expected a model with generate(prompts, options), got ${model.constructor.name} without it.`,
      {
        argument: 'model',
      },
    )
  }
  const generationConfig = { ...SALMONN_GENERATION, ...generation }
  const questions: Omit<ScoredSalmonn['answers'][number], 'prediction'>[] = []
  const { predictions } = await evaluate(model, batchesOf(dataset, batchSize), {
    async predict(samples: readonly SalmonnSample[]) {
      for (const { entry, prompt, target } of samples) {
        const { id, task, emotions } = entry
        questions.push({ id, task, prompt: prompt.text, reference: target, ...(emotions && { emotions }) })
      }
      const prompts = samples.map(({ prompt }) => prompt)
      return (await (generating as Generating).generate(prompts, generationConfig)).texts
    },
  })
  const answers = questions.map(({ id, task, prompt, ...rest }, i) => {
    return { id, task, prompt, prediction: predictions[i] as string, ...rest }
  })
  return { scores: trajectoryScores(answers), answers }
}

/**
 * Evaluate a model as in training: loss and token accuracy under teacher forcing, and scored answers.
 * @throws as {@link scoreSalmonn}
 */
export async function measureSalmonn(
  model: Module,
  dataset: SalmonnDataset,
  options: ScoreSalmonnOptions = {},
): Promise<MeasuredSalmonn> {
  const scored = await scoreSalmonn(model, dataset, options)
  const { batchSize = 8 } = options
  const indices = dataset.entries.flatMap(({ target }, index) => (target === '' ? [] : [index]))
  let [loss, correct, total] = [0, 0, 0]
  await evaluateBatches(model, batchesOf(dataset, batchSize, indices), async (samples) => {
    const output = await salmonnLoss(model, salmonnCollate(samples))
    const [right = 0, all = 0] = Array.from((output.logits as Tensor).flatten().dataSync() as Float64Array)
    loss += Number(output.loss.item()) * samples.length
    correct += right
    total += all
  })
  return {
    ...scored,
    loss: indices.length === 0 ? null : loss / indices.length,
    accuracy: total === 0 ? null : correct / total,
  }
}
