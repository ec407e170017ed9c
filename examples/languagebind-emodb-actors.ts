/** Read Emo-DB, and evaluate each actor with a model trained on the others. */

import { join } from 'node:path'
import * as lb from 'voxtorch/emotion'
import { readCsv } from 'voxtorch/files'

export type EmoDb = Awaited<ReturnType<typeof readEmoDb>>

/** Each clip of `folder` as a dialog of one utterance; `labels.csv` has the columns file, actor, emotion and text. */
export async function readEmoDb(folder: string) {
  const rows = (await readCsv(join(folder, 'labels.csv'))) as Record<'file' | 'actor' | 'emotion' | 'text', string>[]
  const dialogs = rows.map(({ file, actor, emotion, text }) => ({
    ...{ id: file, source: file },
    utterances: [{ id: 1, text, speaker: actor, emotion, clip: { audio: join(folder, file) } }],
  }))
  const labels = [...new Set(rows.map(({ emotion }) => emotion))].sort()
  const actors = [...new Set(rows.map(({ actor }) => actor))].sort()
  return { rows, dialogs, labels, actors }
}

/** Trains without each actor in turn, the next of whom chooses the epoch, and prints how often the emotion is right. */
export async function heldOutActors(
  { rows, dialogs, labels, actors }: EmoDb,
  train: (data: Parameters<typeof lb.trainEmotion>[0]['data'], actor: string) => ReturnType<typeof lb.trainEmotion>,
): Promise<void> {
  const [truth, said]: [number[], number[]] = [[], []]
  for (const [i, actor] of actors.entries()) {
    const chooser = actors[(i + 1) % actors.length]
    const of = (wanted: (who: string) => boolean) => dialogs.filter((_, row) => wanted(rows[row]!.actor))
    const [test, valid] = [of((who) => who === actor), of((who) => who === chooser)]
    const rest = of((who) => who !== actor && who !== chooser)
    const { model, samples, results } = await train({ train: rest, valid, test, labels, notes: [] }, actor)
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
}
