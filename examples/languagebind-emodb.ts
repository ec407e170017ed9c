/**
 * Emotions of Emo-DB from the voice alone, each actor told by what was learnt from the others:
 * `npx tsx examples/languagebind-emodb.ts --data EMODB --config examples/configs/languagebind/emodb-whisper.yaml`, with the
 * options of `voxtorch emotion train`. EMODB/labels.csv has the columns file, actor, emotion and text.
 */
import { join } from 'node:path'
import * as vt from 'voxtorch'
import * as lb from 'voxtorch/languagebind'

const { options } = await lb.readEmotionArguments(process.argv.slice(2))
const settings = lb.emotionTrainingOfArguments(options)
const folder = options.data ?? 'emodb'
const rows = (await vt.readCsv(join(folder, 'labels.csv'))) as Record<'file' | 'actor' | 'emotion' | 'text', string>[]
const dialogs = rows.map(({ file, actor, emotion, text }) => ({
  ...{ id: file, source: file },
  utterances: [{ id: 1, text, speaker: actor, emotion, clip: { audio: join(folder, file) } }],
}))
const labels = [...new Set(rows.map(({ emotion }) => emotion))].sort()
const actors = [...new Set(rows.map(({ actor }) => actor))].sort()

// How a clip differs from what is usual for its actor.
const features = settings.cache ?? join(settings.outputDir, 'features')
const cache = lb.FeatureCache.open(features)
const towers: lb.EmotionTower[] = []
for (const tower of await lb.towersOfArguments(options))
  towers.push((await lb.speakerNormalized(tower, dialogs, { cache })) as lb.EmotionTower)
await cache.close()

const [truth, said]: [number[], number[]] = [[], []]
for (const [i, actor] of actors.entries()) {
  const chooser = actors[(i + 1) % actors.length]
  const of = (wanted: (who: string) => boolean) =>
    dialogs.filter((_, row) => wanted((rows[row] as { actor: string }).actor))
  const [test, valid] = [of((who) => who === actor), of((who) => who === chooser)]
  const data = { train: of((who) => who !== actor && who !== chooser), valid, test, labels, notes: [] }
  const outputDir = join(settings.outputDir, actor)
  const { model, samples, results } = await lb.trainEmotion({ ...settings, data, towers, outputDir, cache: features })
  for (const { dialog, logits } of await lb.emotionAnswers(model, samples.test)) {
    truth.push(labels.indexOf(dialog.utterances[0]?.emotion ?? ''))
    said.push((logits[0] as number[]).indexOf(Math.max(...(logits[0] as number[]))))
  }
  console.log(`actor ${actor}: accuracy ${results.test?.accuracy?.toFixed(3)} of ${test.length} clips`)
}
const classes = lb.classScores(truth, said, labels)
const recall = classes.reduce((sum, one) => sum + one.recall, 0) / labels.length
console.log(
  `accuracy ${lb.emotionMetrics(truth, said).accuracy.toFixed(3)}, unweighted average recall ${recall.toFixed(3)}`,
)
for (const one of classes) console.log(`${one.label.padEnd(10)} recall ${one.recall.toFixed(3)} of ${one.support}`)
