import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { USDM_OPTIONS } from '../configuration/arguments.js'
import type { PreprocessedFile } from '../data/preprocess.js'

export const preprocess = commandRule({
  name: 'preprocess',
  summary: 'Makes of spoken dialogs what USDM is fine-tuned on: units, transcripts and replies as token ids.',
  details: `  voxtorch usdm preprocess --data DAILYTALK/data --model-cache-dir CACHE
  voxtorch usdm preprocess --data turns.jsonl --model smollm2-135m-instruct --encoder whisper-base --kmeans 500.npy --layer 4 --output turns.txt

DailyTalk: the clips are <data>/<dialog>/<id>.wav, and the phone files of its repository say who says what; writes train.txt and
test.txt. A JSONL file has a line for each turn, {"dialog": "a", "turn": 0, "speaker": "ann", "text": "Hello.", "wav": "0.wav"}; writes
one file. Units are kept beside what is written, and a run that was ended goes on.`,
  options: {
    data: {
      kind: 'text',
      help: "DailyTalk's folder of clips, or a JSONL file of turns",
      value: 'path',
      aliases: ['data_dir'],
    },
    ...USDM_OPTIONS,
    trainMetadata: {
      kind: 'text',
      help: "DailyTalk's train_phone.txt",
      value: 'file',
      preset: 'dataset/fine-tuning/dailytalk/raw/train.txt',
      aliases: ['train_metadata_path'],
    },
    testMetadata: {
      kind: 'text',
      help: "DailyTalk's val_phone.txt",
      value: 'file',
      preset: 'dataset/fine-tuning/dailytalk/raw/test.txt',
      aliases: ['test_metadata_path'],
    },
    output: {
      kind: 'text',
      help: 'the folder, or of a JSONL file the file, to write',
      value: 'path',
      preset: 'dataset/fine-tuning/dailytalk/preprocessed',
      aliases: ['output_path'],
    },
    unitFolder: { kind: 'text', help: 'where units are kept', value: 'dir', preset: 'units beside the output' },
    template: { kind: ['single', 'multi'], help: 'each two turns, or whole dialogs', preset: 'single' },
    maxLength: { kind: 'whole', help: 'longer examples are left out', preset: 8192 },
    audioRoot: { kind: 'text', help: 'what paths of clips in a JSONL file are relative to', value: 'dir' },
    onBadRecord: { kind: ['stop', 'skip'], help: 'what a dialog that cannot be used does', preset: 'stop' },
    seed: { kind: 'whole', help: 'of the order', preset: 42 },
  },
  async run(given) {
    const { data, output, trainMetadata, testMetadata, audioRoot, onBadRecord } = given
    const { unitFolder, template, maxLength, seed, batchSeconds, progress } = given
    if (data === undefined) {
      throw new ConfigError('Say where the dialogs are: --data DIR, or --data FILE.jsonl', { argument: 'data' })
    }
    const isJsonl = /\.jsonl$/i.test(data)
    if (isJsonl && output === undefined)
      throw new ConfigError('Say what to write: --output FILE', { argument: 'output' })
    const { preprocessDailyTalk, preprocessUsdmJsonl } = await import('../data/preprocess.js')
    const { countedWindows, modelCacheOf, unitExtractorOfArguments, usdmTokenizerOfArguments } = await import(
      '../configuration/apply.js'
    )
    using extractor = await unitExtractorOfArguments(given)
    const windows = countedWindows()
    const making = defined({
      ...{ unitFolder, template, maxLength, seed, onBadRecord, modelCacheDir: modelCacheOf(given) },
      tokenizer: await usdmTokenizerOfArguments(given, given.units ?? extractor.units),
      units: extractor,
      extract: defined({ batchSeconds, progress, onWindows: windows.onWindows }),
    })
    if (isJsonl) {
      tell(await preprocessUsdmJsonl({ ...making, data, output: output as string, ...defined({ audioRoot }) }))
    } else {
      const files = defined({ trainMetadata, testMetadata, output })
      const { train, test } = await preprocessDailyTalk({ ...making, ...files, dataDir: data })
      tell(train)
      tell(test)
    }
    const told = windows.line()
    if (told !== null) console.log(told)
    return 0
  },
})

function tell({ file, examples, dialogs, dropped, tooLong, badRecords, badRecordErrors }: PreprocessedFile): void {
  const left = [
    dropped.length > 0 && `${dropped.length} dialogs in which someone speaks twice in a row (${dropped.join(', ')})`,
    tooLong > 0 && `${tooLong} examples that are too long`,
    badRecords > 0 && `${badRecords} that cannot be used, the first: ${badRecordErrors[0]?.message}`,
  ].filter(Boolean)
  console.log(
    `${file}: ${examples} examples of ${dialogs} dialogs${left.length > 0 ? `; left out ${left.join('; ')}` : ''}`,
  )
}
