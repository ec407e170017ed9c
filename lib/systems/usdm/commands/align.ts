import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import type { Device } from '../../../tensor/index.js'
import { USDM_OPTIONS } from '../configuration/arguments.js'

const { device, progress } = USDM_OPTIONS

export const align = commandRule({
  name: 'align',
  summary: 'Finds when each word of clips is said, with Whisper in place of an aligner.',
  details: `  voxtorch usdm align --data LibriTTS/dev-clean --whisper whisper-base

Writes <name>.TextGrid of each sound file, with a tier 'words', which prepare reads. Of a clip with a transcript, <name>.txt, its words
are found in it; of one without, those that Whisper hears. What is there stays, so a run that was ended goes on.`,
  options: {
    data: { kind: 'text', help: 'the folder of sound files', value: 'dir', aliases: ['data_path'] },
    whisper: { kind: 'text', help: 'a Whisper with a tokenizer: a folder, or the name of published weights', value: 'dir', preset: 'whisper-base' }, // biome-ignore format: one line
    transcripts: { kind: 'text', help: 'the folder of transcripts', value: 'dir', preset: 'that of --data' },
    output: { kind: 'text', help: 'the folder to write', value: 'dir', preset: '--data with -textgrid behind it' },
    language: { kind: 'text', help: 'that is spoken', value: 'code', preset: 'en' },
    onBadRecord: { kind: ['stop', 'skip'], help: 'what a clip that cannot be aligned does', preset: 'stop' },
    ...{ device, progress },
  },
  async run({ data, whisper: from = 'whisper-base', device: place, ...given }) {
    if (data === undefined) throw new ConfigError('Say where the clips are: --data DIR', { argument: 'data' })
    const { Whisper } = await import('../../../models/whisper/whisper.js')
    const { alignUstm } = await import('../pretraining/align.js')
    using whisper = await Whisper.fromPretrained(from, defined({ device: place as Device | undefined }))
    const { transcripts, output, language, onBadRecord, progress: bar } = given
    const { files, aligned, byTranscript, badRecords, badRecordErrors } = await alignUstm({
      ...{ whisper, data },
      ...defined({ transcripts, output, language, onBadRecord, progress: bar }),
    })
    if (badRecords > 0) console.error(`${badRecords} left out; the first: ${badRecordErrors[0]?.message}`)
    console.log(`${files} TextGrids, of which ${aligned} were made now, ${byTranscript} by their transcripts`)
    return 0
  },
})
