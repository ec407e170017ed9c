import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { USDM_OPTIONS } from '../configuration/arguments.js'

const { modelCacheDir, encoder, kmeans, layer, batchSeconds, device, progress } = USDM_OPTIONS

export const voiceboxPreprocess = commandRule({
  name: 'voicebox-preprocess',
  summary: 'Writes the file list that a Voicebox is trained on, from all audio files in a folder.',
  details: `  voxtorch usdm voicebox-preprocess --data LibriTTS/dev-clean --data-name libritts --data-split train --model-cache-dir CACHE

Writes <output>/<name>/<split>.txt, a line "audio|units|durations" for each clip, shuffled. No transcripts are needed. Units are cached
next to it, so an interrupted run continues.`,
  options: {
    data: { type: 'string', help: 'folder of audio files', placeholder: 'dir', aliases: ['data_path'] },
    dataName: { type: 'string', help: 'name of the corpus', placeholder: 'name' },
    dataSplit: { type: 'string', help: 'name of the split: train, valid or test', placeholder: 'split' },
    output: { type: 'string', help: 'folder of file lists', placeholder: 'dir', default: 'filelists' },
    unitFolder: {
      type: 'string',
      help: 'folder of cached units',
      placeholder: 'dir',
      default: 'next to the file list',
    },
    ...{ modelCacheDir, encoder, kmeans, layer, batchSeconds, device, progress },
    onBadRecord: { type: ['stop', 'skip'], help: 'action for a clip that cannot be used', default: 'stop' },
    seed: { type: 'integer', help: 'random seed of the shuffle', default: 37 },
  },
  async run(args) {
    const { data, dataName, dataSplit, output, unitFolder, onBadRecord, seed, batchSeconds, progress } = args
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
      ...{ extractor, data, name: dataName, split: dataSplit },
      ...defined({ output, unitFolder, onBadRecord, seed }),
      extract: defined({ batchSeconds, progress }),
    })
    const left = badRecords === 0 ? '' : `; skipped ${badRecords}, first error: ${badRecordErrors[0]?.message}`
    console.log(`${file}: ${clips} clips${left}`)
    return 0
  },
})
