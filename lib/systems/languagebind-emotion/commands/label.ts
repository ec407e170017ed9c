import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import type { Device } from '../../../tensor/index.js'

export const label = commandRule({
  name: 'label',
  summary: 'Says what is felt in recordings, turn by turn, or in dialogs of a file.',
  details: `  voxtorch emotion talk.wav film.mp4 --model emotion/best
  voxtorch emotion label dialogs.jsonl --model emotion/best --output labelled.jsonl --report strip.html

Whisper writes what is said in a recording and when; each turn is classified. A JSONL file, ECF's JSON or MELD's table brings its
dialogs itself. A line for each utterance goes to the output, and a page with a strip of each dialog to the report. Where causes
were learnt beside the model (--causes of the training), arrows lead from them to what they caused.`,
  files: 'FILE ...',
  options: {
    model: { kind: 'text', help: 'a trained classifier', value: 'dir', preset: 'emotion/best' },
    whisper: { kind: 'text', help: 'who writes down what is said', value: 'model', preset: 'whisper-base' },
    language: { kind: 'text', help: 'a code or an English name; else it is detected', value: 'name' },
    pause: { kind: 'number', help: 'seconds of silence that end a turn', preset: 0.8 },
    clips: { kind: 'text', help: 'the folder of clips, for files of dialogs', value: 'dir' },
    onBadRecord: { kind: ['stop', 'skip'], help: 'what a record or a clip that cannot be used does', preset: 'stop' },
    output: { kind: 'text', help: 'a JSONL file; else lines are printed', value: 'file' },
    report: { kind: 'text', help: 'the page', value: 'file', preset: 'emotions.html' },
    device: { kind: 'text', help: 'such as cpu or cuda', preset: 'cpu' },
  },
  async run(
    { model = 'emotion/best', whisper = 'whisper-base', language, pause, clips, onBadRecord, output, report, device },
    files,
  ) {
    if (files.length === 0) throw new ConfigError('emotion: which file? See `voxtorch emotion label --help`.')
    const { extname } = await import('node:path')
    const { defined } = await import('../../../base/check.js')
    const { writeJsonl } = await import('../../../files/json/jsonl.js')
    const { EmotionClassifier } = await import('../network/network.js')
    const { labelDialogs, turnsOf } = await import('../answer/label.js')
    const { readDialogs } = await import('../data/open.js')
    const { writeEmotionReport } = await import('../answer/report-files.js')
    const factory = defined({ device: device as Device | undefined })
    const classifier = await EmotionClassifier.fromPretrained(model, factory)
    const isData = (file: string) => ['.json', '.jsonl', '.csv'].includes(extname(file).toLowerCase())
    const dialogs = []
    let listener: import('../../../models/whisper/whisper.js').Whisper | undefined
    for (const file of files) {
      if (isData(file)) dialogs.push(...(await readDialogs(file, defined({ clips, onBadRecord }))).dialogs)
      else {
        const { Whisper } = await import('../../../models/whisper/whisper.js')
        listener ??= await Whisper.fromPretrained(whisper, factory)
        dialogs.push(await turnsOf(listener, file, defined({ language, pause })))
      }
    }
    const { causesBeside } = await import('../causes/run.js')
    const causes = await causesBeside(model)
    const { BadClips } = await import('../data/bad-clips.js')
    const badClips = new BadClips(onBadRecord ?? 'stop')
    const labelled = await labelDialogs(classifier, dialogs, { ...defined({ causes }), badClips })
    const lines = labelled.flatMap(({ dialog, labels, utterances, causes: why }) =>
      utterances.map(({ emotion, probabilities }, i) => {
        const { id, text, speaker, clip } = dialog.utterances[i] as (typeof dialog.utterances)[number]
        const share = Object.fromEntries(
          labels.map((name, k) => [name, Number((probabilities[k] as number).toFixed(4))]),
        )
        return {
          dialog: dialog.id,
          utterance: id,
          speaker,
          text,
          emotion,
          probabilities: share,
          ...defined({ start: clip?.start, end: clip?.end }),
          ...(why && {
            causes: why.filter(({ effect }) => effect === i).map(({ cause }) => dialog.utterances[cause]?.id),
          }),
        }
      }),
    )
    if (output !== undefined) await writeJsonl(output, lines)
    else {
      for (const { text, emotion, probabilities, start } of lines) {
        const when = start === undefined ? '' : `${start.toFixed(1).padStart(6)} s  `
        console.log(`${when}${emotion.padEnd(9)} ${Math.round(100 * (probabilities[emotion] as number))} %  ${text}`)
      }
    }
    console.log(await writeEmotionReport(report ?? 'emotions.html', labelled, 'Emotions', badClips.note))
    return 0
  },
})
