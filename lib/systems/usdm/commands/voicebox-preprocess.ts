import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { USDM_OPTIONS } from '../configuration/arguments.js'

const { modelCacheDir, encoder, kmeans, layer, batchSeconds, device, progress } = USDM_OPTIONS

export const voiceboxPreprocess = commandRule({
  name: 'voicebox-preprocess',
  summary: 'Makes the file list that a Voicebox is trained on, of all sound files below a folder.',
  details: `  voxtorch usdm voicebox-preprocess --data LibriTTS/dev-clean --data-name libritts --data-split train --model-cache-dir CACHE

Writes <output>/<name>/<split>.txt, a line "audio|units|durations" for each clip, shuffled. No transcripts are needed. Units are kept
beside it, and a run that was ended goes on.`,
  options: {
    data: { kind: 'text', help: 'the folder of sound files', value: 'dir', aliases: ['data_path'] },
    dataName: { kind: 'text', help: 'what the corpus is called', value: 'name' },
    dataSplit: { kind: 'text', help: 'which part of it this is: train, valid or test', value: 'split' },
    output: { kind: 'text', help: 'the folder of file lists', value: 'dir', preset: 'filelists' },
    unitFolder: { kind: 'text', help: 'where units are kept', value: 'dir', preset: 'beside the file list' },
    ...{ modelCacheDir, encoder, kmeans, layer, batchSeconds, device, progress },
    onBadRecord: { kind: ['stop', 'skip'], help: 'what a clip that cannot be used does', preset: 'stop' },
    seed: { kind: 'whole', help: 'of the order', preset: 37 },
  },
  async run(given) {
    const { data, dataName, dataSplit, output, unitFolder, onBadRecord, seed, batchSeconds, progress } = given
    if (data === undefined || dataName === undefined || dataSplit === undefined) {
      throw new ConfigError(
        'Say which clips, and what they are called: --data DIR --data-name NAME --data-split SPLIT',
        {
          argument: 'data',
        },
      )
    }
    const { prepareVoicebox } = await import('../voicebox/prepare.js')
    const { unitExtractorOfArguments } = await import('../configuration/apply.js')
    using extractor = await unitExtractorOfArguments(given)
    const { file, clips, badRecords, badRecordErrors } = await prepareVoicebox({
      ...{ extractor, data, name: dataName, split: dataSplit },
      ...defined({ output, unitFolder, onBadRecord, seed }),
      extract: defined({ batchSeconds, progress }),
    })
    const left = badRecords === 0 ? '' : `; left out ${badRecords}, the first: ${badRecordErrors[0]?.message}`
    console.log(`${file}: ${clips} clips${left}`)
    return 0
  },
})
