import { defined } from '../../../base/check.js'
import { commandRule } from '../../../kit/command.js'
import { missingOption } from '../../../kit/options.js'
import type { Device } from '../../../tensor/index.js'
import { USDM_OPTIONS } from '../configuration/arguments.js'
import { ALIGN_SETTINGS } from '../configuration/settings.js'

const { device, progress } = USDM_OPTIONS

export const align = commandRule({
  name: 'align',
  summary: 'Find the start and end time of each word in clips, with Whisper as the aligner.',
  details: `  voxtorch usdm align --data LibriTTS/dev-clean --whisper whisper-base

Writes <name>.TextGrid for each audio file, with a tier 'words', which prepare reads. If a clip has a transcript, <name>.txt, its words
are aligned to the clip; otherwise Whisper transcribes it. Existing files are kept, so an interrupted run continues.`,
  options: {
    ...ALIGN_SETTINGS.options,
    whisper: {
      type: 'string',
      help: 'Whisper with a tokenizer: a folder, or the name of published weights',
      placeholder: 'dir',
      default: 'whisper-base',
    },
    ...{ device, progress },
  },
  async run(args) {
    const { data, whisper: from = 'whisper-base', device: place, progress: bar } = args
    if (data === undefined) throw missingOption('data', 'the folder of audio files', 'DIR')
    const { Whisper } = await import('../../../models/whisper/whisper.js')
    const { alignUstm } = await import('../pretraining/align.js')
    using whisper = await Whisper.fromPretrained(from, defined({ device: place as Device | undefined }))
    const { files, aligned, byTranscript, badRecords, badRecordErrors } = await alignUstm({
      ...{ ...ALIGN_SETTINGS.fromOptions(args), whisper, data },
      ...defined({ progress: bar }),
    })
    if (badRecords > 0) console.error(`${badRecords} clips skipped; first error: ${badRecordErrors[0]?.message}`)
    console.log(`${files} TextGrids, ${aligned} written by this run, ${byTranscript} of them from transcripts`)
    return 0
  },
})
