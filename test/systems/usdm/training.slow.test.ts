import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { DecoderLM, tensor } from '../../../lib/index.js'
import {
  finetuneUsdm,
  UsdmTokenizer,
  usdmExample,
  usdmPrompt,
  writeUsdmExamples,
} from '../../../lib/systems/usdm/index.js'
import { mistral } from './mistral.js'
import { TINY, tinyDialogs } from './tiny.js'

const home = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-training-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

const quiet = { progress: false, reportTo: ['jsonl'] } as const

describe('finetuneUsdm', () => {
  it('learns dialogs by heart, so that greedy decoding yields them in three passes', async () => {
    const speech = await mistral(10)
    const train = [
      ...tinyDialogs(speech, 3),
      usdmExample(speech, [
        {
          user: { text: 'I am looking for a pan.', units: [0, 9, 0] },
          agent: { text: 'No problem. What size would you like?', units: [1, 2, 2] },
        },
      ]),
    ]
    const path = join(home, 'dialogs.txt')
    await writeUsdmExamples(path, train)
    const outputDir = join(home, 'by-heart')
    // A network without the rows of speech: it gets them.
    const config = { ...TINY, modelType: 'mistral', vocabSize: 32_000, maxPositionEmbeddings: 128 } as const
    using model = DecoderLM.fromConfig(config, { seed: 1 })
    const recipe = {
      ...{ learningRate: 1e-2, schedule: 'constant' as const, epochs: 90, batchSize: 4, accumulation: 1 },
      ...{ maxGradNorm: 1, gradientCheckpointing: false, logSteps: 20 },
    }
    const data = { train: path, valid: path, maxLength: 128 }
    const results = await finetuneUsdm({ model, tokenizer: speech, ...data, outputDir, recipe, args: quiet })
    expect(results).toMatchObject({ vocabSize: 32_013, newRows: 13, adapters: false })
    expect(results.valid?.loss).toBeLessThan(0.05)

    const saved = join(outputDir, 'model')
    using again = await DecoderLM.fromPretrained(saved)
    expect(again.config.padTokenId).toBe(32_012)
    const own = await UsdmTokenizer.fromPretrained(saved)
    expect([own.modelMaxLength, own.units, own.vocabSize]).toEqual([128, 10, 32_013])
    const { ids } = own
    for (const { inputIds, labels } of train) {
      const learnt = labels.map((label) => label !== -100)
      const edges = learnt.flatMap((is, i) => (is !== (learnt[i - 1] ?? false) ? [i] : []))
      // What is learnt is the transcript with its line break, and the reply with units and the end of speech.
      expect(edges).toHaveLength(4)
      const [hear, heard, answer, answered] = edges as [number, number, number, number]
      const speak = inputIds.indexOf(ids.correspond, answer) + 1
      for (const [from, to] of [
        [hear, heard],
        [answer, speak],
        [speak, answered],
      ] as const) {
        const { tokens } = await again.generate(
          { inputIds: tensor([inputIds.slice(0, from)]) },
          { maxNewTokens: 60, doSample: false, eosTokenId: inputIds[to - 1] as number },
        )
        expect(tokens[0]?.slice(-(to - from)).map(Number)).toEqual(inputIds.slice(from, to))
      }
      // The prompt of the first pass is what stands before what is learnt.
      const units = own.unitsOf(inputIds.slice(0, hear))
      expect(usdmPrompt(own, { units })).toEqual(inputIds.slice(0, hear))
    }
  })
})
