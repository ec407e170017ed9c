import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import * as sl from 'voxtorch/salmonn'
import { at, dialogs, json, lines, node, prepare, run, salmonn, write } from './salmonn.js'

prepare()

describe('emotional-trajectory.ts', () => {
  const tell = (...rest: string[]) => run('trajectory', '--model', at('tiny'), '--dtype', 'float32', ...rest)
  const few = ['--options', 'generation.maxNewTokens=6', '--options', 'generation.numBeams=1']

  it('tells what speakers feel, as text, JSON and pictures', async () => {
    const spoken = [`ann=${at('wav/2_0.wav')}`, `bob=${at('wav/2_1.wav')}`, `ann=${at('wav/3_0.wav')}`]
    const { out, err } = await tell(...spoken, '--json', at('one.json'), '--figure', at('one.svg'), ...few)
    expect(err).toContain(
      'dialog: the answer did not have an emotion for each turn, so each turn was predicted separately',
    )
    const told = json('one.json') as sl.EmotionalTrajectory
    expect(told).toMatchObject({ id: 'dialog', emotionsFrom: 'turns' })
    expect(told.turns.map(({ speaker }) => speaker)).toEqual(['ann', 'bob', 'ann'])
    expect(told.turns.every(({ emotion }) => emotion.length > 0)).toBe(true)
    expect(out).toBe(`${sl.trajectoryText(told)}\n\n`)
    expect(readFileSync(at('one.svg'), 'utf8')).toBe(sl.trajectorySvg(told, 'Emotional trajectory: dialog'))
  })

  it('answers a file, which is then scored, and judged', async () => {
    const all = await tell(at('challenge.jsonl'), '--json', at('answers.jsonl'), ...few)
    const answers = lines('answers.jsonl') as sl.EmotionalTrajectory[]
    expect(answers.map(({ id }) => id)).toEqual(dialogs.map(({ dialogue_id }) => dialogue_id))
    expect(answers[3]?.turns.map(({ reference, text }) => [reference, text])).toEqual([
      ['anger', 'say 3 0'],
      ['neutral', 'say 3 1'],
      ['happy', 'say 3 2'],
    ])
    expect(all.out).toContain('en_3\nuser: ')
    const picture = await tell(at('challenge.jsonl'), '--dialog', 'en_3', '--figure', at('en_3.html'), ...few)
    expect(picture.out).toBe(`${sl.trajectoryText(answers[3] as sl.EmotionalTrajectory)}\n\n`)
    expect(readFileSync(at('en_3.html'), 'utf8')).toContain('<td>say 3 2</td>')

    // What a good model would have said, but for the last dialog and one turn of the first.
    const good = dialogs.slice(0, -1).map(({ dialogue_id: id, turns }, d) => ({
      id,
      prediction: sl.writeEmotionSuffix('so it is', turns.map(({ emotion }, t) => (d === 0 && t === 1 ? 'fear' : (emotion as string))), 'en'),
    })) // biome-ignore format: one line
    const predictions = write('good.jsonl', good.map((one) => JSON.stringify(one)).join('\n'))
    const replies = good.map(({ id }) => ({ id, reply: '{"Accuracy_Completeness": 5, "Depth_Granularity": 3, "Added_Value": 1}' })) // biome-ignore format: one line
    write('replies.jsonl', replies.map((one) => JSON.stringify(one)).join('\n'))
    const judging = ['--judge-prompts', at('prompts.jsonl'), '--judge-replies', at('replies.jsonl')]
    const scored = await run('score', '--references', at('challenge.jsonl'), '--predictions', predictions, '--json', at('scores.json'), ...judging) // biome-ignore format: one line
    const scores = json('scores.json')
    // 20 turns; the last dialog has 3.
    expect(scores).toMatchObject({ pairs: 8, parsed: 7 / 8, exactSequence: 6 / 8, positionAccuracy: 16 / 20, unanswered: ['en_7'], rougeL: 7 / 8 }) // biome-ignore format: one line
    const recalls = scores.emotions.map(({ recall }: sl.EmotionScore) => recall)
    expect(scores.uar).toBeCloseTo(recalls.reduce((a: number, b: number) => a + b) / 4, 12)
    expect(scores.judge).toEqual({ judged: 7, excluded: 0, means: { Accuracy_Completeness: 5, Depth_Granularity: 3, Added_Value: 1 }, overall: 3 }) // biome-ignore format: one line
    expect(scored.out).toMatch(/^dialogs +8 \(1 without an answer\)\n/)
    expect(scored.out).toMatch(/\nturns correct +0\.8000\n {2}turn 1 +0\.8750\n/)
    expect(scored.out).toMatch(/\noverall +3\.0000\n$/)
    const prompts = lines('prompts.jsonl')
    expect(prompts.map(({ id }) => id)).toEqual(dialogs.map(({ dialogue_id }) => dialogue_id))
    expect(prompts[1].prompt).toContain('user(happy): say 1 0\nAI: so it is\nuser(sad): say 1 1')
  })

  it('names what is wrong', async () => {
    const fails = async (name: string, args: string[], message: string | RegExp) => {
      const ran = await node(salmonn(name, ...args))
      expect(ran.code).toBe(1)
      expect(ran.err).toMatch(message)
    }
    const bad = write(
      'bad.jsonl',
      '{"id": "en_0", "prediction": "x"}\n{"id": "en_1", "turns": [{"emotion": "sad"}, {}]}\n',
    )
    const score = ['--references', at('challenge.jsonl'), '--predictions']
    await fails('score', [...score, bad], `${bad}, line 2: en_1, turn 2: expected an emotion, got none.`)
    const lenient = await run('score', ...score, bad, '--skip-bad')
    expect(lenient.err).toBe(`1 left out; the first: ${bad}, line 2: en_1, turn 2: expected an emotion, got none.\n`)
    const foreign = write('foreign.jsonl', '{"id": "zh_0", "prediction": "x"}')
    await fails('score', [...score, foreign], 'line 1: expected the id of a dialog of the references, got zh_0')
    const file = at('challenge.jsonl')
    await fails(
      'trajectory',
      ['--model', at('tiny'), file, '--figure', 'x.svg'],
      /--figure: expected one dialog, got 8\. Select one, such as --dialog en_0/,
    )
    await fails('trajectory', ['--model', at('tiny'), '--dtype', 'float32', at('wav/gone.wav')], /gone\.wav/)
  })
})
