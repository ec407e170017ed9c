import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { publishedWeights, Whisper } from '../../lib/index.js'
import { dataPath, hasData } from '../audio/helpers.js'
import { fixturePath } from '../helpers.js'

/** What transformers writes about each clip, by the name of the weights; see test/reference/whisper_published.py. */
const texts: Record<string, Record<string, string>> = JSON.parse(
  readFileSync(fixturePath('models/whisper-published.json'), 'utf8'),
)
const isHere = (weights: string) => publishedWeights().some(({ name, present }) => name === weights && present)
const pathOf = (clip: string) => dataPath(`librispeech-other/${clip.split('-')[0]}/${clip}`)

describe.each(Object.keys(texts))('%s, as published, on LibriSpeech clips', (name) => {
  const written = Object.entries(texts[name] as Record<string, string>)

  it.skipIf(!isHere(name) || !hasData('librispeech-other'))(
    'writes the texts of transformers',
    async () => {
      const whisper = await Whisper.fromPretrained(name, { offline: true, dtype: 'float32' })
      whisper.freeze()
      const language = name.endsWith('.en') ? null : 'en'
      const others: string[] = []
      for (const [clip, expected] of written) {
        const { text } = await whisper.transcribe(pathOf(clip), {
          language,
          timestamps: false,
          temperature: 0,
          noSpeechThreshold: null,
        })
        if (text !== expected) others.push(`${clip}: ${text}\n  transformers: ${expected}`)
      }
      expect(others).toEqual([])
      whisper.dispose()
    },
    1_800_000,
  )

  it.skipIf(!hasData('librispeech-other'))('the clips are those', () => {
    expect(written.length).toBe(100)
    expect(written.filter(([clip]) => !existsSync(pathOf(clip)))).toEqual([])
  })
})
