// A preprocessing of dialogs that the tests kill: `node preprocess-run.mjs DATA OUTPUT`. DATA has turns.jsonl, clips of lengths that
// all differ, and a tokenizer. Prints "batch N N …" with the samples of its clips before each batch is heard, and "done" in the end.
import { join } from 'node:path'
import * as vt from 'voxtorch'
import * as usdm from 'voxtorch/usdm'

const [data, output] = process.argv.slice(2)
vt.setNumThreads(1)
vt.manualSeed(3)
const config = {
  ...{ hiddenSize: 16, numHiddenLayers: 2, numAttentionHeads: 2, intermediateSize: 24, convDim: new Array(7).fill(6) },
  ...{ featExtractNorm: 'layer', doStableLayerNorm: true, convBias: true },
  ...{ numConvPosEmbeddings: 8, numConvPosEmbeddingGroups: 4 },
}
const units = await vt.UnitExtractor.fromPretrained({
  encoder: vt.Wav2Vec2.fromConfig(config, { seed: 2 }).eval(),
  kmeans: vt.randn([50, 16]).mul(3),
  layer: 1,
})
const states = units.encoder.states.bind(units.encoder)
units.encoder.states = async (clips) => {
  console.log(`batch ${clips.map((clip) => clip.size(0)).join(' ')}`)
  return states(clips)
}
await usdm.preprocessUsdmJsonl({
  ...{ data: join(data, 'turns.jsonl'), output: join(output, 'train.txt'), units },
  tokenizer: await usdm.UsdmTokenizer.fromPretrained(join(data, 'tokenizer'), { units: 50 }),
  // Four batches of two in a group.
  extract: { batchSeconds: 0.25 },
})
console.log('done')
