import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { DataError } from '../../../../lib/index.js'
import type { EmotionDialog } from '../../../../lib/kit/emotion/dialog.js'
import { findSpans, loadSpans, trainSpans, type WordReader } from '../../../../lib/systems/emotion/causes/spans.js'
import { PATIENCE } from '../../../patience.js'

// The words of a cause begin with "because" and end at "stop"; what is before and behind is none of it.
const VOCABULARY = ['well', 'you', 'know', 'because', 'they', 'took', 'it', 'stop', 'so', 'fine', '.']
const reader: WordReader = {
  words: async (texts) =>
    texts.map((text) =>
      text
        .split(' ')
        .filter((word) => word !== '')
        .map((word) => Float32Array.from(VOCABULARY, (known) => Number(known === word))),
    ),
}

function made(id: number): EmotionDialog {
  const before = ['well', 'you', 'know'].slice(0, id % 4)
  const middle = ['because', ...['they', 'took', 'it'].slice(0, 1 + (id % 3)), 'stop']
  const behind = ['so', 'fine'].slice(0, id % 3)
  const text = [...before, ...middle, ...behind, '.'].join(' ')
  const span: [number, number] = [before.length, before.length + middle.length]
  return {
    ...{ id: String(id), source: `dialog ${id}` },
    utterances: [
      { id: 1, text, speaker: 'A', emotion: 'neutral' },
      { id: 2, text: 'so it is .', speaker: 'B', emotion: 'joy' },
    ],
    causes: [{ effect: 1, cause: 0, emotion: 'joy', span }],
  }
}

it(
  'finds the words of a cause, where the floor is the whole utterance',
  async () => {
    const all = Array.from({ length: 80 }, (_, i) => made(i))
    const labels = ['neutral', 'joy']
    const outputDir = mkdtempSync(join(tmpdir(), 'voxtorch-spans-'))
    const { results, tagger, bias } = await trainSpans({
      ...{ reader, train: all.slice(0, 60), valid: all.slice(60, 70), labels, outputDir, hiddenSize: 32 },
      recipe: { epochs: 12, batchSize: 8, learningRate: 5e-3, patience: 12 },
      args: { progress: false, reportTo: 'none' },
    })
    expect(results.exact).toBeGreaterThanOrEqual(0.9)
    expect(results.floor).toBeLessThan(0.5)
    const test = all.slice(70)
    const bare = test.map(({ causes, ...rest }) => ({
      ...rest,
      causes: causes?.map(({ span: _, ...cause }) => cause) ?? [],
    }))
    const found = await findSpans({ tagger, bias }, reader, bare, labels)
    const right = found.filter(({ causes }, i) => causes?.[0]?.span?.join() === test[i]?.causes?.[0]?.span?.join())
    expect(right.length).toBeGreaterThanOrEqual(9)
    const again = await loadSpans(join(outputDir, 'best'))
    expect(await findSpans(again, reader, bare, labels)).toEqual(found)
    // A bias without bound is the floor.
    const whole = await findSpans({ tagger, bias: 1e6 }, reader, [made(1)], labels)
    expect(whole[0]?.causes?.[0]?.span).toEqual([0, made(1).utterances[0]!.text.split(' ').length - 1])
    const none = trainSpans({ reader, train: [{ ...made(1), causes: [] }], valid: all, labels, outputDir })
    await expect(none).rejects.toThrow(DataError)
    const foreign = findSpans({ tagger, bias }, reader, bare, ['neutral', 'anger'])
    await expect(foreign).rejects.toThrow(/expected one of neutral, anger, got "joy"/)
  },
  PATIENCE,
)
