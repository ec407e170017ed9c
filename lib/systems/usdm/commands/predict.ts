import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { USDM_ANSWER_OPTIONS, USDM_OPTIONS } from '../configuration/arguments.js'

export const predict = commandRule({
  name: 'predict',
  summary: 'Has a USDM answer each turn of spoken dialogs that has an answer, for score.',
  details: `  voxtorch usdm predict --data DAILYTALK/data --test-metadata val_phone.txt --model CACHE --output predictions.jsonl
  voxtorch usdm predict --data turns.jsonl --model runs/usdm --limit 100 --output predictions.jsonl

Writes what was heard, answered and said beside what is right, and the sounds into a folder of the file's name. What is there is not
asked again, so a run that was ended goes on; what another model answered, or the same with other options, is refused. FILE.made-by.json says
which it was.`,
  options: {
    data: {
      kind: 'text',
      help: "DailyTalk's folder of clips, or a JSONL file of turns as preprocess has it",
      value: 'path',
      aliases: ['data_dir'],
    },
    testMetadata: {
      kind: 'text',
      help: "DailyTalk's val_phone.txt",
      value: 'file',
      preset: 'dataset/fine-tuning/dailytalk/raw/test.txt',
      aliases: ['test_metadata_path'],
    },
    audioRoot: { kind: 'text', help: 'what paths of clips in a JSONL file are relative to', value: 'dir' },
    output: { kind: 'text', help: 'the predictions to write', value: 'file.jsonl' },
    limit: { kind: 'whole', help: 'no more turns than these', preset: 'all' },
    ...USDM_ANSWER_OPTIONS,
    onBadRecord: { kind: ['stop', 'skip'], help: 'what a dialog that cannot be used does', preset: 'stop' },
    progress: USDM_OPTIONS.progress,
  },
  async run(given) {
    const { data, testMetadata, audioRoot, output, limit, textOnly = false, onBadRecord, progress } = given
    if (data === undefined || output === undefined) {
      throw new ConfigError('Say what to answer, and what to write: --data DIR --output FILE.jsonl', {
        argument: data === undefined ? 'data' : 'output',
      })
    }
    const isJsonl = /\.jsonl$/i.test(data)
    const unread = isJsonl ? testMetadata : audioRoot
    if (unread !== undefined) {
      throw new ConfigError(isJsonl ? '--test-metadata is for DailyTalk' : '--audio-root is for a JSONL file', {
        argument: isJsonl ? 'testMetadata' : 'audioRoot',
      })
    }
    if (textOnly && given.solverSteps !== undefined) {
      throw new ConfigError('--solver-steps is for answers with sound, and not for --text-only', {
        argument: 'solverSteps',
      })
    }
    const { createHash } = await import('node:crypto')
    const { ProgressBar } = await import('../../../data/progress.js')
    const { DAILYTALK } = await import('../data/preprocess.js')
    const { readUsdmJsonl } = await import('../data/record.js')
    const { readDailyTalk } = await import('../published/dailytalk.js')
    const { usdmOfArguments } = await import('../configuration/apply.js')
    const { predictUsdm } = await import('../evaluation/predict.js')
    const dialogs = isJsonl
      ? await readUsdmJsonl(data, defined({ audioRoot, onBadRecord }))
      : await readDailyTalk(testMetadata ?? `${DAILYTALK}/raw/test.txt`, data, defined({ onBadRecord }))
    if (dialogs.badRecords > 0) {
      console.error(`${dialogs.badRecords} left out; the first: ${dialogs.badRecordErrors[0]?.message}`)
    }
    using usdm = await usdmOfArguments(given)
    const { temperature, topP, topK, strict, maxUnits, solverSteps: steps, seed } = given
    const options = defined({ strict, maxUnits, steps, seed, sampling: defined({ temperature, topP, topK }) })
    const answering = { respond: (wav: string) => usdm.respond(wav, options) }
    const total = dialogs.dialogs.reduce((sum, { turns }) => sum + turns.length - 1, 0)
    using bar = progress
      ? new ProgressBar({ total: Math.min(total, limit ?? total), label: 'replies', unit: 'reply' })
      : undefined
    const made = `${await usdm.fingerprint()} ${JSON.stringify(options)}`
    const predictions = await predictUsdm(answering, dialogs, {
      ...{ output, onReply: () => void bar?.tick(1) },
      fingerprint: createHash('sha256').update(made).digest('hex'),
      ...defined({ limit }),
    })
    const spoken = predictions.filter(({ wav }) => wav !== undefined).length
    console.log(`${output}: ${predictions.length} answers, of which ${spoken} can be heard`)
    return 0
  },
})
