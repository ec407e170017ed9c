/**
 * Predict the emotion of recordings: `npx tsx examples/emotion-predict.ts MODEL file.wav…` with a model that
 * emotion-speech.ts saved. Use several files of one speaker, because features are normalized per speaker.
 */
import { basename } from 'node:path'
import * as vt from 'voxtorch'
import { clipStatistics, VoiceEmotion } from './emotion-model.js'

const [directory, ...files] = process.argv.slice(2)
if (directory === undefined || files.length === 0) throw new Error('usage: emotion-predict.ts MODEL file.wav…')
const model = await VoiceEmotion.fromPretrained(directory)
const clips: vt.Tensor[] = []
for (const file of files) clips.push(await clipStatistics(file))
const rows = vt.noGrad(() =>
  vt.scope(() =>
    model
      .forward(model.adapted(vt.stack(clips)))
      .exp()
      .toArray(),
  ),
) as number[][] // [files, classes]

const width = Math.max(8, ...files.map((file) => basename(file).length)) + 2
console.log(''.padEnd(width) + model.config.classes.map((name) => name.padStart(10)).join(''))
for (const [i, row] of rows.entries()) {
  const best = Math.max(...row)
  const cells = row.map((share) => `${share === best ? '*' : ''}${share.toFixed(3)}`.padStart(10))
  console.log(basename(files[i]!).padEnd(width) + cells.join(''))
}
