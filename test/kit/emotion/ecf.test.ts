import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ConfigError, DataError } from '../../../lib/index.js'
import { type EcfConversation, ecfConversations, readEcf } from '../../../lib/kit/emotion/ecf.js'
import { data, file, folder, hasData } from './helpers.js'

const said = (...texts: string[]) =>
  texts.map((text, i) => ({ utterance_ID: i + 1, text, speaker: 'AB'[i % 2] as string, emotion: 'joy' }))

const spans: EcfConversation = {
  conversation_ID: 4,
  conversation: said('They took it away !', 'Who ? Who took it away ?'),
  'emotion-cause_pairs': [
    ['1_joy', '1_took it away !'],
    ['U2_joy', 'U1_They took it'],
    ['2_joy', '2_took it away ?'],
  ],
}
const pairs: EcfConversation = {
  ...spans,
  conversation: said('They took it away !', 'Who ?').map((each, i) => ({
    ...each,
    video_name: `dia4utt${i + 1}.mp4`,
    video_source: ['S01E02', '00:07:40.335', '01:00:01.5'],
  })),
  'emotion-cause_pairs': [
    ['1_joy', '1'],
    ['U2_anger', '1'],
  ],
}

describe('readEcf', () => {
  it('reads both subtasks', async () => {
    const one = await readEcf(file([spans]))
    expect(one.dialogs[0]).toMatchObject({
      id: '4',
      utterances: [
        { id: 1, text: 'They took it away !', speaker: 'A', emotion: 'joy', clipName: 'dia4utt1' },
        { id: 2, speaker: 'B', clipName: 'dia4utt2' },
      ],
      causes: [
        { effect: 0, cause: 0, emotion: 'joy', span: [1, 4], spanText: 'took it away !' },
        { effect: 1, cause: 0, emotion: 'joy', span: [0, 3] },
        { effect: 1, cause: 1, emotion: 'joy', span: [3, 6] },
      ],
    })
    expect(one).toMatchObject({ utterances: 2, causes: 3, badRecords: 0, missingClips: 0 })
    const [two] = (await readEcf(file([pairs]))).dialogs
    expect(two?.utterances[0]?.broadcast).toEqual({ episode: 'S01E02', start: 460.335, end: 3601.5 })
    // What the pair says of the emotion, which may be a prediction, is the pair's.
    expect(two?.causes).toEqual([
      { effect: 0, cause: 0, emotion: 'joy' },
      { effect: 1, cause: 0, emotion: 'anger' },
    ])
  })

  it('reads predictions, and files without emotions or pairs', async () => {
    const predicted = { ...spans, 'emotion-cause_pairs': [['1_joy', '2_0_2']] }
    const open = { conversation_ID: 5, conversation: said('So .').map(({ emotion, ...rest }) => rest) }
    const { dialogs } = await readEcf(file([predicted, open]))
    expect(dialogs[0]?.causes).toEqual([{ effect: 0, cause: 1, emotion: 'joy', span: [0, 2] }])
    expect(dialogs[1]?.utterances[0]).not.toHaveProperty('emotion')
    expect(dialogs[1]).not.toHaveProperty('causes')
  })

  it('finds clips under the numbers of ECF, which are others than those of MELD', async () => {
    const clips = folder({
      'dia4utt1.mp4': 'x',
      'more/dia4utt1.wav': 'x',
      'dia4utt2/0001.png': 'x',
      '._dia9utt1.mp4': 'x',
    })
    const found = await readEcf(file([pairs]), { clips })
    const [first, second] = found.dialogs[0]?.utterances ?? []
    expect(first?.clip).toEqual({ video: join(clips, 'dia4utt1.mp4'), audio: join(clips, 'more/dia4utt1.wav') })
    expect(second?.clip).toEqual({ frames: join(clips, 'dia4utt2') })
    const foreign = folder({ 'dia4_utt0.mp4': 'x', 'dia4_utt1.mp4': 'x' })
    await expect(readEcf(file([pairs]), { clips: foreign })).rejects.toThrow(/clips of MELD.*dia4_utt0/)
    const named = await readEcf(file([pairs]), { clips: { 'dia4utt1.mp4': 'a/b.mp4', '4/2': { audio: 'c.flac' } } })
    expect(named.dialogs[0]?.utterances.map(({ clip }) => clip)).toEqual([{ video: 'a/b.mp4' }, { audio: 'c.flac' }])
    const asked = await readEcf(file([pairs]), {
      clips: ({ dialog, utterance, name }) => (utterance === 1 ? `${dialog}-${name}.wav` : undefined),
    })
    expect(asked.dialogs[0]?.utterances[0]?.clip).toEqual({ audio: '4-dia4utt1.wav' })
    expect(asked.missingClips).toBe(1)
    await expect(readEcf(file([pairs]), { clips: folder({ 'readme.txt': 'x' }) })).rejects.toThrow(
      /expected videos, audio files or folders of frames, got none/,
    )
    await expect(readEcf(file([pairs]), { clips: '/no/such' })).rejects.toThrow(DataError)
  })

  it.each<[string, unknown, RegExp]>([
    ['no list', { a: 1 }, /expected a list of conversations/],
    ['no number', [{ ...spans, conversation_ID: 'x' }], /entry 1: conversation_ID: expected an integer, got "x"/],
    ['twice', [spans, spans], /conversation 4: conversation_ID: expected a unique number/],
    ['no utterances', [{ ...spans, conversation: [] }], /conversation 4: conversation: expected a list of utterances/],
    [
      'two of a number',
      [{ ...spans, conversation: [...said('a'), ...said('b')] }],
      /expected unique numbers, got 1 twice/,
    ],
    [
      'no text',
      [{ ...spans, conversation: [{ utterance_ID: 1, speaker: 'A' }] }],
      /utterance 1: text: expected a string/,
    ],
    [
      'emotion',
      [{ ...spans, conversation: said('a', 'b').map((u) => ({ ...u, emotion: 'love' })) }],
      /expected one of .*, got "love"/,
    ],
    [
      'a pair of another kind',
      [{ ...spans, 'emotion-cause_pairs': [['joy', '1']] }],
      /expected an effect such as '3_surprise'/,
    ],
    ['outside', [{ ...spans, 'emotion-cause_pairs': [['1_joy', '7']] }], /which has no number 7/],
    ['outside too', [{ ...spans, 'emotion-cause_pairs': [['9_joy', '1']] }], /which has no number 9/],
    ['emotion of a pair', [{ ...spans, 'emotion-cause_pairs': [['1_love', '1']] }], /expected an emotion of/],
    ['no words', [{ ...spans, 'emotion-cause_pairs': [['1_joy', '1_ ?!']] }], /not only punctuation/],
    ['no pairs', [{ ...spans, 'emotion-cause_pairs': 'x' }], /emotion-cause_pairs: expected a list/],
  ])('refuses %s', async (_what, content, message) => {
    await expect(readEcf(file(content))).rejects.toThrow(message)
    await expect(readEcf(file(content))).rejects.toThrow(DataError)
  })

  it('skips as little as it can, and counts by reason', async () => {
    const odd = {
      conversation_ID: 7,
      conversation: said('a', 'b').map((each, i) => (i === 0 ? { ...each, emotion: 'love' } : each)),
      'emotion-cause_pairs': [['2_joy', '1'], ['2_joy', '9'], ['2_love', '1'], 'x'],
    }
    const found = await readEcf(file([spans, { conversation_ID: 8 }, odd]), { onBadRecord: 'skip' })
    expect(found.dialogs.map(({ id }) => id)).toEqual(['4', '7'])
    expect(found.dialogs[1]?.utterances[0]).not.toHaveProperty('emotion')
    expect(found.dialogs[1]?.causes).toEqual([{ effect: 1, cause: 0, emotion: 'joy' }])
    expect(found.reasons).toEqual({ conversation: 1, 'unknown emotion': 2, outside: 1, pair: 1 })
    expect(found.badRecords).toBe(5)
    const none = readEcf(file([{ conversation_ID: 8 }]), { onBadRecord: 'skip' })
    await expect(none).rejects.toThrow(/expected at least one usable conversation/)
  })

  it('holds a file to the subtask that was asked for', async () => {
    await expect(readEcf(file([pairs]), { subtask: 1 })).rejects.toThrow(/expected a cause with a span \(subtask 1\)/)
    await expect(readEcf(file([spans]), { subtask: 2 })).rejects.toThrow(
      /expected a cause without a span \(subtask 2\)/,
    )
    await expect(readEcf(file([spans]), { subtask: 3 as never })).rejects.toThrow(ConfigError)
    await expect(readEcf(file([spans]), { task: 1 } as never)).rejects.toThrow(ConfigError)
    await expect(readEcf(file([spans]), { emotions: ['joy'] })).rejects.toThrow(ConfigError)
  })
})

