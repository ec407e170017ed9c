import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import * as salmonn from '../../../lib/systems/salmonn/index.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-prompts-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const block = '<Speech><SpeechHere></Speech>'

describe('buildSalmonnPrompt', () => {
  it('puts prompt and question into the published template', () => {
    expect(salmonn.buildSalmonnPrompt({ prompt: `${block} What do you hear?` })).toBe(
      `USER: ${block} What do you hear?\nASSISTANT:`,
    )
    expect(salmonn.buildSalmonnPrompt({ prompt: `${block} {}`, question: 'Who, and what {} $& $1?' })).toBe(
      `USER: ${block} Who, and what {} $& $1?\nASSISTANT:`,
    )
    expect(salmonn.buildSalmonnPrompt({ prompt: '<SpeechHere>', template: '[{}]' })).toBe('[<SpeechHere>]')
  })

  it('is the same text for a question of the page, a turn of a chat and the data', () => {
    const asked = salmonn.buildSalmonnPrompt({ prompt: salmonn.salmonnQuestion('Who speaks?') })
    const samples = new Float32Array(10)
    const content = [{ type: 'audio', samples } as const, { type: 'text', text: 'Who speaks?' } as const]
    expect(salmonn.salmonnChatPrompt([{ role: 'user', content }])).toEqual({ text: asked, clips: [samples] })
    const qa = salmonn.SALMONN_TRAIN_PROMPTS.pick('QA')
    expect(salmonn.buildSalmonnPrompt({ prompt: qa, question: 'Who speaks?' })).toBe(asked)
  })

  it('takes several clips: a block for each, or windows side by side', () => {
    const ask = (prompt: string, blocks: number[]) => salmonn.buildSalmonnPrompt({ prompt, blocks, template: '{}' })
    expect(ask(`${block} x`, [1, 1, 1])).toBe(`${block}${block}${block} x`)
    expect(ask(`${block} x`, [2])).toBe('<Speech><SpeechHere><SpeechHere></Speech> x')
    expect(ask('a <SpeechHere> b <SpeechHere> c', [1, 2])).toBe('a <SpeechHere> b <SpeechHere><SpeechHere> c')
    expect(() => ask('a <SpeechHere> b <SpeechHere> c', [1, 1, 1])).toThrow(
      /expected 1 or 3 times <SpeechHere> for 3 clips, got 2/,
    )
  })

  it('refuses what cannot be asked', () => {
    const ask = (options: salmonn.BuildSalmonnPromptOptions) => () => salmonn.buildSalmonnPrompt(options)
    expect(ask({ prompt: 'no place' })).toThrow(vt.ConfigError)
    expect(ask({ prompt: 'no place' })).toThrow(/prompt: expected <SpeechHere>, got "no place"/)
    expect(ask({ prompt: `${block} {}` })).toThrow(/question: expected a question \(Q\)/)
    expect(ask({ prompt: `${block} {}`, question: 'x <SpeechHere>' })).toThrow(/expected text without <SpeechHere>/)
    expect(ask({ prompt: block, template: 'USER' })).toThrow(/template: expected one \{\}/)
    expect(ask({ prompt: block, blocks: [0] })).toThrow(vt.ConfigError)
  })
})

describe('SalmonnPrompts', () => {
  it('reads lists and single prompts, UTF-8', async () => {
    const file = join(folder, 'prompts.json')
    writeFileSync(file, JSON.stringify({ asr: [`${block} a`, `${block} b`, `${block} 写`], QA: `${block} {}` }))
    const prompts = await salmonn.SalmonnPrompts.load(file)
    expect(prompts.tasks).toEqual(['asr', 'QA'])
    expect(prompts.pick('asr')).toBe(`${block} a`)
    const drawn = new Set(Array.from({ length: 40 }, (_, i) => prompts.pick('asr', new vt.Random(1, i))))
    expect([...drawn].sort()).toEqual([`${block} a`, `${block} b`, `${block} 写`])
    expect(() => prompts.of('ars')).toThrow(/got 'ars'\. Did you mean 'asr'/)
    expect(() => prompts.of('ars')).toThrow(vt.ConfigError)
  })

  it.each([
    [{ asr: [] }, /expected at least one prompt of the task 'asr'/],
    [{ asr: ['x'] }, /expected <SpeechHere> in prompt 1 of the task 'asr'/],
    [{ asr: [3] }, /expected prompt 1 of the task 'asr' to be a string, got 3/],
    [[], /expected an object of tasks/],
    [{}, /expected at least one task/],
  ])('refuses %j', (table, message) => {
    const make = () => new salmonn.SalmonnPrompts(table as never)
    expect(make).toThrow(vt.DataError)
    expect(make).toThrow(message)
  })

  it('ships prompts for the published families', () => {
    for (const task of ['asr', 'translation_ec', 'audiocaption', 'QA', 'task1_emotional_trajectory', 'slot_filling']) {
      expect(salmonn.SALMONN_TEST_PROMPTS.pick(task)).toContain('<SpeechHere>')
    }
    expect(salmonn.SALMONN_TRAIN_PROMPTS.of('asr').length).toBeGreaterThan(1)
  })
})

describe('salmonnChatPrompt', () => {
  const clip = (value: number) => ({ type: 'audio', samples: Float32Array.of(value) }) as const
  const text = (words: string) => ({ type: 'text', text: words }) as const

  it('writes the turns before as Vicuna has them', () => {
    const found = salmonn.salmonnChatPrompt([
      { role: 'system', content: [text('Be brief.')] },
      { role: 'user', content: [clip(1), clip(2), text('What is it?')] },
      { role: 'assistant', content: [text('A dog.')] },
      { role: 'user', content: [text('And here'), clip(3), text('now?')] },
    ])
    expect(found.text).toBe(
      `Be brief.\nUSER: ${block}${block} What is it?\nASSISTANT: A dog.</s>USER: And here ${block} now?\nASSISTANT:`,
    )
    expect(found.clips).toEqual([1, 2, 3].map((value) => Float32Array.of(value)))
  })

  it('refuses turns out of order and markers in words', () => {
    const chat =
      (...messages: salmonn.SalmonnChatMessage[]) =>
      () =>
        salmonn.salmonnChatPrompt(messages)
    const user = { role: 'user', content: [text('x')] } as const
    const reply = { role: 'assistant', content: [text('y')] } as const
    expect(chat(reply)).toThrow(/expected role 'user', got 'assistant'/)
    expect(chat(user, user)).toThrow(/expected role 'assistant', got 'user'/)
    expect(chat(user, reply)).toThrow(/expected the last message from the user/)
    expect(chat({ role: 'user', content: [text('<SpeechHere>')] })).toThrow(/expected text without <SpeechHere>/)
    expect(chat({ role: 'user', content: [] })).toThrow(/empty/)
    expect(chat({ role: 'assistant', content: [clip(1)] })).toThrow(vt.ConfigError)
    const path = { type: 'audio', samples: 'a.wav' } as never
    expect(chat({ role: 'user', content: [path] })).toThrow(
      /messages\[0\]'s audio to be samples, or a result of readAudio/,
    )
    expect(chat()).toThrow(vt.ConfigError)
  })
})
