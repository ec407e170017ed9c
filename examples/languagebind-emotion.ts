/**
 * Trains an emotion classifier on dialogs, learns causes where the data has them, and draws what is felt in the test dialogs.
 * `npx tsx examples/languagebind-emotion.ts --data DIR [--config examples/configs/languagebind/exp-12.yaml] [--text minilm]`:
 * a folder of MELD or ECF, or a JSONL file, with the options of `voxtorch emotion train`.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as lb from 'voxtorch/emotion'

const { options, ignored } = await lb.readEmotionArguments(process.argv.slice(2))
for (const { flag, reason } of ignored) console.error(`${flag} has no effect: ${reason}`)
const data = await lb.openEmotionData(...lb.emotionDataOfArguments(options))
const encoders = await lb.encodersOfArguments(options)
if (options.pointer) {
  const { results } = await lb.trainPointer({ data, encoders, ...lb.pointerTrainingOfArguments(options) })
  console.log(lb.pointerText(results))
  process.exit()
}
if (options.pairs) {
  const { results } = await lb.trainPairs({ data, encoders, ...lb.pairTrainingOfArguments(options) })
  console.log(lb.pairText(results))
  process.exit()
}
const settings = lb.emotionTrainingOfArguments(options)
const { results, model, samples } = await lb.trainEmotion({ data, encoders, ...settings })
console.log(lb.emotionText(results))
const outputDir = join(settings.outputDir, 'causes')
const causes = options.causes ? await lb.trainCauses({ classifier: model, samples, outputDir }) : undefined
if (causes) console.log(causes.results.official)
const shown = data.test.slice(0, 20)
if (shown.length > 0) {
  const { device, onBadRecord = 'stop' } = settings
  const classifier = await lb.EmotionClassifier.fromPretrained(
    join(settings.outputDir, 'best'),
    device ? { device } : {},
  )
  const badClips = new lb.BadClips(onBadRecord)
  const labeled = await lb.labelDialogs(classifier, shown, causes ? { badClips, causes } : { badClips })
  writeFileSync(join(settings.outputDir, 'strips.html'), lb.emotionReport(labeled, { note: badClips.note }))
}
