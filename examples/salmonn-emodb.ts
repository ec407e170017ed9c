/**
 * Train a small SALMONN from scratch on dialogs of several clips; it predicts the emotion of each turn.
 *
 * `npx tsx examples/salmonn-emodb.ts --data EMODB [--out DIR] [--config FILE] [--seed N]`: EMODB is laid out like Emo-DB
 * (Burkhardt et al. 2005), recordings and a labels.csv with the columns file, actor and emotion.
 *
 * One actor is for validation, two are for the test. The test runs again with the audio of other dialogs, as a baseline.
 * OUTPUT/emodb.json has the numbers, OUTPUT/model the network for `voxtorch salmonn chat` and `voxtorch serve salmonn`. The
 * same command continues a killed run.
 *
 * With published weights trainSalmonn freezes the encoders and the language model, and trains the Q-Former, the projection
 * and LoRA by default. Here all weights are random, so each part to train is named.
 */
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'
import * as salmonn from 'voxtorch/salmonn'
import { type DialogSettings, mostFrequent, withOtherAudio, writeDialogs } from './salmonn-emodb-data.js'

const here = dirname(fileURLToPath(import.meta.url))
const { values: options } = parseArgs({
  options: {
    data: { type: 'string' },
    out: { type: 'string', default: 'salmonn-emodb' },
    config: { type: 'string', default: join(here, 'salmonn-emodb.json') },
    seed: { type: 'string' },
  },
})
if (options.data === undefined) throw new Error('say where the recordings are: --data DIR')
const out = options.out
const config = (await vt.readJson(options.config)) as {
  model: {
    whisper: vt.WhisperConfig
    beats: vt.BeatsConfig
    qformer: vt.QFormerConfig
    llm: vt.DecoderLMConfig
    lora: null
  }
  dialogs: DialogSettings
  recipe: Partial<salmonn.SalmonnRecipe>
}
const seed = Number(options.seed ?? config.recipe.seed ?? 0)
const started = performance.now()
vt.setNumThreads(1) // a network this small gains little from a second one

const files = await writeDialogs(options.data, join(out, 'data'), config.dialogs)
// Each clip has a speech block of its own; the answers themselves are lines of emotions.
const form = { clips: 'separate', emotionSuffix: false } as const
const data = await salmonn.openSalmonnData(
  { train: [files.train], valid: [files.valid], test: [files.test], ...form },
  { seed },
)

vt.manualSeed(seed)
const tokenizer = await vt.Tokenizer.fromPretrained(files.tokenizer)
const { llm, ...parts } = config.model
const model = vt.Salmonn.fromConfig({ ...parts, llm: { ...llm, vocabSize: tokenizer.vocabSize } })
model.tokenizer = tokenizer
const count = model.parameters().reduce((sum, parameter) => sum + parameter.numel(), 0)
const sizes = [data.train, data.valid, data.test].map(({ length }) => length)
console.log(`${count} weights; ${sizes.join(', ')} dialogs to learn from, to choose by, to test on`)

const { bestStep } = await salmonn.trainSalmonn(model, {
  ...data,
  outputDir: join(out, 'training'),
  stage: ['whisper', 'beats', 'qformer', 'projection', 'llm'],
  recipe: { ...config.recipe, seed },
  args: { reportTo: ['jsonl', 'html'] },
  callbacks: [{ onLog: ({ logs }) => console.log(told(logs)) }],
})
await model.save(join(out, 'model'), { whole: true })

const generation = { numBeams: 1, maxNewTokens: 4 * config.dialogs.turns }
const asked = (dataset: salmonn.SalmonnDataset) => salmonn.scoreSalmonn(model, dataset, { generation, batchSize: 16 })
const [valid, test] = [await asked(data.valid), await asked(data.test)]
const shuffled = await asked(new salmonn.SalmonnDataset(withOtherAudio(data.test.entries, seed), form))
const actors = config.dialogs.testSpeakers.map((actor) => {
  const own = test.answers.filter((_, i) => data.test.entries[i]!.speaker === actor)
  return [actor, salmonn.trajectoryScores(own).positionAccuracy]
})
const figures = {
  turnAccuracy: test.scores.positionAccuracy!,
  shuffledTurnAccuracy: shuffled.scores.positionAccuracy!,
  mostFrequent: mostFrequent(data.test.entries),
  exactSequence: test.scores.exactSequence,
  parsed: test.scores.parsed,
  accuracyAt: test.scores.accuracyAt,
  actors: Object.fromEntries(actors),
  validTurnAccuracy: valid.scores.positionAccuracy,
  bestStep,
  dialogs: { train: data.train.length, valid: data.valid.length, test: data.test.length },
}
await vt.writeJson(join(out, 'emodb.json'), figures, { indent: 2 })
for (const { prediction, reference } of test.answers.slice(0, 3)) console.log(`${prediction}\n  right: ${reference}`)
console.log(JSON.stringify(figures, null, 2))
console.log(`${((performance.now() - started) / 1000).toFixed(0)} s; the model is in ${join(out, 'model')}`)

function told({ step, loss, evalLoss, evalAccuracy }: Record<string, unknown>): string {
  const number = (value: unknown) => (value as number).toFixed(3)
  if (evalLoss === undefined) return `step ${step}: loss ${number(loss)}`
  return `step ${step}: validation loss ${number(evalLoss)}, token accuracy ${number(evalAccuracy)}`
}
