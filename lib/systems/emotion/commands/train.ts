import { commandRule } from '../../../kit/command.js'
import { EMOTION_OPTIONS, EMOTION_ORIGINAL_OPTIONS } from '../configuration/arguments.js'

export const train = commandRule({
  name: 'train',
  summary: 'Train an emotion classifier on dialogs: MELD, ECF or your own, from text, voice and video.',
  details: `  voxtorch emotion train --data MELD --text minilm --context-layers 2
  voxtorch emotion train --data ECF --causes
  voxtorch emotion train --config examples/configs/languagebind/exp-01.yaml --data ECF --clips CLIPS

The epoch with the best validation metric is saved in OUTPUT/best and tested once, with a report in OUTPUT/report.html.
The same command resumes an interrupted run. Option names of transformers' TrainingArguments work too.`,
  options: EMOTION_OPTIONS,
  originalOptions: EMOTION_ORIGINAL_OPTIONS,
  async run(given) {
    const command = await import('../configuration/apply.js')
    const { options, ignored } = await command.withConfigFile(given)
    for (const { flag, reason } of [...ignored, ...command.unusedEmotionArguments(options)])
      console.error(`${flag} has no effect: ${reason}`)
    const { openEmotionData } = await import('../data/open.js')
    const { trainEmotion } = await import('../training/train.js')
    const data = await openEmotionData(...command.emotionDataOfArguments(options))
    const encoders = await command.encodersOfArguments(options)
    if (options.pointer) {
      const { trainPointer } = await import('../published/train-pointer.js')
      const { results } = await trainPointer({ data, encoders, ...command.pointerTrainingOfArguments(options) })
      console.log(command.pointerText(results))
      return 0
    }
    if (options.pairs) {
      const { trainPairs } = await import('../published/train-pairs.js')
      const { results } = await trainPairs({ data, encoders, ...command.pairTrainingOfArguments(options) })
      console.log(command.pairText(results))
      return 0
    }
    const training = command.emotionTrainingOfArguments(options)
    const trained = await trainEmotion({ data, encoders, ...training })
    console.log(command.emotionText(trained.results))
    const { outputDir } = training
    const { writeTrainingReport } = await import('../answer/report-files.js')
    let found: readonly import('../../../kit/emotion/dialog.js').EmotionDialog[] = []
    try {
      if (options.causes) {
        const { trainCausesOf } = await import('../causes/run.js')
        const { seed } = options
        const causes = await trainCausesOf(trained, { outputDir, encoders, ...(seed !== undefined && { seed }) })
        console.log(causes.text)
        found = causes.found
      }
    } finally {
      console.log(await writeTrainingReport(trained, outputDir, found))
    }
    return 0
  },
})
