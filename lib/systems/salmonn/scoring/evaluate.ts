import { misuse, requireOptions, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import type { GenerationConfig } from '../../../generation/config.js'
import { Module } from '../../../nn/index.js'
import { noGrad, scope, type Tensor } from '../../../tensor/index.js'
import type { SalmonnPrompt } from '../batch.js'
import { type SalmonnDataset, salmonnCollate } from '../data/dataset.js'
import { salmonnLoss } from '../training/loss.js'
import { type TrajectoryPair, type TrajectoryScores, trajectoryScores } from './trajectory.js'

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
  const answers: ScoredSalmonn['answers'] = []
  const modes = model.modules().map((module) => [module, module.training] as const)
  model.eval()
  try {
    for (let from = 0; from < dataset.length; from += batchSize) {
      const indices = Array.from({ length: Math.min(batchSize, dataset.length - from) }, (_, i) => from + i)
      const samples = await Promise.all(indices.map((index) => dataset.get(index)))
      const prompts = samples.map(({ prompt }) => prompt)
      const texts = await scope(() =>
        noGrad(async () => (await (generating as Generating).generate(prompts, settings)).texts),
      )
      if (!Array.isArray(texts) || texts.length !== samples.length) {
        throw new ConfigError(
          `${model.constructor.name}.generate() gave ${texts?.length} answers to ${samples.length} prompts`,
          { argument: 'model' },
        )
      }
      for (const [i, { entry, prompt, target }] of samples.entries()) {
        answers.push({
          id: entry.id,
          task: entry.task,
          prompt: prompt.text,
          prediction: texts[i] as string,
          reference: target,
          ...(entry.emotions && { emotions: entry.emotions }),
        })
      }
    }
  } finally {
    for (const [module, training] of modes) module.training = training
  }
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
  const modes = model.modules().map((module) => [module, module.training] as const)
  model.eval()
  let [loss, correct, total] = [0, 0, 0]
  try {
    for (let from = 0; from < indices.length; from += batchSize) {
      const samples = await Promise.all(indices.slice(from, from + batchSize).map((index) => dataset.get(index)))
      await scope(() =>
        noGrad(async () => {
          const output = await salmonnLoss(model, salmonnCollate(samples))
          const [right = 0, all = 0] = Array.from((output.logits as Tensor).flatten().dataSync() as Float64Array)
          loss += Number(output.loss.item()) * samples.length
          correct += right
          total += all
        }),
      )
    }
  } finally {
    for (const [module, training] of modes) module.training = training
  }
  return {
    ...scored,
    loss: indices.length === 0 ? null : loss / indices.length,
    accuracy: total === 0 ? null : correct / total,
  }
}
