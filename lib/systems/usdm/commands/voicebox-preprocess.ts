import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { USDM_OPTIONS } from '../configuration/arguments.js'
import { VOICEBOX_DATA_SETTINGS } from '../configuration/settings.js'

const { modelCacheDir, encoder, kmeans, layer, batchSeconds, device, progress } = USDM_OPTIONS

export const voiceboxPreprocess = commandRule({
  name: 'voicebox-preprocess',
  summary: 'Write the file list that a Voicebox is trained on, from all audio files in a folder.',
  details: `  voxtorch usdm voicebox-preprocess --data LibriTTS/dev-clean --data-name libritts --data-split train --model-cache-dir CACHE

Writes <output>/<name>/<split>.txt, a line "audio|units|durations" for each clip, shuffled. No transcripts are needed. Units are cached
next to it, so an interrupted run continues.`,
  options: {
    ...VOICEBOX_DATA_SETTINGS.options,
    ...{ modelCacheDir, encoder, kmeans, layer, batchSeconds, device, progress },
  },
  async run(args) {
    const { data, dataName, dataSplit, batchSeconds, progress } = args
    if (data === undefined || dataName === undefined || dataSplit === undefined) {
      throw new ConfigError(
        'voicebox-preprocess: expected --data DIR --data-name NAME --data-split SPLIT, got only some of them.',
        { argument: 'data' },
      )
    }
    const { prepareVoicebox } = await import('../voicebox/prepare.js')
    const { unitExtractorOfArguments } = await import('../configuration/apply.js')
    using extractor = await unitExtractorOfArguments(args)
    const { file, clips, badRecords, badRecordErrors } = await prepareVoicebox({
      ...VOICEBOX_DATA_SETTINGS.fromOptions(args),
      ...{ extractor, data, name: dataName, split: dataSplit },
      extract: defined({ batchSeconds, progress }),
    })
    const left = badRecords === 0 ? '' : `; skipped ${badRecords}, first error: ${badRecordErrors[0]?.message}`
    console.log(`${file}: ${clips} clips${left}`)
    return 0
  },
})
