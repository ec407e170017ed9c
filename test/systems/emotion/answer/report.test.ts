import { describe, expect, it } from 'vitest'
import { ConfigError } from '../../../../lib/index.js'
import { EMOTIONS } from '../../../../lib/kit/emotion/dialog.js'
import { type LabeledDialog, turnsOf } from '../../../../lib/systems/emotion/answer/label.js'
import { emotionReport } from '../../../../lib/systems/emotion/answer/report.js'
import { emotionStrip } from '../../../../lib/systems/emotion/answer/strip.js'

const probabilities = (at: number, p: number) => EMOTIONS.map((_, i) => (i === at ? p : (1 - p) / 6))
const dialog: LabeledDialog = {
  labels: EMOTIONS,
  dialog: {
    id: '<7>',
    source: 'made',
    utterances: [
      {
        id: 1,
        text: 'They took it & "left" <b>',
        speaker: 'Ann',
        emotion: 'anger',
        clip: { audio: 'a.wav', start: 1, end: 2.5 },
      },
      { id: 2, text: 'Who ?', speaker: 'Ben', emotion: 'surprise' },
      { id: 3, text: 'Fine .', speaker: 'Ann' },
    ],
  },
  utterances: [
    { emotion: 'anger', probabilities: probabilities(5, 0.9) },
    { emotion: 'fear', probabilities: probabilities(1, 0.5) },
    { emotion: 'neutral', probabilities: probabilities(3, 0.7) },
  ],
  causes: [
    { effect: 1, cause: 0, emotion: 'fear' },
    { effect: 0, cause: 0, emotion: 'anger' },
  ],
}
const count = (text: string, what: string) => text.split(what).length - 1

describe('emotionStrip', () => {
  it('has a field for each utterance, a ring where it is wrong, and an arrow for each cause', () => {
    const drawn = emotionStrip(dialog, [
      { audio: 'data:audio/wav;base64,AA' },
      { thumbnail: 'data:image/png;base64,AA' },
    ])
    expect([count(drawn, 'class="felt"'), count(drawn, 'class="ring'), count(drawn, 'class="cause"')]).toEqual([
      3, 1, 2,
    ])
    expect(drawn).toContain('true: surprise')
    expect(drawn).toContain('data-audio="data:audio/wav;base64,AA"')
    expect(drawn).toContain('data-start="1" data-end="2.5"')
    expect(count(drawn, '<image ')).toBe(1)
    expect(drawn).toContain('&lt;b&gt;')
    expect(drawn).not.toContain('<b>')
    expect(count(emotionStrip({ ...dialog, causes: [] }), 'class="cause"')).toBe(0)
    expect(drawn).not.toMatch(/NaN|undefined/)
  })
})

describe('emotionReport', () => {
  it('measures what is known and draws every dialog', () => {
    const text = emotionReport([dialog, dialog], { title: 'A & B', mostDialogs: 1 })
    expect(text).toContain('<title>A &amp; B</title>')
    expect(text).toContain('2 dialogs, 6 utterances, 4 with a known emotion.')
    expect(text).toContain('1 more dialog not drawn')
    // Of anger all are right; of surprise, which was taken for fear, none.
    expect(text).toMatch(/<th scope="row">anger<\/th><td>1.000<\/td><td>1.000<\/td><td>1.000<\/td><td>2<\/td>/)
    expect(text).toMatch(/Accuracy <b>0.500<\/b>/)
    expect(text).toContain('title="100 % of surprise">2</td>')
    expect(text).not.toMatch(/NaN|undefined|https?:\/\/(?!www\.w3\.org)/)
  })

  it('says nothing of what nobody knows', () => {
    const open = {
      ...dialog,
      dialog: { ...dialog.dialog, utterances: dialog.dialog.utterances.map(({ emotion: _, ...rest }) => rest) },
    }
    const text = emotionReport([open])
    expect(text).not.toContain('Accuracy')
    expect(count(text, 'class="ring')).toBe(0)
    expect(() => emotionReport([])).toThrow(ConfigError)
    expect(() => emotionReport([open], { name: 'x' } as never)).toThrow(ConfigError)
  })
})

describe('turnsOf', () => {
  const whisper = (...words: [string, number, number][]) =>
    ({
      transcribe: async () => ({ segments: [{ words: words.map(([text, start, end]) => ({ text, start, end })) }] }),
    }) as never

  it('begins a turn behind a pause, and behind the end of a sentence', async () => {
    const said = whisper(
      [' They', 0.2, 0.4],
      [' took', 0.4, 0.7],
      [' it.', 0.7, 1],
      [' Who?', 1.1, 1.4],
      [' So', 2, 2.2],
      [' then', 3.4, 3.6],
    )
    const { utterances } = await turnsOf(said, 'a.wav')
    expect(utterances.map(({ text, clip }) => [text, clip?.start, clip?.end])).toEqual([
      ['They took it.', 0.2, 1],
      ['Who?', 1.1, 1.4],
      ['So', 2, 2.2],
      ['then', 3.4, 3.6],
    ])
    expect((await turnsOf(said, 'a.wav', { pause: 2 })).utterances).toHaveLength(3)
    expect(utterances[0]?.clip).not.toHaveProperty('video')
    const film = (await turnsOf(said, 'a.mp4')).utterances[0]?.clip
    expect(film).toEqual({ ...utterances[0]?.clip, audio: 'a.mp4', video: 'a.mp4' })
    await expect(turnsOf(whisper(), 'a.wav')).rejects.toThrow(/a\.wav: expected a recording with speech/)
  })
})
