/** Speech with words, and voices with moods, in the form that SALMONN's training reads: made once, and used by salmonn-small.ts. */

import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import * as vt from 'voxtorch'
import { readCsv } from 'voxtorch/files'
import type * as salmonn from 'voxtorch/salmonn'
import { normalText } from './salmonn-small-words.js'

export interface SmallSources {
  /** `en_US_f_Allison` of Debian's `asterisk-core-sounds-en-wav`: a folder of WAV files. */
  asterisk: string
  /** Their transcripts: lines of `name: text`. */
  transcripts: string
  /** A folder for each reader, of FLAC files. */
  librispeech: string
  /** Emo-DB: recordings, and a labels.csv with the columns file, actor, sex and emotion. */
  emodb: string
}

export interface SmallDataSettings {
  /** Readers of LibriSpeech; all others are for training. */
  validReaders: string[]
  testReaders: string[]
  /** Actors of Emo-DB. */
  validActors: string[]
  testActors: string[]
  /** Fractions of asterisk's prompts, which have one speaker. */
  validShare: number
  testShare: number
  /** Readings of each reader, at most. */
  readings: number
  /** Number of ways in which each reading is cut into phrases. */
  cuts: number
  /** Words of a phrase, at least and at most. */
  words: [number, number]
  /** Rows of short prompts, one after the other: words that follow each other nowhere else. */
  rows: number
  /** An actor who speaks faster or slower is a further voice. */
  speeds: number[]
  /** Seconds of a clip, at most. */
  longest: number
  seed: number
}

/** An item of the training data, as the published annotations are; the rest says where it comes from. */
export interface SmallItem {
  path: string
  text: string
  task: 'asr' | 'emotion_recognition' | 'gender_recognition'
  id: string
  speaker: string
}

const RATE = 16_000
const SPLITS = ['train', 'valid', 'test'] as const
type Split = (typeof SPLITS)[number]
export type SmallFiles = Record<Split, string>
type Items = Record<Split, SmallItem[]>

/** Writes clips and annotations, no voice or prompt of which is in two parts. What is there already stays. */
export async function writeSmallData(
  from: SmallSources,
  out: string,
  settings: SmallDataSettings,
  labeller: string,
): Promise<SmallFiles> {
  const files = Object.fromEntries(SPLITS.map((split) => [split, join(out, `${split}.json`)])) as SmallFiles
  const done = join(out, 'data.json')
  if (existsSync(done)) {
    if (JSON.stringify(await vt.readJson(done)) === JSON.stringify(settings)) return files
    throw new Error(`${out} holds data of other settings: name another folder with --out, or remove it`)
  }
  mkdirSync(join(out, 'wav'), { recursive: true })
  const items: Items = { train: [], valid: [], test: [] }
  await addPrompts(from, out, settings, items)
  await addReadings(from, out, settings, items, await whisperLabels(from.librispeech, out, settings.readings, labeller))
  await addMoods(from, out, settings, items)
  for (const split of SPLITS) await vt.writeJson(files[split], { annotation: items[split] })
  await vt.writeJson(done, settings)
  return files
}

/** Add asterisk's prompts: each prompt, and sequences of short ones. A repeated text is in one split only. */
async function addPrompts(from: SmallSources, out: string, settings: SmallDataSettings, items: Items): Promise<void> {
  const random = new vt.Random(settings.seed, 1)
  const lines = readFileSync(from.transcripts, 'utf8').split('\n')
  const said = new Map<string, { name: string; path: string; seconds: number }[]>()
  for (const line of lines) {
    const [, name = '', text = ''] = /^([^:\s]+):\s*(\S.*)$/.exec(line) ?? []
    const path = join(from.asterisk, `${name}.wav`)
    // Tones and beeps stand in brackets.
    if (/[[\]<>]/.test(text) || name === '' || !existsSync(path)) continue
    const seconds = await vt.scope(async () => (await vt.readAudio(path)).samples.size(-1) / 8000)
    const words = normalText(text)
    if (words === '' || seconds > settings.longest) continue
    said.set(words, [...(said.get(words) ?? []), { name, path, seconds }])
  }
  const texts = random.shuffle([...said.keys()])
  const bounds = [settings.testShare, settings.testShare + settings.validShare].map((share) =>
    Math.round(share * texts.length),
  )
  const short: { path: string; text: string }[] = []
  for (const [i, text] of texts.entries()) {
    const split: Split = i < bounds[0]! ? 'test' : i < bounds[1]! ? 'valid' : 'train'
    for (const { name, path, seconds } of said.get(text)!) {
      if (split === 'train' && seconds < 2) short.push({ path, text })
      items[split].push({ path: resolve(path), text, task: 'asr', id: `asterisk/${name}`, speaker: 'allison' })
    }
  }
  for (let row = 0; row < settings.rows; row += 1) {
    const parts = Array.from({ length: 2 + random.below(4) }, () => short[random.below(short.length)]!)
    const path = resolve(out, 'wav', `row-${row}.wav`)
    await vt.scope(async () => {
      const clips: vt.Tensor[] = []
      for (const part of parts) {
        const { samples } = await vt.readAudio(part.path, { sampleRate: RATE })
        clips.push(samples.flatten(), vt.zeros([random.below(RATE / 4)]))
      }
      await vt.writeWav(path, vt.cat(clips), { sampleRate: RATE })
    })
    items.train.push({
      path,
      text: parts.map(({ text }) => text).join(' '),
      task: 'asr',
      id: `asterisk/row-${row}`,
      speaker: 'allison',
    })
  }
}

