import { join } from 'node:path'
import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { EMOVERSE_MODEL_OPTIONS } from '../configuration/arguments.js'
import { CAUSE_SETTINGS } from '../configuration/settings.js'

// This command has --clips in place of --media-root, and caches nothing between runs.
const { mediaRoot: _, visionCache: __, ...MODEL } = EMOVERSE_MODEL_OPTIONS

export const causes = commandRule({
  name: 'causes',
  summary: 'Find emotions and their causes in dialogs: pairs of emotion and cause from utterances without labels.',
  details: `  voxtorch emoverse causes --model runs/emoverse/model --media ignore --data Subtask_2_test.json --output found.json
  voxtorch emoverse data --ecf Subtask_2_test.json --predicted found.json --part test --all --output questions.json

Writes conversations in ECF's format with the predicted emotions and pairs, and prints the official scorer's result if DATA has pairs.
--emotions given uses the emotions of the data, as the published questions do.`,
  options: {
    ...MODEL,
    data: {
      type: 'string',
      help: 'dialogs: a file of ECF 2.0, of either subtask',
      placeholder: 'file',
      aliases: ['dataset'],
    },
    output: {
      type: 'string',
      help: 'file for the predicted conversations',
      placeholder: 'file',
      default: 'causes.json',
    },
    clips: {
      type: 'string',
      help: "folder with the utterances' videos, for a model with a vision encoder",
      placeholder: 'dir',
      default: 'text only',
    },
    ...CAUSE_SETTINGS.options,
    wording: {
      type: 'string',
      help: 'published file to take the texts about causes from',
      placeholder: 'file',
      default: 'built in',
    },
  },
  async run(values) {
    const { data, output = 'causes.json', clips, wording } = values
    if (data === undefined)
      throw new ConfigError('emoverse causes --data: expected a file of dialogs, got none. Pass --data FILE.', {
        argument: 'data',
      })
    const { readEcf, ecfConversations } = await import('../../../kit/emotion/ecf.js')
    const { scoreEcf, ecfScoreLines } = await import('../../../kit/emotion/ecf-score.js')
    const { writeJson } = await import('../../../files/json/json.js')
    const { emoverseOfArguments } = await import('../configuration/apply.js')
    const { wordingOf } = await import('../data/emoverse.js')
    const { findCauses } = await import('../answer/causes.js')
    const { dialogs } = await readEcf(data)
    const texts = wording === undefined ? undefined : await wordingOf(wording)
    using model = await emoverseOfArguments(values)
    const found = await findCauses(model, dialogs, {
      ...{ ...CAUSE_SETTINGS.fromOptions(values), ...defined({ wording: texts }) },
      ...(clips !== undefined && {
        videoOf: ({ utterances }, place) => join(clips, `${utterances[place]?.clipName}.mp4`),
      }),
    })
    const predictions = ecfConversations(found.dialogs, { subtask: 2 })
    // Add the emotions of utterances without a cause, which are not part of any pair.
    const conversations = predictions.map((one, i) => ({
      ...one,
      conversation: one.conversation.map((utterance, place) => ({
        ...utterance,
        emotion: found.dialogs[i]?.utterances[place]?.emotion as string,
      })),
    }))
    await writeJson(output, conversations)
    console.log(
      `${output}: ${conversations.length} dialogs; ${found.unread} parts of answers did not parse as a pair, ${found.outside} pairs are outside the dialog`,
    )
    if (dialogs.every((dialog) => dialog.causes !== undefined)) {
      const gold = ecfConversations(dialogs, { subtask: 2 })
      for (const line of ecfScoreLines(await scoreEcf({ subtask: 2, gold, predictions }))) console.log(line)
    }
    return 0
  },
})
