import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { isMainProcess } from '../distributed/index.js'
import { readJson, writeJson } from '../files/json/json.js'
import type { TrainingArguments } from '../train/trainer/arguments.js'
import type { TrainerState } from '../train/trainer/state.js'

/** What every training comes to; `results.json` in its folder holds the same. */
export interface RecipeResults<M = object> {
  globalStep: number
  /** The step whose weights are saved. */
  bestStep: number | null
  /** Of these weights; null where there is no such data. */
  valid: M | null
  test: M | null
  samples: { train: number; valid: number; test: number }
}

export interface RecipeSteps<M, R extends RecipeResults<M>, D extends { readonly length: number }, T> {
  trainer: { train(): Promise<T> }
  outputDir: string
  data: { train: D; valid?: D; test?: D }
  /** Saves the best weights, which the network then has, under a path. Every process calls it. */
  save(path: string): Promise<void>
  /** The name of their folder, or file. Default 'best'. */
  best?: string
  /** Measures them. Every process calls it; the test data is looked at last, and once. */
  measure?(data: D): Promise<M>
  /** What else there is to say in the end. */
  more(trained: T): Omit<R, keyof RecipeResults<M>>
  /** What metrics of a file are in a program; JSON has null for NaN. Default: the same. */
  fromJson?(metrics: M): M
  /** Frees what the training held. Called in any case. */
  dispose?(): void
}

const RESULTS = 'results.json'

/**
 * Trains, saves the best weights, only then measures them on validation and test data, and writes `results.json`. The same
 * call on the same folder goes on where a killed run was, and after the end gives the results that it finds.
 */
export async function runRecipe<
  M,
  R extends RecipeResults<M>,
  D extends { readonly length: number },
  T extends { state: TrainerState } = { state: TrainerState },
>(steps: RecipeSteps<M, R, D, T>): Promise<R> {
  const { trainer, outputDir, data, save, best = 'best', measure, more, fromJson = (metrics) => metrics } = steps
  try {
    const trained = await trainer.train()
    const { globalStep, bestStep } = trained.state
    const [file, weights] = [join(outputDir, RESULTS), join(outputDir, best)]
    const before = existsSync(file) ? ((await readJson(file)) as R) : undefined
    if (before?.globalStep === globalStep && existsSync(weights)) {
      return { ...before, valid: before.valid && fromJson(before.valid), test: before.test && fromJson(before.test) }
    }
    await save(weights)
    const measured = async (part: D | undefined) => (measure && part && part.length > 0 ? await measure(part) : null)
    const [valid, test] = [await measured(data.valid), await measured(data.test)]
    const samples = { train: data.train.length, valid: data.valid?.length ?? 0, test: data.test?.length ?? 0 }
    const results = { globalStep, bestStep, valid, test, samples, ...more(trained) } as R
    if (isMainProcess()) await writeJson(file, JSON.parse(JSON.stringify(results)))
    return results
  } finally {
    steps.dispose?.()
  }
}

/** The metrics of `Trainer.evaluate` under their own names: `evalAccuracy` as `accuracy`. */
export const plainMetrics = (metrics: Readonly<Record<string, number>>): Record<string, number> =>
  Object.fromEntries(
    Object.entries(metrics).map(([name, value]) => [name.charAt(4).toLowerCase() + name.slice(5), value]),
  )

/** For a Trainer: it evaluates each epoch, keeps the latest checkpoint and the best, and ends with the best weights. */
export const bestEpochBy = (keyMetric: string) =>
  ({
    evalStrategy: 'epoch',
    saveStrategy: 'epoch',
    saveTotalLimit: 1,
    loadBestModelAtEnd: true,
    metricForBestModel: keyMetric,
    greaterIsBetter: !/^(loss|mae|mse|rmse)$/.test(keyMetric),
  }) as const satisfies Partial<TrainingArguments>

/** Metrics of validation and test as a table. */
export function metricsTable({ valid, test }: RecipeResults<Record<string, number>>, keyMetric: string): string {
  const names = Object.keys(valid ?? test ?? {})
  const width = Math.max(...names.map((name) => name.length))
  const cell = (value: number | undefined) => (typeof value !== 'number' ? '' : value.toFixed(4)).padStart(9)
  const rows = names.map(
    (name) =>
      `  ${name.padEnd(width)} ${cell(valid?.[name])} ${cell(test?.[name])}${name === keyMetric ? '  (best by this)' : ''}`,
  )
  return [`  ${''.padEnd(width)} ${'valid'.padStart(9)} ${'test'.padStart(9)}`, ...rows].join('\n')
}
