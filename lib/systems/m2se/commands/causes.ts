import { join } from 'node:path'
import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { EMOVERSE_MODEL_OPTIONS } from '../configuration/arguments.js'

// Clips have a folder of their own here, and nothing of them is kept between runs.
const { mediaRoot: _, visionCache: __, ...MODEL } = EMOVERSE_MODEL_OPTIONS

export const causes = commandRule({
  name: 'causes',
  summary: 'Finds what is felt in dialogs, and why: pairs of emotion and cause from nothing but what is said.',
  details: `  voxtorch emoverse causes --model runs/emoverse/model --media ignore --data Subtask_2_test.json --output found.json
  voxtorch emoverse data --ecf Subtask_2_test.json --predicted found.json --part test --all --output questions.json

Writes conversations as ECF's files have them, with the emotions and pairs that were found, and what the official scorer says where DATA
has pairs of its own. --emotions given takes the data's emotions, as the published questions do.`,
  options: {
    ...MODEL,
    data: { kind: 'text', help: 'dialogs: a file of ECF 2.0, of either subtask', value: 'file', aliases: ['dataset'] },
    output: { kind: 'text', help: 'the conversations that are written', value: 'file', preset: 'causes.json' },
    clips: {
      kind: 'text',
      help: 'where the films of the utterances are, for a model that sees',
      value: 'dir',
      preset: 'the words alone',
    },
    emotions: {
      kind: ['predicted', 'given'],
      help: 'who says what is felt: the model or the data',
      preset: 'predicted',
    },
    candidates: { kind: ['all', 'before'], help: 'which utterances can be causes', preset: 'all' },
    wording: {
      kind: 'text',
      help: 'a published file whose texts about causes are taken',
      value: 'file',
      preset: 'ours',
    },
    constrained: { kind: 'flag', help: 'holds answers to pairs of the target and utterances that there are' },
    causeThreshold: {
      kind: 'number',
      help: 'causes that are at least so likely, and the likeliest in any case: no answer is written',
    },
    maxNewTokens: { kind: 'whole', help: 'most tokens of an answer', preset: 64 },
    batchSize: { kind: 'whole', help: 'questions that are answered at a time', preset: 8 },
  },
  async run(given) {
    const { data, output = 'causes.json', clips, emotions, candidates, wording, constrained } = given
    const { causeThreshold, maxNewTokens, batchSize } = given
    if (data === undefined) throw new ConfigError('Say whose causes to find: --data FILE', { argument: 'data' })
    const { readEcf, ecfConversations } = await import('../../../kit/emotion/ecf.js')
    const { scoreEcf, ecfScoreLines } = await import('../../../kit/emotion/ecf-score.js')
    const { writeJson } = await import('../../../files/json/json.js')
    const { emoverseOfArguments } = await import('../configuration/apply.js')
    const { wordingOf } = await import('../data/emoverse.js')
    const { findCauses } = await import('../answer/causes.js')
    const { dialogs } = await readEcf(data)
    const texts = wording === undefined ? undefined : await wordingOf(wording)
    using model = await emoverseOfArguments(given)
    const found = await findCauses(model, dialogs, {
      ...defined({ emotions, candidates, wording: texts, constrained, causeThreshold, maxNewTokens, batchSize }),
      ...(clips !== undefined && {
        film: ({ utterances }, place) => join(clips, `${utterances[place]?.clipName}.mp4`),
      }),
    })
    const predictions = ecfConversations(found.dialogs, { subtask: 2 })
    // What is felt in utterances without a cause too, which pairs do not say.
    const told = predictions.map((one, i) => ({
      ...one,
      conversation: one.conversation.map((utterance, place) => ({
        ...utterance,
        emotion: found.dialogs[i]?.utterances[place]?.emotion as string,
      })),
    }))
    await writeJson(output, told)
    console.log(
      `${output}: ${told.length} dialogs; ${found.unread} parts of answers are no pair, ${found.outside} are outside`,
    )
    if (dialogs.every((dialog) => dialog.causes !== undefined)) {
      const gold = ecfConversations(dialogs, { subtask: 2 })
      for (const line of ecfScoreLines(await scoreEcf({ subtask: 2, gold, predictions }))) console.log(line)
    }
    return 0
  },
})
