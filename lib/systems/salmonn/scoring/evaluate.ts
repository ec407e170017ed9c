import { misuse, requireObject, requireWhole } from '../../../data/check.js'
import type { GenerationConfig } from '../../../generation/config.js'
import { ConfigError } from '../../../native/errors.js'
import { Module } from '../../../nn/index.js'
import { noGrad, scope } from '../../../tensor/index.js'
import type { SalmonnPrompt } from '../batch.js'
import type { SalmonnDataset } from '../data/dataset.js'
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
  requireObject(where, 'options', options)
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
