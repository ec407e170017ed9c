// A small AudioLM in fine-tuning that the tests kill: `node sft-run.mjs MODEL DATA OUTPUT`. Prints "step N" after each step and
// the results at the end. Adapters with dropout, Muon, noise, packed batches with audio, and the best of the evaluations.
import * as vt from 'voxtorch'
import { trainSft } from 'voxtorch/tuning'

const [folder, data, outputDir] = process.argv.slice(2)
vt.setNumThreads(1)
const model = await vt.AudioLM.fromPretrained(folder)
vt.manualSeed(1)
const peft = model.trainParts({ encoder: 'lora', connector: 'full', decoder: 'lora' }, { r: 2, loraDropout: 0.1 })
const results = await trainSft(peft, data, {
  ...{ outputDir, evalRecords: data, metrics: ['cer'], keyMetric: 'cer', maxNewTokens: 4, optim: 'muon' },
  ...{ packing: true, batchSize: 2, maxLength: 160, epochs: 6, saveSteps: 3, neftuneNoiseAlpha: 5, learningRate: 5e-3 },
  args: { progress: false, reportTo: ['jsonl'] },
  callbacks: [{ onStepEnd: ({ state }) => console.log(`step ${state.globalStep}`) }],
})
console.log(`done ${JSON.stringify(results)}`)
