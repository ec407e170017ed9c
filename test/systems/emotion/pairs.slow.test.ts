import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { noGrad, randn } from '../../../lib/index.js'
import type { EmotionDialog } from '../../../lib/kit/emotion/dialog.js'
import type { EmotionParts } from '../../../lib/systems/emotion/data/open.js'
import type { PointerHead } from '../../../lib/systems/emotion/published/heads.js'
import { loadPointer, trainPointer } from '../../../lib/systems/emotion/published/train-pointer.js'
import { PATIENCE } from '../../patience.js'
import { hot, TinyEncoder } from './tiny.js'

const folder = () => mkdtempSync(join(tmpdir(), 'voxtorch-emotion-pairs-'))
const labels = ['neutral', 'joy', 'stage_fright']

/** Dialogs of three, in which the first is why the last feels so, whatever that is. */
function dialogs(count: number): EmotionDialog[] {
  return Array.from({ length: count }, (_, d) => {
    const emotion = labels[1 + (d % 2)] as string
    const utterances = ['neutral', 'neutral', emotion].map((felt, u) => ({
      ...{ id: u + 1, text: `words ${u}`, speaker: 'AB'[u % 2] as string, emotion: felt },
    }))
    return {
      id: String(d + 1),
      source: `made, dialog ${d + 1}`,
      utterances,
      causes: [{ effect: 2, cause: 0, emotion }],
    }
  })
}
const facts = (dialog: EmotionDialog, place: number) => {
  const utterance = dialog.utterances[place] as EmotionDialog['utterances'][number]
  const which = utterance.emotion === 'neutral' ? utterance.id : 2 + labels.indexOf(utterance.emotion as string)
  return hot(8, which, Number(dialog.id) * 10 + utterance.id)
}
function data(): EmotionParts {
  const all = dialogs(132)
  return { train: all.slice(0, 120), valid: all.slice(120, 126), test: all.slice(126), labels, notes: [] }
}

describe('trainPointer', () => {
  // The cause is the utterance whose film says so.
  const film = (dialog: EmotionDialog, place: number) =>
    hot(8, dialog.causes?.[0]?.cause === place ? 7 : dialog.causes?.[0]?.effect === place ? 6 : 5, place)
  const given = (more: object = {}) => ({
    ...{
      data: data(),
      encoders: [new TinyEncoder('video', 8, film), new TinyEncoder('text', 8, facts)],
      outputDir: folder(),
    },
    config: { layers: 1, heads: 2, dropout: 0 },
    recipe: { epochs: 6, batchSize: 8, accumulation: 1, bf16: false, headLearningRate: 3e-3, patience: 0 },
    args: { progress: false, reportTo: 'none' as const },
    ...more,
  })

  it(
    'learns in a few steps where a cause is, and is saved',
    async () => {
      const options = given()
      const { results, model } = await trainPointer(options)
      expect(results.pairs.train).toBe(240)
      expect(results.globalStep).toBe(180)
      expect(results.test?.causeF1).toBeGreaterThan(0.9)
      expect(results.test?.accuracy).toBeGreaterThan(0.9)
      const again = await loadPointer(join(options.outputDir, 'best'))
      const [video, text] = [randn([4, 8]), randn([4, 8])]
      const point = (head: PointerHead) => noGrad(() => head.forward(video, text, [[2, 0]])).toArray()
      expect(point(again)).toEqual(point(model))
      expect((await trainPointer(options)).results).toEqual(results)
    },
    PATIENCE,
  )
})
