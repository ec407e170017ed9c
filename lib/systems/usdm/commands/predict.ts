import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { USDM_ANSWER_OPTIONS, USDM_OPTIONS } from '../configuration/arguments.js'
import { DAILYTALK_SETTINGS, PREPROCESS_SETTINGS, SAMPLING_SETTINGS } from '../configuration/settings.js'

export const predict = commandRule({
  name: 'predict',
  summary: 'Generate replies to the turns of spoken dialogs, as input of `usdm score`.',
  details: `  voxtorch usdm predict --data DAILYTALK/data --test-metadata val_phone.txt --model CACHE --output predictions.jsonl
  voxtorch usdm predict --data turns.jsonl --model runs/usdm --limit 100 --output predictions.jsonl

Writes the transcript and reply of each turn with their references, and the audio into a folder of the file's name. Turns that are in the
output already are skipped, so an interrupted run continues. An output that another model or other options wrote is an error;
FILE.provenance-by.json holds the fingerprint of the model and options.`,
  options: {
    data: {
      type: 'string',
      help: "DailyTalk's folder of clips, or a JSONL file of turns as preprocess reads it",
      placeholder: 'path',
      aliases: ['data_dir'],
    },
    testMetadata: DAILYTALK_SETTINGS.table.testMetadata,
    audioRoot: { type: 'string', help: 'folder that clip paths in a JSONL file are relative to', placeholder: 'dir' },
    output: { type: 'string', help: 'file of predictions to write', placeholder: 'file.jsonl' },
    limit: { type: 'integer', help: 'maximum number of turns', default: 'all' },
    ...USDM_ANSWER_OPTIONS,
    onBadRecord: PREPROCESS_SETTINGS.table.onBadRecord,
    progress: USDM_OPTIONS.progress,
  },
  async run(args) {
    const { data, testMetadata, audioRoot, output, limit, textOnly = false, onBadRecord, progress } = args
    if (data === undefined || output === undefined) {
      throw new ConfigError('predict: expected --data PATH and --output FILE.jsonl, got only one or neither.', {
        argument: data === undefined ? 'data' : 'output',
      })
    }
    const isJsonl = /\.jsonl$/i.test(data)
    const unread = isJsonl ? testMetadata : audioRoot
    if (unread !== undefined) {
      throw new ConfigError(
        isJsonl
          ? '--test-metadata: expected with DailyTalk data, got a JSONL file. Leave it out.'
          : '--audio-root: expected with a JSONL file, got a folder. Leave it out.',
        { argument: isJsonl ? 'testMetadata' : 'audioRoot' },
      )
    }
    if (textOnly && args.solverSteps !== undefined) {
      throw new ConfigError('--solver-steps: expected with audio output, got --text-only. Leave out one of the two.', {
        argument: 'solverSteps',
      })
    }
    const { createHash } = await import('node:crypto')
    const { ProgressBar } = await import('../../../data/progress.js')
    const { readUsdmJsonl } = await import('../data/record.js')
    const { readDailyTalk } = await import('../published/dailytalk.js')
    const { usdmOfArguments } = await import('../configuration/apply.js')
    const { predictUsdm } = await import('../evaluation/predict.js')
    const dialogs = isJsonl
      ? await readUsdmJsonl(data, defined({ audioRoot, onBadRecord }))
      : await readDailyTalk(testMetadata ?? DAILYTALK_SETTINGS.defaults.testMetadata, data, defined({ onBadRecord }))
    if (dialogs.badRecords > 0) {
      console.error(`${dialogs.badRecords} records skipped; first error: ${dialogs.badRecordErrors[0]?.message}`)
    }
    using usdm = await usdmOfArguments(args)
    const { strict, maxUnits, solverSteps: steps, seed } = args
    const options = { ...defined({ strict, maxUnits, steps, seed }), sampling: SAMPLING_SETTINGS.fromOptions(args) }
    const answering = { respond: (wav: string) => usdm.respond(wav, options) }
    const total = dialogs.dialogs.reduce((sum, { turns }) => sum + turns.length - 1, 0)
    using bar = progress
      ? new ProgressBar({ total: Math.min(total, limit ?? total), label: 'replies', unit: 'reply' })
      : undefined
    const provenance = `${await usdm.fingerprint()} ${JSON.stringify(options)}`
    const predictions = await predictUsdm(answering, dialogs, {
      ...{ output, onReply: () => void bar?.tick(1) },
      fingerprint: createHash('sha256').update(provenance).digest('hex'),
      ...defined({ limit }),
    })
    const spoken = predictions.filter(({ wav }) => wav !== undefined).length
    console.log(`${output}: ${predictions.length} replies, ${spoken} with audio`)
    return 0
  },
})
