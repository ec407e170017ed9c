import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readArchive, readJson } from '../../../lib/files/index.js'
import { ConfigError, DataError } from '../../../lib/index.js'
import { EMOTIONS } from '../../../lib/kit/emotion/dialog.js'
import { type EcfConversation, readEcf } from '../../../lib/kit/emotion/ecf.js'
import {
  areOfficial,
  ecfScoreLines,
  scoreCauses,
  scoreEcf,
  writeEcfSubmission,
} from '../../../lib/kit/emotion/ecf-score.js'
import { cleanSpan, spanPosition, wholeSpan } from '../../../lib/kit/emotion/span.js'
import { fixturePath } from '../../helpers.js'
import { data, file, folder, hasData } from './helpers.js'

interface Case {
  name: string
  subtask: 1 | 2
  gold: EcfConversation[]
  pred: EcfConversation[]
  scores: Record<string, number>
}
const cases: Case[] = JSON.parse(readFileSync(fixturePath('emotion/ecf-score.json'), 'utf8'))

function expectScores(found: object, wanted: Record<string, number>) {
  const lines = ecfScoreLines(found as never).map((line) => line.split(':') as [string, string])
  expect(lines.map(([key]) => key)).toEqual(Object.keys(wanted))
  for (const [key, value] of lines)
    expect(Math.abs(Number(value) - (wanted[key] as number)), key).toBeLessThanOrEqual(1e-9)
}

describe('scoreEcf', () => {
  // From test/reference/ecf_score.py: wrong emotions, wrong causes, spans off by one, later causes, pairs twice or lost.
  it.each(cases.map((each) => [`subtask ${each.subtask}: ${each.name}`, each] as const))(
    'says what the official scorer says, %s',
    async (_name, { subtask, gold, pred, scores }) => {
      expectScores(await scoreEcf({ subtask, gold, predictions: pred }), scores)
      expectScores(await scoreEcf({ subtask, gold: file(gold), predictions: file(pred) }), scores)
    },
  )

  const forms: (Case & { what: string; scores: Record<string, number> | null })[] = JSON.parse(
    readFileSync(fixturePath('emotion/ecf-forms.json'), 'utf8'),
  )
  it.each(forms.map((each) => [`subtask ${each.subtask}: ${each.what}`, each] as const))(
    'takes what the official scorer takes, %s',
    async (_name, { subtask, gold, pred, scores }) => {
      const found = scoreEcf({ subtask, gold, predictions: file(pred) })
      if (scores === null) await expect(found).rejects.toThrow(DataError)
      else expectScores(await found, scores)
    },
  )

  it('takes what overlaps most, and a true span as often as it is met', async () => {
    const gold = [
      conversation([
        ['1_joy', '1_a b'],
        ['1_joy', '1_c d e f'],
        ['1_anger', '1_a'],
      ]),
    ]
    const said = (...pairs: [string, string][]) => scoreEcf({ subtask: 1, gold, predictions: [conversation(pairs)] })
    // [1, 4) covers half of [0, 2) and half of [2, 6), where it has more words.
    const one = await said(['1_joy', '1_1_4'])
    expect(one.proportionalPrecision).toBeCloseTo(2 / 3, 7)
    expect(one.proportionalRecall).toBeCloseTo(2 / (4 + 2 + 1), 7)
    const two = await said(['1_joy', '1_0_1'], ['1_joy', '1_1_2'])
    expect(two.proportionalRecall).toBeCloseTo(2 / (2 + 2 + 4 + 1), 7)
    expect(two.strictF1).toBe(0)
    const other = await said(['1_anger', '1_0_2'])
    expect([other.proportionalPrecision, other.proportionalRecall]).toEqual([
      expect.closeTo(1 / 2, 7),
      expect.closeTo(1 / 7, 7),
    ])
  })

  it.each<[string, 1 | 2, [string, string][], RegExp]>([
    ['an unknown emotion', 2, [['1_love', '1']], /expected an emotion of/],
    ['no emotion', 2, [['1', '1']], /expected an emotion of/],
    ['letters in a span', 1, [['1_joy', '1_a b']], /expected a span of word numbers/],
    ['no span', 1, [['1_joy', '1']], /expected a span of word numbers/],
    ['no number', 2, [['1_joy', 'x']], /expected numbers of utterances/],
    ['no pair', 2, [['1_joy'] as never], /expected a list of two strings/],
  ])('gives up where the official one does: %s', async (_what, subtask, pairs, message) => {
    const gold = [conversation(subtask === 1 ? [['1_joy', '1_a']] : [['1_joy', '1']])]
    const found = scoreEcf({ subtask, gold, predictions: [conversation(pairs)] })
    await expect(found).rejects.toThrow(message)
    await expect(found).rejects.toThrow(DataError)
  })

  it('gives up where a conversation is missing, stands twice or has no pairs', async () => {
    const gold = [conversation([['1_joy', '1']])]
    const { 'emotion-cause_pairs': _, ...open } = conversation([])
    await expect(scoreEcf({ subtask: 2, gold, predictions: [] })).rejects.toThrow(
      /conversation 1: expected a prediction/,
    )
    await expect(scoreEcf({ subtask: 2, gold, predictions: [...gold, ...gold] })).rejects.toThrow(
      /expected one conversation with ID 1, got two/,
    )
    await expect(scoreEcf({ subtask: 2, gold, predictions: [open] })).rejects.toThrow(
      /emotion-cause_pairs: expected a list/,
    )
    await expect(scoreEcf({ subtask: 2, gold, predictions: 7 as never })).rejects.toThrow(ConfigError)
    await expect(scoreEcf({ subtask: 3 as never, gold, predictions: gold })).rejects.toThrow(ConfigError)
    await expect(scoreEcf({ subtask: 2, gold, predictions: gold, strict: true } as never)).rejects.toThrow(ConfigError)
  })
})

