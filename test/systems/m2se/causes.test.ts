import { describe, expect, it, vi } from 'vitest'
import { ConfigError } from '../../../lib/index.js'
import type { EmotionDialog } from '../../../lib/kit/emotion/dialog.js'
import { ecfConversations } from '../../../lib/kit/emotion/ecf.js'
import { scoreEcf } from '../../../lib/kit/emotion/ecf-score.js'
import { EMOTION_LABELS, findCauses } from '../../../lib/systems/m2se/index.js'
import { tinyEmoVerse } from './tiny.js'

const dialog: EmotionDialog = {
  id: '7',
  source: 'here',
  utterances: ['joy', 'neutral', 'fear'].map((emotion, i) => ({
    id: i + 1,
    speaker: 'Ann',
    text: `words ${i}`,
    emotion,
  })),
  causes: [
    { effect: 0, cause: 0, emotion: 'joy' },
    { effect: 2, cause: 1, emotion: 'fear' },
    { effect: 2, cause: 2, emotion: 'fear' },
  ],
}
const gold = ecfConversations([dialog], { subtask: 2 })

describe('findCauses', () => {
  it('asks for what is felt, and for the causes of that among all, and goes to the official scorer', async () => {
    using model = await tinyEmoVerse()
    const asked = vi.spyOn(model, 'generate')
    const { dialogs } = await findCauses(model, [dialog], { maxNewTokens: 4 })
    // What is felt is what the model finds likeliest, whatever the data says.
    const felt = await Promise.all(
      dialog.utterances.map(async ({ text }) => {
        const query = `The person says: '${text}' <emotion> Please determine which emotion label in the video represents: anger, sadness, surprise, disgust, joy, neutral or fear.`
        const shares = await model.scoreLabels({ query }, EMOTION_LABELS.meld)
        const best = Math.max(...Object.values(shares))
        return (Object.keys(shares).find((label) => shares[label] === best) as string).slice(0, -1).toLowerCase()
      }),
    )
    expect(dialogs[0]?.utterances.map(({ emotion }) => emotion)).toEqual(felt)
    const targets = felt.flatMap((emotion, i) => (emotion === 'neutral' ? [] : [`${i + 1}_${emotion}. Ann: words ${i}`]))
    const all = felt.map((emotion, i) => `${i + 1}_${emotion}. Ann: words ${i}`).join('\n')
    const queries = asked.mock.calls.flatMap(([records]) => records.map(({ query }) => query))
    expect(queries).toEqual(
      targets.map((line) => expect.stringContaining(`Candidate utterances:${all}\nTarget utterance:${line}\n`)),
    )
    expect(await scoreEcf({ subtask: 2, gold, predictions: ecfConversations(dialogs, { subtask: 2 }) })).toMatchObject({ f1Pair: 0 })
  })

  it('reads answers: pairs of the target and of utterances that there are count once', async () => {
    using model = await tinyEmoVerse()
    const texts = ['1_joy,1;1_joy,1', '3_fear,2; 3_fear,9;1_joy,1;because']
    vi.spyOn(model, 'generate').mockImplementation(async (records) => records.map((_, i) => ({ text: texts[i] as string, tokens: 1 })))
    const { dialogs, unread, outside } = await findCauses(model, [dialog], { emotions: 'given', candidates: 'before' })
    expect({ unread, outside }).toEqual({ unread: 1, outside: 2 })
    expect(dialogs[0]?.causes).toEqual([
      { effect: 0, cause: 0, emotion: 'joy' },
      { effect: 2, cause: 1, emotion: 'fear' },
    ])
    const scores = await scoreEcf({ subtask: 2, gold, predictions: ecfConversations(dialogs, { subtask: 2 }) })
    // Two of two, and two of three.
    expect([scores.precisionPair, scores.recallPair, scores.f1Pair].map((one) => one.toFixed(4))).toEqual(['1.0000', '0.6667', '0.8000'])
    await expect(findCauses(model, [dialog], { emotion: 'given' } as never)).rejects.toThrow(ConfigError)
    await expect(findCauses(model, [dialog], { candidates: 'none' as never })).rejects.toThrow(/candidates/)
  })
}) // biome-ignore format: long lines
