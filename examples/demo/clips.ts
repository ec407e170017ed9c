/** The demo's data: which sentence is spoken by which voice in which tone. */
import { createRequire } from 'node:module'
import { homedir } from 'node:os'
import { join } from 'node:path'
import * as vt from 'voxtorch'
import { type Spoken, spoken } from './speech.js'

export interface Clip extends Spoken {
  /** 1 for pleasant words. */
  words: number
  /** 1 for a bright voice. */
  tone: number
}

export interface Clips {
  train: Clip[]
  test: Clip[]
}

export const LABELS = [
  ...['unpleasant words, flat voice', 'unpleasant words, bright voice'],
  ...['pleasant words, flat voice', 'pleasant words, bright voice'],
]
export const labelOf = (clip: Clip): number => 2 * clip.words + clip.tone

const TRAIN_VOICES = [
  ...['en-us+m1', 'en-us+m2', 'en-gb+m3', 'en-us+m4', 'en-gb+m7', 'en-us+Andy'],
  ...['en-us+f1', 'en-gb+f2', 'en-us+f3', 'en-gb+Annie', 'en-us+linda', 'en-gb-scotland+f4'],
]
const TEST_VOICES = ['en-us+m5', 'en-gb+m6', 'en-us+f5', 'en-gb+steph']

/**
 * Plan the clips: sentences of 3 to 16 words from npm's `sentiment` (imdb, yelp and amazon reviews, labeled by people). One
 * in seven is a test sentence. Each training sentence is spoken once, with a random voice and tone. Each test sentence is
 * spoken in both tones, by other voices, so its text is independent of its tone.
 */
export function planClips(options: { quick?: boolean; seed?: number } = {}): Clips {
  const { quick = false, seed = 0 } = options
  const random = new vt.Random(seed)
  const pick = <T>(list: readonly T[]): T => list[random.below(list.length)]!
  const between = (low: number, high: number) => low + random.below(high - low + 1)
  const say = (text: string, words: number, tone: number, voice: string): Clip => {
    const range = tone === 1 ? between(75, 99) : between(5, 25)
    return spoken({ text, voice, pitch: between(35, 65), speed: between(150, 200), range, words, tone })
  }
  const all = random.shuffle(sentences())
  const shown = quick ? all.slice(0, 42) : all
  const clips: Clips = { train: [], test: [] }
  shown.forEach(({ text, words }, i) => {
    if (i % 7 !== 0) clips.train.push(say(text, words, random.below(2), pick(TRAIN_VOICES)))
    else for (const tone of [0, 1]) clips.test.push(say(text, words, tone, pick(TEST_VOICES)))
  })
  return clips
}

function reviews(load: NodeJS.Require, name: string): { text: string; class: number }[] {
  try {
    load.resolve('espeak-ng')
    return load(`sentiment/test/fixtures/${name}.json`)
  } catch {
    console.error('Sentences and voices are in packages of npm. Run: npm install sentiment@5.0.2 espeak-ng@1.0.2')
    process.exit(1)
  }
}

function sentences(): { text: string; words: number }[] {
  const load = createRequire(import.meta.url)
  const found = new Map<string, { text: string; words: number }>()
  for (const name of ['imdb', 'yelp', 'amazon']) {
    for (const row of reviews(load, name)) {
      const text = row.text.trim().replace(/\s+/g, ' ').replace(/^-+/, '')
      const words = text.toLowerCase().match(/[a-z']+/g) ?? []
      if (words.length >= 3 && words.length <= 16) found.set(words.join(' '), { text, words: row.class })
    }
  }
  return [...found.values()] // no sentence twice
}

/** Return the cache folder for clips: only the first run synthesizes them. */
export function clipFolder(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'voxtorch', 'demo', 'clips-1')
}