describe('ecfConversations', () => {
  it('gives pairs as predictions have them', async () => {
    const { dialogs } = await readEcf(file([spans]))
    const [one] = ecfConversations(dialogs, { subtask: 1 })
    expect(one?.['emotion-cause_pairs']).toEqual([
      ['1_joy', '1_1_4'],
      ['2_joy', '1_0_3'],
      ['2_joy', '2_3_6'],
    ])
    const [two] = ecfConversations(dialogs, { subtask: 2 })
    expect(two?.conversation[1]).toMatchObject({ utterance_ID: 2, video_name: 'dia4utt2.mp4' })
    // Each pair of utterances once, whatever their spans.
    const twice = dialogs.map((dialog) => ({ ...dialog, causes: [...(dialog.causes ?? []), ...(dialog.causes ?? [])] }))
    expect(ecfConversations(twice, { subtask: 2 })[0]?.['emotion-cause_pairs']).toEqual([
      ['1_joy', '1'],
      ['2_joy', '1'],
      ['2_joy', '2'],
    ])
    const { dialogs: alone } = await readEcf(file([pairs]))
    expect(() => ecfConversations(alone, { subtask: 1 })).toThrow(/expected spans for subtask 1/)
    expect(() => ecfConversations([{ ...alone[0]!, id: 'x' }], { subtask: 2 })).toThrow(
      /id: expected an integer, as in ECF, got "x"/,
    )
  })
})

