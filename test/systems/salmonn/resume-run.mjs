// A small SALMONN in training that the tests kill: `node resume-run.mjs DATA OUTPUT`; DATA has dialogs.json, as the tests
// write it, and a tokenizer. Prints "step N" after each step, "saved N" after each checkpoint. All networks are there and
// train, LoRA included, with dropout wherever one has it, drawn prompts, a shuffled order, accumulation, the schedule,
// evaluation, the best weights and scored answers.
import { join } from 'node:path'
import * as vt from 'voxtorch'
import { openSalmonnData, trainSalmonn } from 'voxtorch/salmonn'

const [data, outputDir] = process.argv.slice(2)
vt.setNumThreads(1)
vt.manualSeed(5)

const tokenizer = await vt.Tokenizer.fromPretrained(join(data, 'tokenizer'))
const size = { hiddenSize: 16, intermediateSize: 32, numAttentionHeads: 2 }
const model = vt.Salmonn.fromConfig({
  whisper: { dModel: 16, encoderLayers: 2, encoderAttentionHeads: 2, encoderFfnDim: 32, decoderAttentionHeads: 2, dropout: 0.1, attentionDropout: 0.1, activationDropout: 0.1, encoderLayerdrop: 0.2 }, // biome-ignore format: one line
  beats: { embedDim: 16, encoderLayers: 2, encoderEmbedDim: 16, encoderFfnEmbedDim: 32, encoderAttentionHeads: 2, convPos: 8, convPosGroups: 2, relativePositionEmbedding: true, gruRelPos: true, deepNorm: true, dropout: 0.1, attentionDropout: 0.1, encoderLayerdrop: 0.2 }, // biome-ignore format: one line
  qformer: { ...size, numHiddenLayers: 1, window: 17 },
  llm: {
    ...size,
    vocabSize: tokenizer.vocabSize,
    numHiddenLayers: 2,
    maxPositionEmbeddings: 256,
    attentionDropout: 0.1,
  },
  lora: { r: 2 },
})
model.tokenizer = tokenizer

const { train, valid, test } = await openSalmonnData(
  {
    train: [join(data, 'dialogs.json')],
    validSpeakers: ['v'],
    testSpeakers: ['t'],
    clips: 'separate',
    emotionSuffix: false,
  },
  { seed: 3 },
)
const results = await trainSalmonn(model, {
  train,
  valid,
  test,
  outputDir,
  stage: ['whisper', 'beats', 'qformer', 'projection', 'lora', 'llm'],
  recipe: { learningRate: 3e-3, warmupStartLearningRate: 1e-4, minLearningRate: 1e-4, warmupSteps: 10, epochs: 15, iterationsPerEpoch: 8, batchSize: 4, accumulation: 2, logSteps: 3 }, // biome-ignore format: one line
  args: { progress: false, reportTo: ['jsonl'], saveTotalLimit: 2 },
  score: { generation: { numBeams: 1, maxNewTokens: 8 } },
  callbacks: [
    {
      onStepEnd: ({ state }) => console.log(`step ${state.globalStep}`),
      onSave: ({ state }) => console.log(`saved ${state.globalStep}`),
    },
  ],
})
await model.save(join(outputDir, 'model'), { whole: true })
console.log(`done ${JSON.stringify(results)}`)
