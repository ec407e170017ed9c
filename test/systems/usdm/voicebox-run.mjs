// A small Voicebox in training that the tests kill, or start twice at once: `node voicebox-run.mjs DATA OUTPUT [STEPS]`. DATA has
// train.txt and valid.txt, as the tests write them. Prints "step N" after each step, and "done" with the results.
import { join } from 'node:path'
import * as vt from 'voxtorch'
import { trainUnitVoicebox } from 'voxtorch/usdm'

const [data, outputDir, steps = '12'] = process.argv.slice(2)
const ranks = vt.getWorldSize()
vt.setNumThreads(1)

const model = vt.UnitVoicebox.fromConfig(
  { nFeats: 8, nTokens: 10, embeddingDim: 6, hiddenSize: 16, intermediateSize: 24, numAttentionHeads: 4, numHiddenLayers: 2, convposWidth: 5, convposGroups: 4, activationDropout: ranks > 1 || steps === 'alone' ? 0 : 0.1 }, // biome-ignore format: one line
  { seed: 3 },
)
const results = await trainUnitVoicebox({
  model,
  train: join(data, 'train.txt'),
  valid: join(data, 'valid.txt'),
  audioRoot: data,
  outputDir,
  recipe: { learningRate: 3e-3, maxGradNorm: 1, batchSize: 4 / (steps === 'alone' ? 1 : ranks), evalBatchSize: 2, windowFrames: 20, logSteps: 1 }, // biome-ignore format: one line
  args: { maxSteps: steps === 'alone' || ranks > 1 ? 4 : Number(steps), progress: false, reportTo: ['jsonl'] },
  callbacks: [{ onStepEnd: ({ state }) => console.log(`step ${state.globalStep}`) }],
})
console.log(`done ${JSON.stringify(results)}`)
