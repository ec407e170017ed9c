import { misuse, requireOptions, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import type { GenerationConfig } from '../../../generation/config.js'
import { batchesOf, evaluate, evaluateBatches } from '../../../kit/evaluate.js'
import { Module } from '../../../nn/index.js'
import type { Tensor } from '../../../tensor/index.js'
import { type SalmonnPrompt, salmonnCollate } from '../data/collate.js'
import type { SalmonnDataset, SalmonnSample } from '../data/dataset.js'
import { salmonnLoss } from '../training/loss.js'
import { type TrajectoryPair, type TrajectoryScores, trajectoryScores } from './metrics.js'

/** How the published decode configuration generates. */
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

export interface ScoreSalmonnOptions {
  /** Over {@link SALMONN_GENERATION}. */
  generation?: GenerationConfig
  /** Default 8. */
  batchSize?: number
}

export interface ScoredSalmonn {
  scores: TrajectoryScores
  /** What was asked and answered, in the order of the data. */
  answers: (TrajectoryPair & { task: string; prompt: string })[]
}

/** The same, and how well the model would have said the right answers word by word. */
export interface MeasuredSalmonn extends ScoredSalmonn {
  /** The mean over entries that have an answer; null where none has. */
  loss: number | null
  /** Of the tokens of these answers, each after the right ones before it; null where none has. */
  accuracy: number | null
}

interface Generating {
  generate(prompts: SalmonnPrompt[], options: GenerationConfig): Promise<{ texts: string[] }>
}

/**
 * Has a model answer all of a dataset, in evaluation mode, and scores the answers.
 * @throws ConfigError for a model without `generate(prompts, options)`, or one that does not answer each
 */
export async function scoreSalmonn(
  model: Module,
  dataset: SalmonnDataset,
  options: ScoreSalmonnOptions = {},
): Promise<ScoredSalmonn> {
  const where = 'scoreSalmonn'
  if (!(model instanceof Module)) throw misuse(where, 'model', 'a Module', model)
  requireOptions(where, options, ['generation', 'batchSize'])
  const { generation = {}, batchSize = 8 } = options
  requireWhole(where, 'batchSize', batchSize, 1)
  const generating = model as Module & Partial<Generating>
  if (typeof generating.generate !== 'function') {
    throw new ConfigError(`${model.constructor.name} has no generate(), so its answers cannot be scored`, {
      argument: 'model',
    })
  }
  const settings = { ...SALMONN_GENERATION, ...generation }
  const asked: Omit<ScoredSalmonn['answers'][number], 'prediction'>[] = []
  const { predictions } = await evaluate(model, batchesOf(dataset, batchSize), {
    async predict(samples: readonly SalmonnSample[]) {
      for (const { entry, prompt, target } of samples) {
        const { id, task, emotions } = entry
        asked.push({ id, task, prompt: prompt.text, reference: target, ...(emotions && { emotions }) })
      }
      const prompts = samples.map(({ prompt }) => prompt)
      return (await (generating as Generating).generate(prompts, settings)).texts
    },
  })
  const answers = asked.map(({ id, task, prompt, ...rest }, i) => {
    return { id, task, prompt, prediction: predictions[i] as string, ...rest }
  })
  return { scores: trajectoryScores(answers), answers }
}

/**
 * What a training measures, for a model that is there: loss and token accuracy under teacher forcing, and scored answers.
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
