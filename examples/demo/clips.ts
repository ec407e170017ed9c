/** The demo's data: which sentence is spoken by which voice in which tone, and the sound files of that plan. */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { homedir } from 'node:os'
import { join } from 'node:path'
import * as vt from 'voxtorch'

export interface Clip {
  /** Of the WAV file: a hash of all that follows, so a changed plan never reads an old file. */
  file: string
  text: string
  /** An espeak-ng voice and its variant. */
  voice: string
  /** espeak-ng's base pitch (0 to 99), speed (words a minute) and pitch range (0 to 99). */
  pitch: number
  speed: number
  range: number
  /** 1 for pleasant words. */
  words: number
  /** 1 for a bright voice. */
  tone: number
}

export interface Clips {
  train: Clip[]
  test: Clip[]
}

export const RATE = 16000

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
 * Sentences of npm's `sentiment` (imdb, yelp and amazon reviews, labelled by people) of 3 to 16 words. One in seven is a
 * test sentence. A training sentence is spoken once, by a voice and in a tone drawn by lot; a test sentence twice, once
 * in each tone, by other voices. So a test clip's words say nothing at all about its tone.
 */
export function planClips(options: { quick?: boolean; seed?: number } = {}): Clips {
  const { quick = false, seed = 0 } = options
  const random = new vt.Random(seed)
  const pick = <T>(list: readonly T[]): T => list[random.below(list.length)]!
  const between = (low: number, high: number) => low + random.below(high - low + 1)
  const say = (text: string, words: number, tone: number, voice: string): Clip => {
    const range = tone === 1 ? between(75, 99) : between(5, 25)
    const clip = { text, voice, pitch: between(35, 65), speed: between(150, 200), range, words, tone }
    return { file: `${createHash('sha256').update(JSON.stringify(clip)).digest('hex').slice(0, 20)}.wav`, ...clip }
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

function sentences(): { text: string; words: number }[] {
  const load = createRequire(import.meta.url)
  const found = new Map<string, { text: string; words: number }>()
  for (const name of ['imdb', 'yelp', 'amazon']) {
    for (const row of load(`sentiment/test/fixtures/${name}.json`) as { text: string; class: number }[]) {
      const text = row.text.trim().replace(/\s+/g, ' ').replace(/^-+/, '')
      const words = text.toLowerCase().match(/[a-z']+/g) ?? []
      if (words.length >= 3 && words.length <= 16) found.set(words.join(' '), { text, words: row.class })
    }
  }
  return [...found.values()] // no sentence twice
}

/** Where clips are kept, so that only the first run has to speak them. */
export function clipFolder(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'voxtorch', 'demo', 'clips-1')
}

/** Speaks what is not in the folder yet, in two worker threads, at 16 kHz. A run that was stopped goes on where it was. */
export async function speakClips(clips: Clip[], folder: string): Promise<void> {
  await mkdir(folder, { recursive: true })
  const missing = clips.filter((clip) => !existsSync(join(folder, clip.file)))
  if (missing.length === 0) return
  const speaker = new URL('./speak.js', import.meta.url)
  const loader = new vt.DataLoader<{ file: string; wav: Uint8Array }>(speaker, { workers: 2, workerData: missing })
  using bar = new vt.ProgressBar({ total: missing.length, label: 'speak', unit: 'clips' })
  for await (const [spoken] of loader) {
    await vt.scope(async () => {
      const { samples } = await vt.readAudio(spoken!.wav, { sampleRate: RATE })
      await vt.writeWav(join(folder, spoken!.file), samples, { sampleRate: RATE })
    })
    bar.tick()
  }
}
