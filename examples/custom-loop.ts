/**
 * A model and a training loop by hand: is a sentence of a review positive? One branch averages word vectors, the other
 * runs a convolution over characters. Sentences: npm's `sentiment` (imdb, yelp, amazon); every fifth is held out.
 *
 *     npx tsx examples/custom-loop.ts        about 30 s on two cores; expect a held-out accuracy near 0.85
 */
import { createRequire } from 'node:module'
import * as vt from 'voxtorch'

// Bag-of-words logistic regression on the same split: test/reference/train_bow.py.
const BASELINE = 0.8467
const [EPOCHS, BATCH, SEED] = [15, 32, 0]

interface Row {
  text: string
  class: 0 | 1 | null
}
const load = createRequire(import.meta.url)
const files: Row[][] = ['imdb', 'yelp', 'amazon'].map((name) => load(`sentiment/test/fixtures/${name}.json`))
const rows = files.flat().filter((row) => row.text !== '')
const isHeldOut = (_: Row, i: number) => i % 5 === 0

// 0 is padding; 1 stands for a word that training has not seen.
const split = (text: string): string[] => text.toLowerCase().match(/[a-z']+|[!?]/g) ?? []
const known = new Set(rows.filter((row, i) => !isHeldOut(row, i)).flatMap((row) => split(row.text)))
const numbers = new Map([...known].map((word, i) => [word, i + 2]))
const samples = rows.map((row) => ({
  words: split(row.text).map((word) => numbers.get(word) ?? 1),
  chars: Array.from(row.text.toLowerCase().slice(0, 160), (char) => Math.min(char.charCodeAt(0), 127)),
  label: Number(row.class),
}))

class TwoBranch extends vt.Module {
  words = new vt.Embedding(numbers.size + 2, 64, { paddingIdx: 0 })
  chars = new vt.Embedding(128, 16, { paddingIdx: 0 })
  conv = new vt.Conv1d(16, 64, 5, { padding: 2 })
  dropout = new vt.Dropout(0.5)
  out = new vt.Linear(128, 2)

  override forward(words: vt.Tensor, chars: vt.Tensor): vt.Tensor {
    let there = words.ne(0).to({ dtype: 'float32' }).unsqueeze(-1) // [batch, words, 1]
    if (this.training) there = there.mul(there.randLike().ge(0.5)) // half of the words are hidden
    const mean = this.words
      .forward(words)
      .mul(there)
      .sum([1])
      .div(there.sum([1]).clamp(1)) // [batch, 64]
    const shapes = this.conv.forward(this.chars.forward(chars).transpose(1, 2)).relu().amax([2]) // [batch, 64]
    return this.out.forward(this.dropout.forward(vt.cat([mean, shapes], 1))) // [batch, 2]
  }
}

vt.manualSeed(SEED)
const model = new TwoBranch()
vt.init.normal_(model.words.weight, 0, 0.1)
const collate = vt.padCollate({ words: { pad: 0 }, chars: { pad: 0 }, label: {} })
const training = samples.filter((_, i) => !isHeldOut(rows[i] as Row, i))
const heldOut = samples.filter((_, i) => isHeldOut(rows[i] as Row, i))
const loader = new vt.DataLoader(training, { batchSize: BATCH, shuffle: true, seed: SEED, collate })
const optimizer = new vt.AdamW(model.parameters(), { lr: 3e-3 })
const numTrainingSteps = EPOCHS * loader.length
const schedule = vt.getLinearScheduleWithWarmup(optimizer, { numWarmupSteps: numTrainingSteps / 10, numTrainingSteps })
const bar = new vt.ProgressBar({ total: numTrainingSteps, unit: 'steps' })

for (let epoch = 0; epoch < EPOCHS; epoch++) {
  for await (const { words, chars, label } of loader) {
    await vt.scope(async () => {
      const loss = vt.functional.crossEntropy(model.forward(words, chars), label)
      await loss.backward()
      await vt.clipGradNorm(model.parameters(), 1)
      await optimizer.step()
      optimizer.zeroGrad()
      schedule.step()
      bar.tick(1, { epoch: epoch + 1, loss: Number(loss.item()), lr: optimizer.groups[0]?.lr ?? 0 })
    })
  }
}
bar.close()

model.eval()
const guesses = await vt.noGrad(async () => {
  const found: unknown[] = []
  for await (const { words, chars } of new vt.DataLoader(heldOut, { batchSize: 100, collate })) {
    found.push(...(vt.scope(() => model.forward(words, chars).argmax(1).toArray()) as number[]))
  }
  return found as number[]
})
const right = vt.accuracy(
  heldOut.map((sample) => sample.label),
  guesses,
)
console.log(`held out: accuracy ${right.toFixed(4)} (bag-of-words logistic regression ${BASELINE})`)