/** Add LibriSpeech, with Whisper's transcripts and word times. */
async function addReadings(
  from: SmallSources,
  out: string,
  settings: SmallDataSettings,
  items: Items,
  labels: Labels,
): Promise<void> {
  const random = new vt.Random(settings.seed, 2)
  for (const [name, { words, seconds }] of Object.entries(labels)) {
    const reader = name.split('/')[0]!
    const split = splitOf(reader, settings.validReaders, settings.testReaders)
    const path = resolve(from.librispeech, name)
    const id = `librispeech/${basename(name, '.flac')}`
    const text = normalText(words.map((word) => word.text).join(''))
    const sound = await samplesOf(path)
    if (seconds <= settings.longest) items[split].push({ path, text, task: 'asr', id, speaker: reader })
    for (let cut = 0; cut < (split === 'train' ? settings.cuts : 1); cut += 1) {
      const [least, most] = settings.words
      for (let at = 0; at < words.length; ) {
        const count = least + random.below(most - least + 1)
        const phrase = words.slice(at, words.length - at - count < least ? words.length : at + count)
        // In the middle of the pause between two words.
        const begin = at === 0 ? 0 : (words[at - 1]!.end + phrase[0]!.start) / 2
        at += phrase.length
        const end = at === words.length ? seconds : (phrase.at(-1)!.end + words[at]!.start) / 2
        const said = normalText(phrase.map((word) => word.text).join(''))
        if (said === '' || end - begin < 0.3 || end - begin > settings.longest) continue
        const piece = resolve(out, 'wav', `${basename(name, '.flac')}-${cut}-${at}.wav`)
        const clip = sound.slice(Math.floor(begin * RATE), Math.ceil(end * RATE))
        await vt.scope(() => vt.writeWav(piece, vt.tensor(clip), { sampleRate: RATE }))
        items[split].push({ path: piece, text: said, task: 'asr', id: `${id}-${cut}-${at}`, speaker: reader })
      }
    }
  }
}

const samplesOf = (path: string): Promise<Float32Array> =>
  vt.scope(async () => (await vt.readAudio(path, { sampleRate: RATE })).samples.flatten().dataSync() as Float32Array)

type Labels = Record<string, { words: { text: string; start: number; end: number }[]; seconds: number }>

/** Transcribe the first readings of each reader with Whisper; existing transcripts are kept. */
async function whisperLabels(folder: string, out: string, most: number, labeller: string): Promise<Labels> {
  const file = join(out, 'whisper-labels.json')
  const labels: Labels = existsSync(file) ? ((await vt.readJson(file)) as Labels) : {}
  const found = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.flac'))
    .sort()
  const names = found.filter((name, i) => name.split('/')[0] !== found[i - most]?.split('/')[0])
  const of = (all: Labels): Labels => Object.fromEntries(names.map((name) => [name, all[name]!]))
  const missing = names.filter((name) => !labels[name])
  if (missing.length === 0) return of(labels)
  using whisper = await vt.Whisper.fromPretrained(labeller, { dtype: 'float32' })
  for (const [i, name] of missing.entries()) {
    await vt.scope(async () => {
      const { samples, sampleRate } = await vt.readAudio(join(folder, name), { sampleRate: RATE })
      const { segments } = await whisper.transcribe({ samples, sampleRate }, { language: 'en', timestamps: 'word' })
      const words = segments.flatMap((segment) => segment.words ?? [])
      labels[name] = {
        words: words.map(({ text, start, end }) => ({ text, start, end })),
        seconds: samples.size(-1) / RATE,
      }
    })
    if (i % 4 === 3 || i === missing.length - 1) {
      await vt.writeJson(file, labels)
      console.log(`Whisper has written down ${i + 1} of ${missing.length} readings`)
    }
  }
  return of(labels)
}

/** Emo-DB: which emotion, and whether a man or a woman speaks. */
async function addMoods(from: SmallSources, out: string, settings: SmallDataSettings, items: Items): Promise<void> {
  for (const { file, actor, sex, emotion } of await readCsv(join(from.emodb, 'labels.csv'))) {
    const split = splitOf(actor!, settings.validActors, settings.testActors)
    for (const speed of split === 'train' ? settings.speeds : [1]) {
      const own = resolve(from.emodb, file!)
      const path = speed === 1 ? own : resolve(out, 'wav', `${basename(own, '.wav')}-${speed}.wav`)
      if (speed !== 1) {
        await vt.scope(async () => {
          const { samples } = await vt.readAudio(own, { sampleRate: Math.round(RATE / speed) })
          await vt.writeWav(path, samples, { sampleRate: RATE })
        })
      }
      const item = { path, speaker: actor!, id: `emodb/${basename(path, '.wav')}` }
      items[split].push({ ...item, task: 'emotion_recognition', text: emotion! })
      if (speed === 1) items[split].push({ ...item, task: 'gender_recognition', text: sex === 'm' ? 'man' : 'woman' })
    }
  }
}

const splitOf = (speaker: string, valid: string[], test: string[]): Split =>
  test.includes(speaker) ? 'test' : valid.includes(speaker) ? 'valid' : 'train'

/** The same questions, each with the clip of another item of its task. */
export function withOthersAudio(entries: readonly salmonn.SalmonnEntry[], seed: number): salmonn.SalmonnEntry[] {
  const audio = new Map<number, readonly string[]>()
  for (const task of new Set(entries.map((entry) => entry.task))) {
    const own = [...entries.keys()].filter((i) => entries[i]!.task === task)
    const order = new vt.Random(seed).shuffle(own)
    for (const [k, i] of order.entries()) audio.set(i, entries[order[(k + 1) % order.length]!]!.audio)
  }
  return entries.map((entry, i) => ({ ...entry, audio: audio.get(i)! }))
}
