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
 * Return in what `words` differ from `reference`, by the alignment with the fewest changes: words put in, left out and
 * changed, and the most words in a row that were left out or put in.
 */
export function differences(reference, words) {
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
  const found = { inserted: 0, deleted: 0, changed: 0, longestInserted: 0, longestDeleted: 0 }
  let [i, j, run, last] = [reference.length, words.length, 0, 0]
  while (i > 0 || j > 0) {
    const move = moves[i * width + j]
    run = move === last ? run + 1 : 1
    last = move
    if (move === 0) {
      i -= 1
      j -= 1
      if (reference[i] !== words[j]) found.changed += 1
    } else if (move === 1) {
      j -= 1
      found.inserted += 1
      found.longestInserted = Math.max(found.longestInserted, run)
    } else {
      i -= 1
      found.deleted += 1
      found.longestDeleted = Math.max(found.longestDeleted, run)
    }
  }
  return found
}
