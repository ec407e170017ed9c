import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import type { Device } from '../../../tensor/index.js'

export const label = commandRule({
  name: 'label',
  summary: 'Predict the emotion of each turn of recordings, or of each utterance of a data file.',
  details: `  voxtorch emotion talk.wav video.mp4 --model emotion/best
  voxtorch emotion label dialogs.jsonl --model emotion/best --output labels.jsonl --report strip.html

Whisper transcribes a recording and splits it into turns; each turn is classified. A JSONL file, ECF's JSON or MELD's CSV already
has its dialogs. --output receives one line per utterance, --report a page with the emotions of each dialog. If the model was
trained with --causes, arrows lead from each cause to the emotion that it causes.`,
  files: 'FILE ...',
  options: {
    model: { type: 'string', help: 'folder of a trained classifier', placeholder: 'dir', default: 'emotion/best' },
    whisper: {
      type: 'string',
      help: 'Whisper model that transcribes recordings',
      placeholder: 'model',
      default: 'whisper-base',
    },
    language: { type: 'string', help: 'language code or English name; default: detected', placeholder: 'name' },
    pause: { type: 'number', help: 'seconds of silence that end a turn', default: 0.8 },
    clips: { type: 'string', help: 'folder of the clips, for data files', placeholder: 'dir' },
    onBadRecord: {
      type: ['stop', 'skip'],
      help: 'on an unusable record or clip: stop with an error, or skip it',
      default: 'stop',
    },
    output: { type: 'string', help: 'JSONL file; default: print to the terminal', placeholder: 'file' },
    report: { type: 'string', help: 'HTML report', placeholder: 'file', default: 'emotions.html' },
    device: { type: 'string', help: 'device: cpu, cuda or cuda:0', default: 'cpu' },
  },
  async run(
    { model = 'emotion/best', whisper = 'whisper-base', language, pause, clips, onBadRecord, output, report, device },
    files,
  ) {
    if (files.length === 0)
      throw new ConfigError(
        'emotion label: expected at least one FILE, got none. Run `voxtorch emotion label --help` for examples.',
      )
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
    const { causesNextTo } = await import('../causes/run.js')
    const causes = await causesNextTo(model)
    const { BadClips } = await import('../data/bad-clips.js')
    const badClips = new BadClips(onBadRecord ?? 'stop')
    const labeled = await labelDialogs(classifier, dialogs, { ...defined({ causes }), badClips })
    const lines = labeled.flatMap(({ dialog, labels, utterances, causes: why }) =>
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
    console.log(await writeEmotionReport(report ?? 'emotions.html', labeled, 'Emotions', badClips.note))
    return 0
  },
})
