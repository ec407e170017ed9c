import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { bestEpochBy, metricsTable, plainMetrics, type RecipeResults, runRecipe } from '../../lib/kit/recipe.js'
import type { TrainerState } from '../../lib/train/trainer/state.js'

const home = mkdtempSync(join(tmpdir(), 'voxtorch-recipe-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

type Metrics = Record<string, number>
interface Results extends RecipeResults<Metrics> {
  note: string
}

function run(name: string, globalStep: number, more: object = {}) {
  const events: string[] = []
  const outputDir = join(home, name)
  mkdirSync(outputDir, { recursive: true })
  const results = runRecipe<Metrics, Results, string[]>({
    trainer: {
      async train() {
        events.push('train')
        return { state: { globalStep, bestStep: 2 } as TrainerState }
      },
    },
    outputDir,
    data: { train: ['a', 'b', 'c'], valid: ['v'], test: ['t', 'u'] },
    async save(folder) {
      events.push('save')
      mkdirSync(folder)
    },
    async measure([first = '']) {
      events.push(first)
      return { accuracy: 0.5, corr: Number.NaN }
    },
    more: () => ({ note: 'done' }),
    fromJson: (metrics) =>
      Object.fromEntries(Object.entries(metrics).map(([key, value]) => [key, value ?? Number.NaN])),
    dispose: () => events.push('dispose'),
    ...more,
  })
  return { results, events, outputDir }
}

it('trains, saves, measures the test data last, and gives the same again without doing it again', async () => {
  const first = run('whole', 4)
  const results = await first.results
  expect(first.events).toEqual(['train', 'save', 'v', 't', 'dispose'])
  const metrics = { accuracy: 0.5, corr: Number.NaN }
  const samples = { train: 3, valid: 1, test: 2 }
  expect(results).toEqual({ globalStep: 4, bestStep: 2, valid: metrics, test: metrics, samples, note: 'done' })
  expect(JSON.parse(readFileSync(join(first.outputDir, 'results.json'), 'utf8')).test.corr).toBeNull()
  const second = run('whole', 4)
  expect(await second.results).toEqual(results)
  expect(second.events).toEqual(['train', 'dispose'])
  rmSync(join(first.outputDir, 'best'), { recursive: true })
  const longer = run('whole', 8)
  expect((await longer.results).globalStep).toBe(8)
  expect(longer.events).toEqual(['train', 'save', 'v', 't', 'dispose'])
})

it('goes without data to measure, and frees what it holds where something fails', async () => {
  const { results, events } = run('bare', 4, { data: { train: ['a'], test: [] }, best: 'model' })
  expect(await results).toMatchObject({ valid: null, test: null, samples: { train: 1, valid: 0, test: 0 } })
  expect(events).toEqual(['train', 'save', 'dispose'])
  const failing = run('failing', 4, { save: () => Promise.reject(new Error('full')) })
  await expect(failing.results).rejects.toThrow('full')
  expect(failing.events.at(-1)).toBe('dispose')
})

it('has the names and the table of metrics', () => {
  expect(plainMetrics({ evalLoss: 1, evalAccA2Non0: 0.5 })).toEqual({ loss: 1, accA2Non0: 0.5 })
  expect(bestEpochBy('mae')).toMatchObject({ metricForBestModel: 'mae', greaterIsBetter: false })
  expect(bestEpochBy('accuracy').greaterIsBetter).toBe(true)
  const results = {
    globalStep: 4,
    bestStep: 2,
    valid: { mae: 1 },
    test: null,
    samples: { train: 3, valid: 1, test: 0 },
  }
  expect(metricsTable(results, 'mae')).toMatch(/^ +valid +test\n {2}mae +1\.0000 +\(selects the best epoch\)$/)
})
