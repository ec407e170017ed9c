import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { isMainProcess } from '../distributed/index.js'
import { readJson, writeJson } from '../files/json/json.js'
import type { TrainerState } from '../train/trainer/state.js'

/** What every training comes to; `results.json` in its folder holds the same. */
export interface RecipeResults {
  globalStep: number
  /** The step whose weights are in `best/`. */
  bestStep: number | null
}

export interface RecipeSteps<R extends RecipeResults> {
  trainer: { train(): Promise<{ state: TrainerState }> }
  outputDir: string
  /** Saves the best weights, which the network then has, into a folder. Every process calls it. */
  save(folder: string): Promise<void>
  /** Measures them, the test data for the first time. Every process calls it. */
  measure(state: TrainerState): Promise<R>
  /** What results are in JSON, and back; the same by default. JSON has no NaN. */
  toJson?(results: R): unknown
  fromJson?(json: unknown): R
}

const [RESULTS, BEST] = ['results.json', 'best']

/**
 * Trains, saves the best weights in `best/`, and only then measures and writes `results.json`. The same call on the same
 * folder goes on where a killed run was, and after the end gives the results that it finds.
 */
export async function runRecipe<R extends RecipeResults>(steps: RecipeSteps<R>): Promise<R> {
  const { trainer, outputDir, save, measure, toJson = (value) => value, fromJson = (json) => json as R } = steps
  const { state } = await trainer.train()
  const [file, best] = [join(outputDir, RESULTS), join(outputDir, BEST)]
  const before = existsSync(file) ? fromJson(await readJson(file)) : undefined
  if (before?.globalStep === state.globalStep && existsSync(best)) return before
  await save(best)
  const results = await measure(state)
  if (isMainProcess()) await writeJson(file, toJson(results))
  return results
}
