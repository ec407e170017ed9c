import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { CONVERT_FILE_SETTINGS } from '../published/convert.js'

export const convert = commandRule({
  name: 'convert',
  summary:
    "Convert the HumDial challenge's dialogs to training data: a JSON list for training, scoring and trajectories.",
  details: `  voxtorch salmonn convert task1_3.jsonl dialogs.json --valid 0.1

--valid and --test split off complete dialogs, and keep dialogs with common audio files together: OUT.valid.json and OUT.test.json are
written next to OUT.json, which has the rest. Silence between clips is not part of the data; set data.gapSeconds in training.`,
  files: 'IN.jsonl [IN.jsonl ...] OUT.json',
  options: {
    ...CONVERT_FILE_SETTINGS.options,
    validSpeakers: { type: 'list', help: 'speakers whose dialogs are held out for validation' },
    testSpeakers: { type: 'list', help: 'speakers whose dialogs are held out for testing' },
    onBadRecord: {
      type: ['stop', 'skip'],
      help: 'stop at an invalid dialog, or skip and count it',
      default: 'stop',
    },
    skipBad: { type: 'boolean', help: 'same as --on-bad-record skip', hidden: true },
  },
  async run({ skipBad, onBadRecord, ...options }, files) {
    const output = files.at(-1)
    const inputs = files.slice(0, -1)
    if (output === undefined || inputs.length === 0)
      throw new ConfigError('salmonn convert: expected IN.jsonl and OUT.json, got fewer files. Pass both.', {})
    if (inputs.includes(output))
      throw new ConfigError(`salmonn convert: expected an output file that is not an input, got ${output}.`, {})
    const { convertHumDialFile } = await import('../published/convert.js')
    const onBadItem = skipBad ? 'skip' : onBadRecord
    const found = await convertHumDialFile(inputs, output, defined({ ...options, onBadItem }))
    for (const { file, dialogs } of found.files) console.log(`${file}: ${dialogs} dialog${dialogs === 1 ? '' : 's'}`)
    const { withoutTarget, withoutEmotions, badItems, badItemErrors, missingAudio } = found
    if (withoutTarget > 0)
      console.log(`${withoutTarget} have no last reply: they can be used for inference, but not for training`)
    if (withoutEmotions > 0) console.log(`${withoutEmotions} do not have all emotions`)
    if (badItems > 0) console.log(`${badItems} left out; the first: ${badItemErrors[0]?.message}`)
    if (missingAudio.count > 0) {
      console.log(
        `${missingAudio.count} audio files do not exist relative to the new file, such as ${missingAudio.first}: set data.audioRoot to their base folder`,
      )
    }
    return 0
  },
})