function conversation(pairs: [string, string][]): EcfConversation {
  const conversation = [{ utterance_ID: 1, text: 'a b c d e f .', speaker: 'A', emotion: 'joy' }]
  return { conversation_ID: 1, conversation, 'emotion-cause_pairs': pairs }
}

describe('spans', () => {
  it('lose the punctuation around them', () => {
    expect(cleanSpan(' , ( so ) it is ... ')).toBe('so ) it is')
    expect(cleanSpan("'cause it 's")).toBe("cause it 's")
    expect(() => cleanSpan(' ?! ')).toThrow(DataError)
    expect(() => cleanSpan('')).toThrow(DataError)
  })

  it('stand where their words first stand', () => {
    expect(spanPosition('a b', 'b a a b a b')).toEqual([2, 4])
    expect(spanPosition('a b', 'ab')).toEqual([0, 0])
    expect(spanPosition('a b c', 'a b')).toEqual([0, 0])
  })

  it('are the whole text without its marks, unless one knows better', () => {
    expect(wholeSpan('Oh , no ... ?!')).toEqual([0, 3])
    expect(wholeSpan('... so')).toEqual([1, 2])
    expect(wholeSpan('?! ...')).toEqual([0, 2])
    expect(wholeSpan('')).toEqual([0, 0])
  })
})

describe('scoreCauses', () => {
  it('says of dialogs what the official scorer says of their files', async () => {
    const read = async (list: EcfConversation[]) => (await readEcf(file(list), { subtask: 2 })).dialogs
    for (const { gold, pred, scores } of cases.filter(({ subtask }) => subtask === 2)) {
      const truth = await read(gold)
      const said = await read(pred.filter((one) => one.conversation.length > 0))
      const found = truth.map(({ id }) => said.find((one) => one.id === id)!)
      expectScores(scoreCauses(truth, found, EMOTIONS), scores)
    }
  })

  it('takes emotions of any name, of which neutral does not count', () => {
    const dialog = (...causes: [number, number, string][]) => [
      {
        ...{ id: 'a', source: 'x.jsonl, dialog a', utterances: [] },
        causes: causes.map(([effect, cause, emotion]) => ({ effect, cause, emotion })),
      },
    ]
    const names = ['calm', 'wild_rage', 'neutral']
    const truth = dialog([0, 0, 'calm'], [1, 0, 'wild_rage'], [1, 0, 'wild_rage'], [2, 2, 'neutral'])
    const found = dialog([0, 0, 'calm'], [1, 0, 'calm'], [2, 2, 'neutral'])
    // calm: 1 of 2 is right, 1 of 1 found, F1 2/3; wild_rage: none.
    const scores = scoreCauses(truth, found, names)
    expect(scores.f1Pair).toBeCloseTo(0.5, 6)
    expect(scores.weightedF1).toBeCloseTo(1 / 3, 6)
    expect(() => scoreCauses(truth, found, ['calm', 'neutral'])).toThrow(
      /x.jsonl, dialog a: emotion of a cause: expected one of calm, neutral, got "wild_rage"/,
    )
    expect([areOfficial(EMOTIONS), areOfficial(names)]).toEqual([true, false])
  })
})

