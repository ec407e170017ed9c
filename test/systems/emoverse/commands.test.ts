import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { ConfigError, DataError } from '../../../lib/index.js'
import type { CommandRule } from '../../../lib/kit/command.js'
import { runCommand } from '../../../lib/kit/command.js'
import { ecfConversations, readEcf } from '../../../lib/kit/emotion/ecf.js'
import { causes } from '../../../lib/systems/emoverse/commands/causes.js'
import { data } from '../../../lib/systems/emoverse/commands/data.js'
import { infer } from '../../../lib/systems/emoverse/commands/infer.js'
import { score } from '../../../lib/systems/emoverse/commands/score.js'
import { sft } from '../../../lib/systems/emoverse/commands/sft.js'
import {
  EMOTION_LABELS,
  EmoVerse,
  findCauses,
  inferEmoVerse,
  type SwiftRecord,
  scoreEmoVerse,
  writeSwiftDataset,
} from '../../../lib/systems/emoverse/index.js'
import { asked, tinyEmoVerse } from './tiny.js'

const home = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-commands-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))
const at = (name: string) => join(home, name)
const json = (name: string) => JSON.parse(readFileSync(at(name), 'utf8'))
const linesOf = (file: string) => readFileSync(file, 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line)) // biome-ignore format: one line

/** What a command prints. */
async function said(rule: CommandRule, ...words: string[]): Promise<string> {
  const log = vi.spyOn(console, 'log').mockImplementation(() => {})
  const error = vi.spyOn(console, 'error').mockImplementation(() => {})
  try {
    expect(await runCommand(`voxtorch emoverse ${rule.name}`, rule, words)).toBe(0)
    return log.mock.calls.flat().join('\n')
  } finally {
    for (const spy of [log, error]) spy.mockRestore()
  }
}

const EMOTIONS = ['joy', 'neutral', 'fear']
const conversation = {
  conversation_ID: 7,
  conversation: EMOTIONS.map((emotion, i) => ({ utterance_ID: i + 1, text: `words ${i}`, speaker: 'Ann', emotion })),
  'emotion-cause_pairs': [
    ['1_joy', '1'],
    ['3_fear', '2'],
  ],
}
const model = () => ['--model', at('base'), '--media', 'ignore', '--system', 'S']

beforeAll(async () => {
  using made = await tinyEmoVerse({ seed: 3 })
  await made.save(at('base'))
  writeFileSync(at('ecf.json'), JSON.stringify([conversation]))
})

describe('emoverse sft', () => {
  it('ends after so many steps, and at a record that cannot be used where that is wanted', async () => {
    await writeSwiftDataset(at('good.json'), asked(12))
    const words = ['--accumulation', '1', '--validation-share', '0', '--max_steps', '3', '--no-progress']
    const trained = JSON.parse(
      await said(sft, ...model(), '--dataset', at('good.json'), ...words, '--output', at('run')),
    )
    expect(trained.stages[0]).toMatchObject({ globalStep: 3, samples: { train: 12 } })
    const bad = [...asked(2), { query: 'a', response: null }] as SwiftRecord[]
    await writeSwiftDataset(at('bad.json'), bad)
    const more = [...words, '--dataset', at('bad.json'), '--output', at('stopped'), '--on-bad-record']
    await expect(said(sft, ...model(), ...more, 'stop')).rejects.toThrow(
      /bad\.json line \d+: response: expected a string, got none/,
    )
    await expect(said(sft, ...model(), ...more, 'stop', '--compat', 'published')).rejects.toThrow(ConfigError)
    expect(JSON.parse(await said(sft, ...model(), ...more, 'skip')).stages[0].samples.train).toBe(2)
  })
})

describe('emoverse causes', () => {
  it('writes what it finds in dialogs as ECF has it, with the official scores, and data is made of that', async () => {
    const words = ['--data', at('ecf.json'), '--max-new-tokens', '12', '--constrained']
    const told = await said(causes, ...model(), ...words, '--output', at('found.json'))
    using same = await EmoVerse.fromPretrained(at('base'), { media: 'ignore', system: 'S' })
    const { dialogs } = await readEcf(at('ecf.json'))
    const found = await findCauses(same, dialogs, { maxNewTokens: 12, constrained: true })
    const [expected] = ecfConversations(found.dialogs, { subtask: 2 })
    const [written] = json('found.json')
    expect(written['emotion-cause_pairs']).toEqual(expected?.['emotion-cause_pairs'])
    const felt = found.dialogs[0]?.utterances.map(({ emotion }) => emotion)
    expect(written.conversation.map(({ emotion }: { emotion: string }) => emotion)).toEqual(felt)
    expect(told).toMatch(/1 dialogs; \d+ parts[\s\S]*[Ff]1/)
    // The data's emotions, as the published questions have them.
    await said(causes, ...model(), ...words, '--emotions', 'given', '--output', at('given.json'))
    expect(json('given.json')[0].conversation.map(({ emotion }: { emotion: string }) => emotion)).toEqual(EMOTIONS)
    await expect(said(causes, ...model())).rejects.toThrow(/--data FILE/)

    // Questions about causes show what was predicted.
    const guessed = ['anger', 'anger', 'neutral']
    const other = structuredClone(conversation)
    for (const [i, emotion] of guessed.entries()) (other.conversation[i] as { emotion: string }).emotion = emotion
    writeFileSync(at('guessed.json'), JSON.stringify([other]))
    const making = ['--ecf', at('ecf.json'), '--all', '--weights', 'MSA=0,MER=0', '--output', at('questions.json')]
    await said(data, ...making, '--predicted', at('guessed.json'))
    const targets = json('questions.json').map(
      ({ query }: SwiftRecord) => /^Target utterance:(.*?)\./m.exec(query)?.[1],
    )
    expect(targets).toEqual(['1_anger', '2_anger'])
    writeFileSync(at('none.json'), JSON.stringify([{ ...other, conversation_ID: 8 }]))
    const missing = await said(data, ...making, '--predicted', at('none.json')).catch((error: unknown) => error)
    expect(missing).toBeInstanceOf(DataError)
    expect(missing).toMatchObject({
      message: expect.stringMatching(/none\.json: expected an emotion of utterance 1 of dialog 7, got none/),
    })
  })
})

