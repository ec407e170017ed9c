/**
 * The training of custom-loop.ts by `Trainer`: the same data, model and losses, without the loop. What is new is below
 * "the training". `npx tsx examples/trainer.ts [OUTPUT]` takes fifteen seconds; stopped and started again, it goes on.
 */
import { createRequire } from 'node:module'
import * as vt from 'voxtorch'

const [EPOCHS, SEED] = [12, 0]
const load = createRequire(import.meta.url)
function reviews(path: string): { text: string; class: number }[] {
  try {
    return load(path)
  } catch {
    console.error('The reviews are in a package of npm. Run: npm install sentiment@5.0.2')
    process.exit(1)
  }
}
const rows = ['imdb', 'yelp', 'amazon']
  .flatMap((name) => reviews(`sentiment/test/fixtures/${name}.json`))
  .filter((row) => row.text !== '')
const isHeldOut = (_: unknown, i: number) => i % 5 === 4
const isTraining = (_: unknown, i: number) => i % 5 !== 4

function tokens(text: string): string[] {
  const words: string[] = text.toLowerCase().match(/[a-z']+|[!?]/g) ?? []
  const pairs = words.slice(1).map((word, i) => `${words[i]} ${word}`)
  return [...words, ...pairs, ...words.flatMap((word) => [...word].slice(1).map((_, i) => `<${word}>`.slice(i, i + 4)))]
}
const counts = new Map<string, number>()
for (const row of rows.filter(isTraining))
  for (const token of tokens(row.text)) counts.set(token, (counts.get(token) ?? 0) + 1)
// 0 is padding; 1 stands for what training has seen less than twice.
const numbers = new Map([...counts.keys()].filter((token) => counts.get(token) !== 1).map((token, i) => [token, i + 2]))
const samples = rows.map((row) => ({
  words: tokens(row.text).map((token) => numbers.get(token) ?? 1),
  chars: Array.from(row.text.toLowerCase().slice(0, 160), (char) => Math.min(char.charCodeAt(0), 127)),
  label: row.class,
}))

class TwoBranch extends vt.Module {
  words = new vt.Embedding(numbers.size + 2, 64, { paddingIdx: 0 })
  chars = new vt.Embedding(128, 16, { paddingIdx: 0 })
  conv = new vt.Conv1d(16, 64, 7, { padding: 3 })
  out = new vt.Linear(128, 2)

  override forward(words: vt.Tensor, chars: vt.Tensor): vt.Tensor {
    let shown = words.ne(0).to({ dtype: 'float32' }).unsqueeze(-1) // [batch, words, 1]
    if (this.training) shown = shown.mul(shown.randLike().ge(0.6)) // hides 60 % of the words
    const mean = this.words
      .forward(words)
      .mul(shown)
      .sum([1])
      .div(shown.sum([1]).clamp(1)) // [batch, 64]
    const spelling = this.conv.forward(this.chars.forward(chars).transpose(1, 2)).relu().amax([2]) // [batch, 64]
    return this.out.forward(vt.functional.dropout(vt.cat([mean, spelling], 1), 0.5, this)) // [batch, 2]
  }
}

vt.manualSeed(SEED)
vt.setNumThreads(1) // a model this small gains nothing from a second one
const model = new TwoBranch()
vt.init.normal_(model.words.weight, 0, 0.1)
const collate = vt.padCollate({ words: { pad: 0 }, chars: { pad: 0 }, label: {} })

// The training.
const trainer = new vt.Trainer({
  model,
  trainDataset: samples.filter(isTraining),
  evalDataset: samples.filter(isHeldOut),
  collate,
  computeLoss(model, { words, chars, label }) {
    const logits = model.forward(words, chars)
    return { logits, loss: vt.functional.crossEntropy(logits, label) }
  },
  computeMetrics: ({ predictions, labels }) => ({
    accuracy: vt.accuracy(labels?.toArray() as number[], predictions.argmax(1).toArray() as number[]),
  }),
  // The loop by hand lets biases decay too; without this line, the Trainer makes an AdamW that spares them.
  optimizers: { optimizer: new vt.AdamW(model.parameters(), { lr: 3e-3 }) },
  args: {
    outputDir: process.argv[2] ?? 'trainer-output',
    perDeviceTrainBatchSize: 32,
    perDeviceEvalBatchSize: 100,
    numTrainEpochs: EPOCHS,
    warmupRatio: 1 / EPOCHS,
    loggingSteps: 1,
    evalStrategy: 'epoch',
    saveStrategy: 'epoch',
    saveTotalLimit: 1,
    dataSeed: SEED,
    seed: null, // continue the random numbers after the initialization
  },
})
await trainer.train()
const { evalAccuracy } = await trainer.evaluate()
console.log(`held out: ${evalAccuracy?.toFixed(4)} (bag-of-words logistic regression: 0.8017)`)