describe('writeEcfSubmission', () => {
  it('writes a zip that the scorer takes, the same each time', async () => {
    const dialogs = (await readEcf(file([conversation([['1_joy', '1_b c']])]))).dialogs
    const path = join(folder(), 'a.zip')
    await writeEcfSubmission(path, { subtask1: dialogs, subtask2: dialogs })
    const again = join(folder(), 'b.zip')
    await writeEcfSubmission(again, { subtask1: dialogs, subtask2: dialogs })
    expect(readFileSync(path).equals(readFileSync(again))).toBe(true)
    const found: Record<string, unknown> = {}
    for await (const entry of readArchive(path))
      found[entry.name] = JSON.parse(Buffer.from(await entry.bytes()).toString())
    expect(Object.keys(found)).toEqual(['Subtask_1_pred.json', 'Subtask_2_pred.json'])
    const gold = [conversation([['1_joy', '1_b c']])]
    const one = await scoreEcf({ subtask: 1, gold, predictions: found['Subtask_1_pred.json'] as EcfConversation[] })
    expect(one.weightedStrictF1).toBeCloseTo(1, 6)
    await expect(writeEcfSubmission(path, {})).rejects.toThrow(ConfigError)
  })
})

// The numbers of evaluate.py itself, which test/reference/ecf_score.py prints.
describe.skipIf(!hasData('ecf'))('the sample submissions', () => {
  const sample = async (subtask: 1 | 2) => {
    const predictions = join(data, `ecf/Subtask_${subtask}_pred.json`)
    const known = ((await readJson(predictions)) as EcfConversation[]).map((each) => each.conversation_ID)
    const train = (await readJson(join(data, 'ecf/Subtask_1_train.json'))) as EcfConversation[]
    const gold = train.filter((each) => known.includes(each.conversation_ID))
    if (subtask === 1) return scoreEcf({ subtask, gold, predictions })
    const pairs = gold.map((each) => ({
      ...each,
      'emotion-cause_pairs': each['emotion-cause_pairs']!.map(([a, b]): [string, string] => [a, b.split('_')[0]!]),
    }))
    return scoreEcf({ subtask, gold: pairs, predictions })
  }

  it('of subtask 1', async () => {
    expectScores(await sample(1), {
      weighted_strict_precision: 0.7403846143509615,
      weighted_strict_recall: 0.730769229576923,
      weighted_strict_f1: 0.717948712037037,
      weighted_Proportional_precision: 0.899140752718649,
      weighted_Proportional_recall: 0.791325695410615,
      weighted_Proportional_f1: 0.8078673414230111,
      strict_precision: 0.7037037034430726,
      strict_recall: 0.7307692304881657,
      strict_f1: 0.7169811268066929,
      Proportional_precision: 0.827102803699668,
      Proportional_recall: 0.7763157894396352,
      Proportional_f1: 0.8009049723443418,
    })
  })

  it('of subtask 2', async () => {
    expectScores(await sample(2), {
      precision_pair: 0.8181818178099173,
      recall_pair: 0.8181818178099173,
      f1_pair: 0.8181818128099173,
      weighted_precision: 0.9220779204035249,
      weighted_recall: 0.8181818165151514,
      weighted_f1: 0.8363636300727273,
    })
  })
})
