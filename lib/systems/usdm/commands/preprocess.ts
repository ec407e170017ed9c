import { defined } from '../../../base/check.js'
import { commandRule } from '../../../kit/command.js'
import { missingOption } from '../../../kit/options.js'
import { USDM_OPTIONS } from '../configuration/arguments.js'
import { DAILYTALK_SETTINGS, PREPROCESS_SETTINGS } from '../configuration/settings.js'
import type { PreprocessedFile } from '../data/preprocess.js'

export const preprocess = commandRule({
  name: 'preprocess',
  summary: 'Convert spoken dialogs to training examples for USDM: token ids of units, transcripts and replies.',
  details: `  voxtorch usdm preprocess --data DAILYTALK/data --model-cache-dir CACHE
  voxtorch usdm preprocess --data turns.jsonl --model smollm2-135m-instruct --encoder whisper-base --kmeans 500.npy --layer 4 --output turns.txt

For DailyTalk, the clips are <data>/<dialog>/<id>.wav, and the phone files of its repository contain speakers and text; writes train.txt
and test.txt. A JSONL file has one turn per line, {"dialog": "a", "turn": 0, "speaker": "ann", "text": "Hello.", "wav": "0.wav"}; writes
one file. Units are cached next to the output, so an interrupted run continues.`,
  options: {
    data: {
      type: 'string',
      help: "DailyTalk's folder of clips, or a JSONL file of turns",
      placeholder: 'path',
      aliases: ['data_dir'],
    },
    ...USDM_OPTIONS,
    ...DAILYTALK_SETTINGS.options,
    ...PREPROCESS_SETTINGS.options,
    audioRoot: { type: 'string', help: 'folder that clip paths in a JSONL file are relative to', placeholder: 'dir' },
  },
  async run(args) {
    const { data, output, audioRoot, batchSeconds, progress } = args
    if (data === undefined)
      throw missingOption('data', 'the folder of dialogs or a JSONL file', 'DIR or --data FILE.jsonl')
    const isJsonl = /\.jsonl$/i.test(data)
    if (isJsonl && output === undefined) throw missingOption('output', 'the file to write', 'FILE')
    const { preprocessDailyTalk, preprocessUsdmJsonl } = await import('../data/preprocess.js')
    const { countedWindows, modelCacheOf, unitExtractorOfArguments, usdmTokenizerOfArguments } = await import(
      '../configuration/apply.js'
    )
    using extractor = await unitExtractorOfArguments(args)
    const windows = countedWindows()
    const shared = {
      ...{ ...PREPROCESS_SETTINGS.fromOptions(args), ...defined({ modelCacheDir: modelCacheOf(args) }) },
      tokenizer: await usdmTokenizerOfArguments(args, args.units ?? extractor.units),
      units: extractor,
      extract: defined({ batchSeconds, progress, onWindows: windows.onWindows }),
    }
    if (isJsonl) {
      report(await preprocessUsdmJsonl({ ...shared, data, output: output as string, ...defined({ audioRoot }) }))
    } else {
      const files = { ...DAILYTALK_SETTINGS.fromOptions(args), dataDir: data }
      const { train, test } = await preprocessDailyTalk({ ...shared, ...files })
      report(train)
      report(test)
    }
    const summary = windows.line()
    if (summary !== null) console.log(summary)
    return 0
  },
})

function report({ file, examples, dialogs, dropped, tooLong, badRecords, badRecordErrors }: PreprocessedFile): void {
  const left = [
    dropped.length > 0 && `${dropped.length} dialogs in which a speaker has two turns in a row (${dropped.join(', ')})`,
    tooLong > 0 && `${tooLong} examples that are too long`,
    badRecords > 0 && `${badRecords} that cannot be used, first error: ${badRecordErrors[0]?.message}`,
  ].filter(Boolean)
  console.log(
    `${file}: ${examples} examples from ${dialogs} dialogs${left.length > 0 ? `; dropped ${left.join('; ')}` : ''}`,
  )
}
