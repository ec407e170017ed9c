// A training that the tests kill: `node train-run.mjs FOLDER`. Prints "step N" after each step, and in the end "hash H" of all weights
// and "test T", the metrics on the test data.

import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import * as vt from 'voxtorch'
import { EmotionTextEncoder, trainEmotion } from 'voxtorch/emotion'

const [outputDir, bert] = process.argv.slice(2)
vt.setNumThreads(1)
const labels = ['joy', 'anger', 'neutral']
const words = ['glad', 'angry', 'so']
const dialogs = Array.from({ length: 24 }, (_, d) => ({
  ...{ id: String(d), source: `made ${d}` },
  utterances: Array.from({ length: 3 }, (_, u) => {
    const felt = (d * 5 + u * (d + 1)) % 3
    return { id: u + 1, text: `it is ${words[felt]} .`, speaker: 'AB'[u % 2], emotion: labels[felt] }
  }),
}))
const parts = { train: dialogs.slice(0, 16), valid: dialogs.slice(16, 20), test: dialogs.slice(20) }
const { model, results } = await trainEmotion({
  ...{
    data: { ...parts, labels, notes: [] },
    outputDir,
    encoders: [await EmotionTextEncoder.fromPretrained(bert)],
    tune: 'full',
  },
  config: { hiddenSize: 8, context: { layers: 1, heads: 2 }, dropout: 0.2 },
  recipe: { epochs: 4, batchSize: 4, accumulation: 2, patience: 0, encoderLearningRate: 1e-3 },
  args: { progress: false, reportTo: 'none', saveStrategy: 'steps', saveSteps: 1, evalStrategy: 'steps', evalSteps: 1 },
  callbacks: [
    {
      async onStepEnd({ state }) {
        console.log(`step ${state.globalStep}`)
        // Long enough for a kill.
        await sleep(40)
      },
    },
  ],
})
const hash = createHash('sha256')
for (const [name, one] of Object.entries(model.stateDict()))
  hash.update(name).update(Buffer.from(one.contiguous().dataSync().buffer))
console.log(`hash ${hash.digest('hex')}`)
console.log(`test ${JSON.stringify(results.test)}`)
