import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'

export const convert = commandRule({
  name: 'convert',
  summary:
    "Makes training data of the HumDial challenge's dialogs: a JSON list that training, scoring and trajectories read.",
  details: `  voxtorch salmonn convert task1_3.jsonl dialogs.json --valid 0.1

With --valid or --test whole dialogs are divided, those that share sound files together: OUT.valid.json and OUT.test.json stand
beside OUT.json, which then has the rest. Silence between clips is not written into the data: the training's data.gapSeconds
says it.`,
  files: 'IN.jsonl [IN.jsonl ...] OUT.json',
  options: {
    valid: { kind: 'share', help: 'of the dialogs, to choose the best weights by', preset: 0 },
    test: { kind: 'share', help: 'of the dialogs, to measure with', preset: 0 },
    seed: { kind: 'whole', help: 'of what is drawn', preset: 42 },
    validSpeakers: { kind: 'list', help: 'hold out whoever speaks in these' },
    testSpeakers: { kind: 'list', help: 'likewise' },
    language: { kind: ['zh', 'en'], help: 'of the request', preset: 'that of the dialog' },
    style: {
      kind: ['labelled', 'plain'],
      help: 'whether it says whose words each line holds, or has the bare lines, as the published file',
      preset: 'labelled',
    },
    task: { kind: 'text', help: 'what the items are called', preset: 'task1_emotional_trajectory' },
    onBadRecord: {
      kind: ['stop', 'skip'],
      help: 'what a dialog that cannot be used does; skip counts them',
      preset: 'stop',
    },
    skipBad: { kind: 'flag', help: 'as --on-bad-record skip', hidden: true },
  },
  async run({ skipBad, onBadRecord, ...options }, files) {
    const output = files.at(-1)
    const inputs = files.slice(0, -1)
    if (output === undefined || inputs.length === 0)
      throw new ConfigError('salmonn convert: say IN.jsonl and OUT.json', {})
    if (inputs.includes(output)) throw new ConfigError(`salmonn convert: ${output} cannot be input and output`, {})
    const { convertHumDialFile } = await import('../published/convert.js')
    const onBadItem = skipBad ? 'skip' : onBadRecord
    const found = await convertHumDialFile(inputs, output, defined({ ...options, onBadItem }))
    for (const { file, dialogs } of found.files) console.log(`${file}: ${dialogs} dialog${dialogs === 1 ? '' : 's'}`)
    const { withoutTarget, withoutEmotions, badItems, badItemErrors, missingAudio } = found
    if (withoutTarget > 0) console.log(`${withoutTarget} have no last reply: they can be asked, but not learnt from`)
    if (withoutEmotions > 0) console.log(`${withoutEmotions} do not tell all emotions`)
    if (badItems > 0) console.log(`${badItems} left out; the first: ${badItemErrors[0]?.message}`)
    if (missingAudio.count > 0) {
      console.log(
        `${missingAudio.count} sound files are not there, seen from the new file, such as ${missingAudio.first}: say data.audioRoot, the folder that they are relative to`,
      )
    }
    return 0
  },
})
