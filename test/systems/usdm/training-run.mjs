// A small training of USDM that the tests kill, or run in two processes: `node training-run.mjs KIND TOKENIZER OUTPUT`. KIND is
// whole, lora, ustm, ranks, lora-ranks or ustm-ranks. Prints "step N" after each step. There is dropout in the attention, so that generators count.
import * as vt from 'voxtorch'
import * as usdm from 'voxtorch/usdm'

const [kind, folder, outputDir] = process.argv.slice(2)
vt.setNumThreads(1)
const tokenizer = await usdm.UsdmTokenizer.fromPretrained(folder, { units: 6 })
const random = new vt.Random(3)
const ranks = kind.endsWith('ranks')
const say = () => ({
  text: Array.from({ length: 1 + random.below(3) }, () => ['good', 'tea', 'please', 'where'][random.below(4)]).join(
    ' ',
  ),
  units: Array.from({ length: 2 + random.below(8) }, () => random.below(6)),
})
const examples = Array.from({ length: 24 }, () => usdm.usdmExample(tokenizer, [{ user: say(), agent: say() }]))
const config = {
  ...{ modelType: 'mistral', slidingWindow: 64, windowInclusive: true, attentionDropout: ranks ? 0 : 0.1 },
  ...{ hiddenSize: 16, intermediateSize: 32, numHiddenLayers: 2, numAttentionHeads: 2, numKeyValueHeads: 1 },
}
// Without the rows of speech, which it gets.
const model = vt.DecoderLM.fromConfig({ ...config, vocabSize: 258, maxPositionEmbeddings: 512 }, { seed: 7 })
const shared = {
  ...{ model, tokenizer, outputDir },
  args: {
    ...{ progress: false, reportTo: ['jsonl'] },
    ...(ranks && { zero: vt.getWorldSize() > 1 ? 1 : 0 }),
  },
  callbacks: [{ onStepEnd: ({ state }) => void (vt.isMainProcess() && console.log(`step ${state.globalStep}`)) }],
}
const recipe = {
  ...{ learningRate: 1e-2, epochs: 4, accumulation: 2, logSteps: 2, evalSteps: 6, saveSteps: 4 },
  batchSize: (ranks ? 4 : 2) / vt.getWorldSize(),
}
const train = examples.slice(0, 20)
const valid = examples.slice(20)
const results = kind.startsWith('ustm')
  ? await usdm.pretrainUsdm({
      ...{ ...shared, recipe, valid: valid.map(({ inputIds }) => inputIds), ...(!ranks && { compat: 'published' }) },
      // Two sequences in a row.
      train: train.slice(0, 10).flatMap(({ inputIds }, i) => [[...inputIds, ...train[10 + i].inputIds], inputIds]),
    })
  : await usdm.finetuneUsdm({
      ...shared,
      recipe,
      train,
      valid,
      ...(kind.startsWith('lora') && { lora: ranks ? { loraDropout: 0 } : true }),
    })
if (vt.isMainProcess()) console.log(`done ${JSON.stringify(results)}`)
if (ranks && vt.getWorldSize() > 1) await vt.destroyProcessGroup()
