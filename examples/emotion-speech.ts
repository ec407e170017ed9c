/**
 * Train an emotion classifier on Emo-DB (Burkhardt et al. 2005), whose texts are independent of the emotion. Each actor in
 * turn is tested with a model trained on the others. At the end a model of all actors is saved.
 *
 * `npx tsx examples/emotion-speech.ts --data DIR [--out DIR] [--seed N] [--check-seed]`; DIR has a labels.csv with the
 * columns file, actor and emotion. `--check-seed` trains the saved model twice and compares every weight.
 */

import { join } from 'node:path'
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'
import { readCsv } from 'voxtorch/files'
import { clipStatistics, speakerOf, VoiceEmotion } from './emotion-model.js'

const { values: options } = parseArgs({
  options: {
    data: { type: 'string' },
    out: { type: 'string', default: 'emotion-model' },
    seed: { type: 'string', default: '0' },
    'check-seed': { type: 'boolean', default: false },
  },
})
if (options.data === undefined) throw new Error('say where the recordings are: --data DIR')
const [STEPS, started] = [150, performance.now()]
vt.setNumThreads(1) // a model this small gains nothing from a second one

const rows = await readCsv(join(options.data, 'labels.csv'))
const classes = [...new Set(rows.map((row) => row.emotion!))].sort()
const actors = [...new Set(rows.map((row) => row.actor!))].sort()
const labels = rows.map((row) => classes.indexOf(row.emotion!))

const clips: vt.Tensor[] = []
{
  using bar = new vt.ProgressBar({ total: rows.length, label: 'listen', unit: 'clips' })
  for (const row of rows) {
    clips.push(await clipStatistics(join(options.data, row.file!)))
    bar.tick()
  }
}

/** Return features [clips, size] and labels [clips]; features are normalized by each actor's mean and standard deviation. */
const ofActor = (actor: string) => rows.flatMap((row, i) => (row.actor === actor ? [i] : []))
const raw = (indices: number[]) => vt.stack(indices.map((i) => clips[i]!))
function normalised(actor: string): vt.Tensor {
  return vt.scope(() => {
    const own = raw(ofActor(actor))
    const { mean, std } = speakerOf(own)
    return own.sub(mean).div(std)
  })
}

async function train(heard: string[]): Promise<VoiceEmotion> {
  vt.manualSeed(Number(options.seed))
  const indices = heard.flatMap(ofActor)
  const model = new VoiceEmotion({ classes, size: clips[0]!.size(0) })
  await vt.scope(async () => {
    const speakers = heard.map((actor) => speakerOf(raw(ofActor(actor))))
    model.mean.copy_(vt.stack(speakers.map(({ mean }) => mean)).mean([0]))
    model.std.copy_(vt.stack(speakers.map(({ std }) => std)).mean([0]))
    const inputs = vt.cat(heard.map(normalised))
    const target = vt.tensor(indices.map((i) => labels[i]!))
    // A rare emotion counts as much as a frequent one.
    const counts = classes.map((_, c) => indices.filter((i) => labels[i] === c).length)
    const weight = vt.tensor(
      counts.map((count) => indices.length / classes.length / Math.max(1, count)),
      { dtype: 'float32' },
    )
    const optimizer = new vt.AdamW(model.parameters(), { lr: 3e-3, weightDecay: 0.1 })
    for (let step = 0; step < STEPS; step++) {
      await vt.scope(async () => {
        const losses = model
          .each(inputs)
          .map((logits) => vt.functional.crossEntropy(logits, target, { weight, labelSmoothing: 0.1 }))
        const loss = vt.stack(losses).sum()
        await loss.backward()
        await optimizer.step()
        optimizer.zeroGrad()
      })
    }
  })
  return model.eval()
}

const classify = (model: VoiceEmotion, inputs: vt.Tensor) =>
  vt.noGrad(() => vt.scope(() => model.forward(inputs).argmax(1).toArray())) as number[]

const folds: { actor: string; truth: number[]; guesses: number[]; alone: number[] }[] = []
{
  using bar = new vt.ProgressBar({ total: actors.length, label: 'leave one out', unit: 'actors' })
  for (const actor of actors) {
    using model = await train(actors.filter((other) => other !== actor))
    const truth = ofActor(actor).map((i) => labels[i]!)
    const guesses = vt.scope(() => classify(model, normalised(actor)))
    const alone = ofActor(actor).flatMap((i) => vt.scope(() => classify(model, model.adapted(raw([i])))))
    folds.push({ actor, truth, guesses, alone })
    bar.tick()
  }
}

const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
const spread = (values: number[]) => Math.sqrt(mean(values.map((value) => (value - mean(values)) ** 2)))
const recalls = folds.map(({ truth, guesses }) => vt.unweightedAverageRecall(truth, guesses))
const [truth, guesses] = [folds.flatMap((fold) => fold.truth), folds.flatMap((fold) => fold.guesses)]
const perClass = vt.recall(truth, guesses, { average: 'none', labels: classes.map((_, c) => c) })

console.log(`\n${rows.length} clips, ${actors.length} actors, each left out once; unweighted average recall (UAR):`)
for (const [i, { actor }] of folds.entries()) console.log(`  actor ${actor.padEnd(12)}${recalls[i]!.toFixed(3)}`)
console.log(`  mean ± spread     ${mean(recalls).toFixed(3)} ± ${spread(recalls).toFixed(3)}`)
console.log(`recall of each emotion, over all actors (accuracy ${vt.accuracy(truth, guesses).toFixed(3)}):`)
for (const [c, name] of classes.entries()) console.log(`  ${name.padEnd(18)}${perClass[c]!.toFixed(3)}`)
const alone = mean(folds.map((fold) => vt.unweightedAverageRecall(fold.truth, fold.alone)))
console.log(`UAR when nothing else of the speaker is known than the clip itself: ${alone.toFixed(3)}`)

const model = await train(actors)
await model.save(options.out)
console.log(
  `a model of all ${actors.length} actors is in ${options.out}/; ${((performance.now() - started) / 1000).toFixed(0)} s in all`,
)
if (options['check-seed']) {
  const [first, second] = [model.stateDict(), (await train(actors)).stateDict()]
  const same = Object.entries(first).every(([name, value]) => value.equal(second[name]!))
  console.log(same ? 'trained again: every weight is identical' : 'trained again: THE WEIGHTS DIFFER')
  if (!same) process.exitCode = 1
}
