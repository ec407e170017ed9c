/** Clips with their texts: used by audio-lm-small.ts. */
import { mkdirSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import * as vt from 'voxtorch'
import { holdOut, type Prompt, readPrompts } from './parakeet-small-data.js'
import { normalText } from './salmonn-small-words.js'

export interface Spoken {
  kind: 'prompts' | 'sequences' | 'librispeech'
  /** Path in the data's folder. */
  path: string
  text: string
  /** The text with errors. */
  wrong: string
  seconds: number
}

export interface Sources {
  asterisk: string
  transcripts: string
  /** Folder with one of each speaker; the last two speakers are held out. Default: none. */
  librispeech?: string | undefined
  /** Name or folder of the Whisper that transcribes them. */
  whisper: string
}

/** Number of held-out texts, and the least number of their words. */
const HELD_OUT = { heldOut: 40, heldOutWords: 3 }
/** Number of sequences of two to five prompts. */
const SEQUENCES = { train: 1200, heldOut: 40 }
/** Seconds of a clip, at most. */
const LONGEST = 8
const RATE = 16000

/** Write the clips below `out/clips`. */
export async function writeClips(out: string, sources: Sources): Promise<{ train: Spoken[]; heldOut: Spoken[] }> {
  const random = new vt.Random(0)
  const train: Spoken[] = []
  const heldOut: Spoken[] = []
  const write = async (to: Spoken[], kind: Spoken['kind'], text: string, samples: vt.Tensor) => {
    const path = `clips/${kind}-${to === train ? 'train' : 'held-out'}-${to.length}.wav`
    await vt.writeWav(join(out, path), samples, { sampleRate: RATE })
    to.push({ kind, path, text, wrong: '', seconds: samples.size(0) / RATE })
  }
  mkdirSync(join(out, 'clips'), { recursive: true })

  const prompts = await readPrompts(sources.asterisk, sources.transcripts, LONGEST, RATE)
  const hidden = holdOut(prompts, HELD_OUT, random)
  for (const { text, samples } of prompts) await write(hidden.has(text) ? heldOut : train, 'prompts', text, samples)

  const symbols = prompts.filter(({ name }) => /^(digits\/\d|letters\/[a-z])$/.test(name))
  const short = prompts.filter(({ text, samples }) => !hidden.has(text) && samples.size(0) < 1.5 * RATE)
  const reserved = new Set<string>()
  for (const [to, count] of [
    [heldOut, SEQUENCES.heldOut],
    [train, SEQUENCES.train],
  ] as const) {
    for (let done = 0; done < count; ) {
      const pool = to === heldOut || random.float() < 0.4 ? symbols : short
      const parts = Array.from({ length: 2 + random.below(4) }, () => pool[random.below(pool.length)]!)
      const text = parts.map((one) => one.text).join(' ')
      if (reserved.has(text)) continue
      if (to === heldOut) reserved.add(text)
      await write(to, 'sequences', text, joined(parts, random))
      done += 1
    }
  }

  const speakers = sources.librispeech === undefined ? [] : folders(sources.librispeech)
  const whisper = speakers.length === 0 ? null : await vt.Whisper.fromPretrained(sources.whisper)
  for (const [i, folder] of speakers.entries()) {
    for (const name of readdirSync(folder)
      .filter((file) => file.endsWith('.flac'))
      .sort()) {
      const samples = await vt.readClip(join(folder, name), { sampleRate: RATE })
      if (samples.size(0) > LONGEST * RATE) continue
      const { text } = await whisper!.transcribe(join(folder, name), { language: 'en' })
      await write(i >= speakers.length - 2 ? heldOut : train, 'librispeech', normalText(text), samples)
    }
  }
  const words = [...new Set(train.flatMap(({ text }) => text.split(' ')))]
  for (const one of [...train, ...heldOut]) one.wrong = withErrors(one.text, words, random)
  return { train: random.shuffle(train), heldOut }
}

/** Join prompts with pauses between them. */
function joined(parts: readonly Prompt[], random: vt.Random): vt.Tensor {
  return vt.cat(parts.flatMap(({ samples }) => [samples, vt.zeros([Math.floor((0.05 + 0.2 * random.float()) * RATE)])]))
}

/** Change, drop or double a word in three, and at least one. */
function withErrors(text: string, words: readonly string[], random: vt.Random): string {
  const right = text.split(' ')
  const other = () => words[random.below(words.length)]!
  const certain = random.below(right.length)
  const changed = right.flatMap((word, i) => {
    if (i !== certain && random.float() > 0.33) return word
    return [[other()], [], [word, word]][right.length === 1 ? 0 : random.below(3)]!
  })
  const wrong = changed.join(' ')
  return wrong === text || wrong === '' ? `${wrong} ${other()}`.trim() : wrong
}

const folders = (root: string): string[] =>
  readdirSync(root)
    .sort()
    .map((name) => join(root, name))
    .filter((path) => statSync(path).isDirectory())
