// Long recordings made of LibriSpeech clips, and what two transcripts of one differ in.
import { readdirSync } from 'node:fs'
import { basename, join } from 'node:path'

const RATE = 16_000

/** Numbers from 0 to below 1, the same in every run (mulberry32). */
function random(seed) {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Of full scale, one for every four clips: a soft speaker behind a loud one, and the reverse. */
const LEVELS = [-20, -60, -30, -50, -40, -60]

const decibels = (level) => 10 ** (level / 20)

/**
 * Return samples at 16 kHz of about so many seconds: clips of `folder` in a row, brought to levels from -20 to -60 decibels of
 * full scale that change by up to 40, with pauses of 0.3 to 4 seconds. A third of the pauses hold a knock of 25 ms at full scale, and hiss 15 dB below
 * the softest speech comes and goes.
 * @param readClip gives the samples of a file, Float32Array
 * @returns the samples, and the clips with where each begins and ends, in seconds
 */
export async function longSpeech(folder, seconds, readClip, seed = 1) {
  const draw = random(seed)
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.flac'))
    .sort()
  const samples = new Float32Array(Math.ceil(seconds * RATE))
  const clips = []
  let at = Math.round(0.5 * RATE)
  let level = LEVELS[0]
  // Speakers take turns: neighbors in the list are of one speaker.
  for (let i = 0; ; i += 1) {
    const file = files[(i * 37) % files.length]
    const clip = await readClip(join(folder, file))
    if (at + clip.length > samples.length) break
    const power = clip.reduce((sum, value) => sum + value * value, 0) / clip.length
    if (i % 4 === 0) level = LEVELS[(i / 4) % LEVELS.length]
    // At full scale nothing is cut off.
    const peak = clip.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
    const gain = Math.min(decibels(level) / Math.sqrt(power), 0.95 / peak)
    clip.forEach((value, j) => {
      samples[at + j] += gain * value
    })
    clips.push({ name: basename(file), level, start: at / RATE, end: (at + clip.length) / RATE })
    at += clip.length
    const pause = Math.round((0.3 + 3.7 * draw()) * RATE)
    if (draw() < 1 / 3) {
      const knock = at + Math.floor(pause / 2)
      for (let j = knock; j < Math.min(knock + 0.025 * RATE, samples.length); j += 1) samples[j] = 1.9 * (draw() - 0.5)
    }
    at += pause
  }
  // Uniform noise has a power of a twelfth.
  const hiss = decibels(-75) * Math.sqrt(12)
  for (let j = 0; j < samples.length; j += 1) {
    if (Math.floor(j / (47 * RATE)) % 2 === 0) samples[j] += hiss * (draw() - 0.5)
  }
  return { samples, clips }
}

export const wordsOf = (text) =>
  text
    .toLowerCase()
    .replace(/[^\p{L}\p{N}' ]+/gu, ' ')
    .split(/\s+/)
    .filter(Boolean)

/**
 * Align `words` with `reference` by the fewest changes, and return the steps in order: `at` and `to` are the places in
 * `reference` and `words`, one of them of the word before where a word was put in or left out.
 */
function alignment(reference, words) {
  const width = words.length + 1
  const moves = new Uint8Array((reference.length + 1) * width)
  let row = Uint32Array.from({ length: width }, (_, j) => j)
  moves.fill(1, 1, width)
  for (let i = 1; i <= reference.length; i += 1) {
    const next = new Uint32Array(width)
    next[0] = i
    moves[i * width] = 2
    for (let j = 1; j < width; j += 1) {
      const same = row[j - 1] + (reference[i - 1] === words[j - 1] ? 0 : 1)
      const [put, left] = [next[j - 1] + 1, row[j] + 1]
      const least = Math.min(same, put, left)
      next[j] = least
      moves[i * width + j] = least === same ? 0 : least === left ? 2 : 1
    }
    row = next
  }
  const steps = []
  let [i, j] = [reference.length, words.length]
  while (i > 0 || j > 0) {
    const move = moves[i * width + j]
    if (move !== 1) i -= 1
    if (move !== 2) j -= 1
    const kind = move === 1 ? 'inserted' : move === 2 ? 'deleted' : reference[i] === words[j] ? 'same' : 'changed'
    steps.push({ kind, at: i, to: j })
  }
  return steps.reverse()
}

/**
 * Return in what `words` differ from `reference`: words put in, left out and changed, and the most words in a row that were
 * left out or put in.
 */
export function differences(reference, words) {
  const found = { inserted: 0, deleted: 0, changed: 0, longestInserted: 0, longestDeleted: 0 }
  let [run, last] = [0, '']
  for (const { kind } of alignment(reference, words)) {
    run = kind === last ? run + 1 : 1
    last = kind
    if (kind === 'same') continue
    found[kind] += 1
    if (kind === 'inserted') found.longestInserted = Math.max(found.longestInserted, run)
    if (kind === 'deleted') found.longestDeleted = Math.max(found.longestDeleted, run)
  }
  return found
}

/** Words of segments, each with about when it is said: a segment's words share its time evenly. */
function timedWords(segments) {
  return segments.flatMap(({ start, end, text }) => {
    const words = wordsOf(text)
    return words.map((word, i) => ({ word, time: start + ((i + 0.5) / words.length) * (end - start) }))
  })
}

/** Where windows begin and end, in seconds: the segments of one window have its statistics. */
const bordersOf = (segments) =>
  segments.flatMap(({ start, end, avgLogprob }, i) => [
    ...(segments[i - 1]?.avgLogprob === avgLogprob ? [] : [start]),
    ...(segments[i + 1]?.avgLogprob === avgLogprob ? [] : [end]),
  ])

/** Seconds around a window's border within which words may differ. */
const BORDER = 2

/**
 * Count the words in which two transcripts of one recording differ, by where: in a part that one of them reports as skipped,
 * within two seconds of the border of a window, or elsewhere.
 */
export function placesOfDifferences(plain, other) {
  const [reference, words] = [timedWords(plain.segments), timedWords(other.segments)]
  const borders = [...bordersOf(plain.segments), ...bordersOf(other.segments)]
  const skipped = [...plain.skipped, ...other.skipped]
  const found = { skipped: 0, border: 0, elsewhere: { inserted: 0, deleted: 0, changed: 0 } }
  const steps = alignment(
    reference.map(({ word }) => word),
    words.map(({ word }) => word),
  )
  for (const { kind, at, to } of steps) {
    if (kind === 'same') continue
    const { time } = kind === 'inserted' ? words[to] : reference[at]
    if (skipped.some(({ start, end }) => time >= start - BORDER && time <= end + BORDER)) found.skipped += 1
    else if (borders.some((border) => Math.abs(time - border) <= BORDER)) found.border += 1
    else found.elsewhere[kind] += 1
  }
  return found
}

/**
 * Return the clips of a recording about which a transcript says nothing. It says something where half of the clip's
 * time is reported as skipped, or a third of its words stand in the segments around it, or these have two thirds as many words as the
 * clips in them, whatever the network understood.
 * @param texts by a clip's name, what a transcript of the clip alone has
 */
export function untoldClips(clips, texts, { segments, skipped }) {
  const overlap = (a, b) => Math.max(0, Math.min(a.end, b.end) - Math.max(a.start, b.start))
  return clips.filter((clip) => {
    const reported = skipped.reduce((sum, one) => sum + overlap(one, clip), 0)
    if (reported >= (clip.end - clip.start) / 2) return false
    const around = segments.filter((one) => overlap(one, clip) > 0)
    const words = wordsOf(around.map(({ text }) => text).join(' '))
    const reference = wordsOf(texts[clip.name])
    const same = alignment(reference, words).filter(({ kind }) => kind === 'same').length
    if (same >= reference.length / 3) return false
    const neighbors = clips.filter((other) => around.some((one) => overlap(one, other) > overlap(other, other) / 2))
    const expected = neighbors.flatMap(({ name }) => wordsOf(texts[name])).length
    return words.length < (2 / 3) * Math.max(expected, reference.length)
  })
}
