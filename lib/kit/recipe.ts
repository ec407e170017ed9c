import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { allGatherObject, getWorldSize, isMainProcess } from '../distributed/index.js'
import { readJson, writeJson } from '../files/json/json.js'
import type { TrainingArguments } from '../train/trainer/arguments.js'
import type { TrainerState } from '../train/trainer/state.js'

/** Results of a training, as in `results.json` in its folder. */
export interface RecipeResults<M = object> {
  globalStep: number
  /** Training step of the saved weights. */
  bestStep: number | null
  /** Metrics of the saved weights; null without such data. */
  valid: M | null
  test: M | null
  samples: { train: number; valid: number; test: number }
}

export interface RecipeSteps<M, R extends RecipeResults<M>, D extends { readonly length: number }, T> {
  trainer: { train(): Promise<T> }
  outputDir: string
  data: { train: D; valid?: D; test?: D }
  /** Save the best weights, which the network has now, to a path. Called on every process. */
  save(path: string): Promise<void>
  /** Name of the folder or file of the best weights. Default 'best'. */
  best?: string
  /** Compute the metrics. Called on every process, at the end and once for the test data. */
  measure?(data: D): Promise<M>
  /** Return the further fields of the results. */
  more(trained: T): Omit<R, keyof RecipeResults<M>> | Promise<Omit<R, keyof RecipeResults<M>>>
  /** Convert metrics read from JSON, where NaN is null. Default: no change. */
  fromJson?(metrics: M): M
  /** Free the resources of the training. Called in any case. */
  dispose?(): void
}

const RESULTS = 'results.json'

/**
 * Train, save the best weights, compute their metrics on validation and test data, and write `results.json`. The same call on the
 * same folder resumes an interrupted run; after the end it returns the saved results.
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
    const own = before?.globalStep === globalStep && existsSync(weights)
    // All processes decide alike: rank 0 may have written the weights in the meantime.
    const [isDone] = getWorldSize() > 1 ? await allGatherObject(own) : [own]
    if (isDone && before) {
      return { ...before, valid: before.valid && fromJson(before.valid), test: before.test && fromJson(before.test) }
    }
    await save(weights)
    const measured = async (part: D | undefined) => (measure && part && part.length > 0 ? await measure(part) : null)
    const [valid, test] = [await measured(data.valid), await measured(data.test)]
    const samples = { train: data.train.length, valid: data.valid?.length ?? 0, test: data.test?.length ?? 0 }
    const results = { globalStep, bestStep, valid, test, samples, ...(await more(trained)) } as R
    if (isMainProcess()) await writeJson(file, JSON.parse(JSON.stringify(results)))
    return results
  } finally {
    steps.dispose?.()
  }
}

/** Rename the metrics of `Trainer.evaluate`: `evalAccuracy` to `accuracy`. */
export const plainMetrics = (metrics: Readonly<Record<string, number>>): Record<string, number> =>
  Object.fromEntries(
    Object.entries(metrics).map(([name, value]) => [name.charAt(4).toLowerCase() + name.slice(5), value]),
  )

/** Return a finite number, or null, since JSON has no NaN. */
export const finiteOrNull = (value: number | undefined): number | null =>
  value !== undefined && Number.isFinite(value) ? value : null

/** Return TrainingArguments that evaluate and save each epoch, and load the best weights at the end. */
export const bestEpochBy = (keyMetric: string) =>
  ({
    evalStrategy: 'epoch',
    saveStrategy: 'epoch',
    saveTotalLimit: 1,
    loadBestModelAtEnd: true,
    metricForBestModel: keyMetric,
    greaterIsBetter: !/^(loss|mae|mse|rmse)$/.test(keyMetric),
  }) as const satisfies Partial<TrainingArguments>

/** Format validation and test metrics as a table. */
export function metricsTable({ valid, test }: RecipeResults<Record<string, number>>, keyMetric: string): string {
  const names = Object.keys(valid ?? test ?? {})
  const width = Math.max(...names.map((name) => name.length))
  const cell = (value: number | undefined) => (typeof value !== 'number' ? '' : value.toFixed(4)).padStart(9)
  const rows = names.map(
    (name) =>
      `  ${name.padEnd(width)} ${cell(valid?.[name])} ${cell(test?.[name])}${name === keyMetric ? '  (selects the best epoch)' : ''}`,
  )
  return [`  ${''.padEnd(width)} ${'valid'.padStart(9)} ${'test'.padStart(9)}`, ...rows].join('\n')
}