describe('thresholds of labels', () => {
  const question = "'a' <emotion> anger, joy, neutral or fear."
  const records = [
    { query: question, response: 'Joy.' },
    { query: "'b' <emotion> fear or joy.", response: 'Fear.' },
  ]

  it('name the likeliest label that is likely enough, in answering and in scoring', async () => {
    using plain = await EmoVerse.fromPretrained(at('base'), { media: 'ignore', system: 'S' })
    const whole = at('labels.jsonl')
    await inferEmoVerse(plain, { data: records, output: whole, byLabels: true })
    const [first] = linesOf(whole)
    const ranked = Object.entries(first.probabilities as Record<string, number>).sort(([, a], [, b]) => b - a)
    const [[best, most], [second]] = ranked as [[string, number], [string, number]]
    expect(first.response).toBe(best)
    await writeSwiftDataset(at('asked.json'), records)
    const answered = async (name: string, ...words: string[]) => {
      await said(infer, ...model(), '--val_dataset', at('asked.json'), '--by-labels', '--output', at(name), ...words)
      return linesOf(at(name))[0].response
    }
    expect(await answered('a.jsonl', '--thresholds', `${best}=${most / 2}`, '--fallback', 'Neutral.')).toBe(best)
    expect(await answered('b.jsonl', '--thresholds', `${best}=${(1 + most) / 2}`, '--fallback', 'Neutral.')).toBe(
      second,
    )
    const none = EMOTION_LABELS.meld.map((label) => `${label}=1`).join(',')
    expect(await answered('c.jsonl', '--thresholds', none, '--fallback', 'Neutral.')).toBe('Neutral.')

    // The same of results that are there.
    const thresholds = Object.fromEntries(EMOTION_LABELS.meld.map((label) => [label, 1]))
    const scored = await scoreEmoVerse(whole, { thresholds, fallback: 'Fear.' })
    expect(scored.tasks.emotion).toMatchObject({ scores: { accuracy: 0.5 } })
    await said(score, whole, '--thresholds', none, '--fallback', 'Fear.', '--json', at('scores.json'))
    expect(json('scores.json')).toEqual(JSON.parse(JSON.stringify(scored)))
  })

  it('are refused where they say nothing', async () => {
    using plain = await tinyEmoVerse()
    const options = { data: records, output: at('refused.jsonl'), byLabels: true }
    const bad: [object, RegExp][] = [
      [{ thresholds: { 'Joy.': 0.5 } }, /fallback: expected a value together with thresholds/],
      [{ fallback: 'Neutral.' }, /thresholds: expected a value together with fallback/],
      [{ thresholds: { 'Jooy.': 0.5 }, fallback: 'Neutral.' }, /did you mean 'Joy\.'/],
      [{ thresholds: { 'Joy.': 1.5 }, fallback: 'Neutral.' }, /a probability/],
      [{ thresholds: { 'Joy.': 0.5 }, fallback: 'Neutral.', byLabels: false }, /byLabels/],
    ]
    for (const [more, message] of bad) {
      const error = await inferEmoVerse(plain, { ...options, ...more }).catch((one: unknown) => one)
      expect(error).toBeInstanceOf(ConfigError)
      expect((error as Error).message).toMatch(message)
    }
    writeFileSync(at('free.jsonl'), '{"query": "<emotion>", "label": "Joy.", "response": "Joy."}\n')
    const naming = { thresholds: { 'Joy.': 0.5 }, fallback: 'Neutral.' }
    await expect(scoreEmoVerse(at('free.jsonl'), naming)).rejects.toThrow(
      /expected probabilities of labels for thresholds, got none/,
    )
    await expect(scoreEmoVerse(at('free.jsonl'), { ...naming, mode: 'strict', task: 'emotion' })).rejects.toThrow(
      /robust/,
    )
    writeFileSync(at('odd.jsonl'), '{"label": "Joy.", "response": "Joy.", "probabilities": {"Joy.": "much"}}\n')
    await expect(scoreEmoVerse(at('odd.jsonl'), naming)).rejects.toThrow(
      /record 1: expected probabilities to be numbers/,
    )
  })
})
