import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { ConfigError, DataError, listGrammar, noGrad, ops, type Tensor, tensor } from '../../../lib/index.js'
import type { EmotionDialog } from '../../../lib/kit/emotion/dialog.js'
import { ecfConversations } from '../../../lib/kit/emotion/ecf.js'
import { scoreEcf } from '../../../lib/kit/emotion/ecf-score.js'
import {
  type CauseScores,
  ECPE_WORDING,
  EMOTION_LABELS,
  type EmoVerse,
  findCauses,
  inferEmoVerse,
  scoreEmoVerse,
} from '../../../lib/systems/emoverse/index.js'
import { ecpeQuestion } from '../../../lib/systems/emoverse/published/wording.js'
import { asked, tinyEmoVerse } from './tiny.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-causes-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

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

  it('names causes that are likely enough, and writes nothing', async () => {
    using model = await tinyEmoVerse({ seed: 4 })
    const written = vi.spyOn(model, 'generate')
    const found = async (causeThreshold: number) =>
      (await findCauses(model, [dialog], { emotions: 'given', causeThreshold })).dialogs[0]?.causes ?? []
    // 'joy' and 'fear', each with three utterances.
    expect(await found(0)).toHaveLength(6)
    const likeliest = await found(1)
    expect(likeliest.map(({ effect }) => effect)).toEqual([0, 2])
    expect(await found(0)).toEqual(expect.arrayContaining([...likeliest]))
    expect(written).not.toHaveBeenCalled()
    await expect(findCauses(model, [dialog], { causeThreshold: 2 })).rejects.toThrow(/a probability/)
    for (const more of [{ constrained: true }, { maxNewTokens: 4 }, { batchSize: 2 }]) {
      await expect(findCauses(model, [dialog], { causeThreshold: 0.5, ...more })).rejects.toThrow(`${Object.keys(more)}: expected none with causeThreshold`)
    }
  })
}) // biome-ignore format: long lines