describe.skipIf(!hasData('ecf'))('the corpus', () => {
  it('has the published numbers of conversations, utterances, emotions and pairs', async () => {
    const train = await readEcf(join(data, 'ecf/Subtask_1_train.json'), { subtask: 1 })
    expect([train.dialogs.length, train.utterances, train.causes]).toEqual([1374, 13619, 9364])
    const distinct = train.dialogs.flatMap(({ id, causes }) =>
      causes!.map(({ effect, cause }) => `${id} ${effect} ${cause}`),
    )
    expect(new Set(distinct).size).toBe(9256)
    const counts: Record<string, number> = {}
    for (const { utterances } of train.dialogs)
      for (const { emotion } of utterances) counts[emotion as string] = (counts[emotion as string] ?? 0) + 1
    expect(counts).toEqual({
      neutral: 5929,
      joy: 2301,
      surprise: 1840,
      anger: 1615,
      sadness: 1147,
      disgust: 414,
      fear: 373,
    })
    const one = await readEcf(join(data, 'ecf/Subtask_1_test.json'))
    expect([one.dialogs.length, one.utterances, one.causes]).toEqual([341, 3101, 2256])
    const two = await readEcf(join(data, 'ecf/Subtask_2_test.json'), { subtask: 2 })
    expect([two.dialogs.length, two.utterances, two.causes]).toEqual([341, 3101, 2462])
    const away = two.dialogs.flatMap(({ causes }) => causes!.map(({ effect, cause }) => effect - cause))
    const share = (wanted: (distance: number) => boolean) => away.filter(wanted).length
    expect([share((d) => d === 0), share((d) => d === 1), share((d) => d === 2), share((d) => d < 0)]).toEqual([
      1217, 700, 241, 86,
    ])
    for (const subtask of [1, 2] as const) {
      const sample = await readEcf(join(data, `ecf/Subtask_${subtask}_pred.json`), { subtask })
      expect(sample.causes).toBe(subtask === 1 ? 27 : 22)
    }
  })
})