describe('EmoVerse.scoreCauses', () => {
  const lines = ['joy', 'fear'].map((emotion, i) => ({ number: i + 1, emotion, speaker: 'Ann', text: `words ${i}` }))
  const [, target] = lines as [(typeof lines)[0], (typeof lines)[0]]
  const query = ecpeQuestion(lines, target, lines, ECPE_WORDING)
  const pairs = ['2_fear,1', '2_fear,2'] as const

  /** The same of all answers that there are, each read as a whole. */
  async function byAllAnswers(model: EmoVerse): Promise<number[]> {
    const { tokenizer, llm } = model
    const end = '<|im_end|>'
    const rule = listGrammar(tokenizer, { items: pairs, end, empty: true })
    const { inputIds: prompt } = await model.encode({ query }, { answer: false })
    const answers = ['', ...pairs, pairs.join(';'), [...pairs].reverse().join(';')]
    const shares: number[] = []
    for (const answer of answers) {
      const ids = [...tokenizer.encode(answer + end, { addSpecialTokens: false }).inputIds]
      const { logits } = await noGrad(() => llm.forward({ inputIds: tensor([[...prompt, ...ids]], { dtype: 'int64' }) }))
      const rows = (logits as Tensor).select(0, 0).double()
      let share = 1
      for (const [i, id] of ids.entries()) {
        const allowed = [...rule(0, ids.slice(0, i))]
        const own = rows.select(0, prompt.length - 1 + i).indexSelect(0, tensor(allowed, { dtype: 'int64' }))
        share *= (ops.softmax(own, -1).toArray() as number[])[allowed.indexOf(id)] as number
      }
      shares.push(share)
    }
    expect(shares.reduce((a, b) => a + b)).toBeCloseTo(1, 6)
    return pairs.map((pair) => answers.reduce((sum, answer, i) => sum + (answer.includes(pair) ? (shares[i] as number) : 0), 0))
  }

  it('adds up the likelihood of all answers that name a pair, whatever was read before', async () => {
    using model = await tinyEmoVerse({ seed: 4 })
    const wanted = await byAllAnswers(model)
    // Answers of less than 0.03 would be left out.
    expect(Math.min(...wanted)).toBeGreaterThan(0.05)
    for (let i = 0; i < 2; i++) {
      const shares = await model.scoreCauses({ query })
      expect(Object.keys(shares)).toEqual(pairs)
      for (const [k, pair] of pairs.entries()) expect(shares[pair]).toBeCloseTo(wanted[k] as number, 5)
    }
    await expect(model.scoreCauses({ query: 'Well?' })).rejects.toThrow(DataError)
    await expect(model.scoreCauses({ query }, { maxLength: 3 })).rejects.toThrow(/expected at most 3 tokens/)
    await expect(model.scoreCauses({ query }, { least: 1 } as never)).rejects.toThrow(/least/)
    await expect(model.scoreCauses({ query }, { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough')
  })

  it('tells many utterances apart that are all unlikely', async () => {
    using model = await tinyEmoVerse({ seed: 4 })
    const many = Array.from({ length: 40 }, (_, i) => ({ number: i + 1, emotion: 'joy', speaker: 'Ann', text: 'a' }))
    const query = ecpeQuestion(many, many[39] as (typeof many)[0], [], ECPE_WORDING)
    const shares = Object.values(await model.scoreCauses({ query }))
    expect(shares).toHaveLength(40)
    expect(shares.every((share) => share >= 0 && share <= 1) && Math.max(...shares) > 0).toBe(true)
  })

  it('names causes that are likely enough, in answering and in scoring', async () => {
    using model = await tinyEmoVerse({ seed: 4 })
    const [a, b] = Object.values(await model.scoreCauses({ query })) as [number, number]
    const likeliest = a >= b ? pairs[0] : pairs[1]
    const data = [{ query, response: pairs.join(';') }, ...asked(3).slice(1)]
    const answered = async (name: string, more: object) => {
      const output = join(folder, `${name}.jsonl`)
      await inferEmoVerse(model, { data, output, byLabels: true, maxNewTokens: 4, ...more })
      return readFileSync(output, 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line))
    }
    const [first, second] = await answered('plain', {})
    expect(first.response).toBe(likeliest)
    expect(first.probabilities).toEqual({ [pairs[0]]: expect.closeTo(a, 5), [pairs[1]]: expect.closeTo(b, 5) })
    expect(Object.keys(second.probabilities)).toContain(second.response)
    expect((await answered('all', { causeThreshold: Math.min(a, b) / 2 }))[0].response).toBe(pairs.join(';'))
    // The likeliest in any case.
    expect((await answered('none', { causeThreshold: 1 }))[0].response).toBe(likeliest)
    await expect(inferEmoVerse(model, { data, output: join(folder, 'all.jsonl'), byLabels: true, maxNewTokens: 4, causeThreshold: 0.9 })).rejects.toThrow(/\(causeThreshold\)/)

    // The same of results that are there.
    const recall = async (more: object) => {
      const { causes } = (await scoreEmoVerse(join(folder, 'plain.jsonl'), { task: 'causes', ...more })).tasks
      return (causes as { scores: CauseScores }).scores.recall
    }
    expect(await recall({})).toBe(0.5)
    expect(await recall({ causeThreshold: Math.min(a, b) / 2 })).toBe(1)
    expect(await recall({ causeThreshold: 1 })).toBe(0.5)
    const other = join(folder, 'free.jsonl')
    writeFileSync(other, '{"query": "<emotion>", "label": "Joy.", "response": "Joy.", "probabilities": {"Joy.": 1}}\n')
    await expect(scoreEmoVerse(other, { causeThreshold: 0.5 })).rejects.toThrow(/expected probabilities of causes for causeThreshold, got none/)
    await expect(scoreEmoVerse(other, { causeThreshold: 0.5, mode: 'strict', task: 'causes' })).rejects.toThrow(/causeThreshold: expected mode 'robust', got 'strict'/)
    for (const [more, message] of [[{ causeThreshold: 2 }, /a probability/], [{ causeThreshold: 0.5, byLabels: false }, /expected causeThreshold only together with byLabels/], [{ constrained: true }, /expected either byLabels or constrained/]] as const) {
      await expect(inferEmoVerse(model, { data, output: join(folder, 'bad.jsonl'), byLabels: true, ...more })).rejects.toThrow(message)
    }
  })
}) // biome-ignore format: long lines
