/** Prompts of one speaker, held-out parts, augmented batches and a tokenizer: used by parakeet-small.ts. */
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import * as vt from 'voxtorch'
import { normalText } from './salmonn-small-words.js'

/** Sample rate of the recordings, and of the model's features. */
export const RATE = 8000

export interface ParakeetDataSettings {
  /** Number of texts that are held out, and their least number of words. */
  heldOut: number
  heldOutWords: number
  /** Number of held-out sequences of digits and letters. */
  sequences: number
  /** Seconds of a prompt, at most. */
  longest: number
  /** Merges of the tokenizer's byte pair encoding. */
  merges: number
  /** The first steps: their number, the prompts they use, and how many in a row, at most. Later steps use all prompts. */
  stages: { steps: number; from: 'symbols' | 'short'; most: number }[]
}

export interface Prompt {
  name: string
  path: string
  text: string
  samples: vt.Tensor
}

/** Return the prompts whose text is in words, and that have so many seconds at most. */
export async function readPrompts(
  asterisk: string,
  transcripts: string,
  longest: number,
  rate: number,
): Promise<Prompt[]> {
  // biome-ignore format: one line
  const prompts: Prompt[] = []
  for (const line of readFileSync(transcripts, 'utf8').split('\n')) {
    const [, name = '', written = ''] = /^([^:\s]+?)(?:\.wav)?:\s*(\S.*)$/.exec(line) ?? []
    const path = resolve(asterisk, `${name}.wav`)
    const text = normalText(written)
    // Tones and silence stand in brackets. Numbers above 99 are not in words.
    if (/[[(<]/.test(written) || !/^[a-z' ]+$/.test(text) || name === '' || !existsSync(path)) continue
    const samples = await vt.readClip(path, { sampleRate: rate })
    if (samples.size(0) <= longest * rate) prompts.push({ name, path, text, samples })
  }
  return prompts
}

/** Choose texts whose words all occur in texts that remain. */
export function holdOut(
  prompts: readonly Prompt[],
  settings: Pick<ParakeetDataSettings, 'heldOut' | 'heldOutWords'>,
  random: vt.Random,
): Set<string> {
  // biome-ignore format: one line
  const texts = random.shuffle([...new Set(prompts.map(({ text }) => text))])
  const counts = new Map<string, number>()
  for (const word of texts.flatMap(uniqueWords)) counts.set(word, (counts.get(word) ?? 0) + 1)
  const heldOut = new Set<string>()
  for (const text of texts) {
    const words = uniqueWords(text)
    const isKnown = words.every((word) => counts.get(word)! > 1)
    if (heldOut.size === settings.heldOut || text.split(' ').length < settings.heldOutWords || !isKnown) continue
    heldOut.add(text)
    for (const word of words) counts.set(word, counts.get(word)! - 1)
  }
  return heldOut
}

const uniqueWords = (text: string): string[] => [...new Set(text.split(' '))]
const textOf = (parts: readonly Prompt[]): string => parts.map(({ text }) => text).join(' ')
const lengthOf = (parts: readonly Prompt[]): number => parts.reduce((sum, { samples }) => sum + samples.size(0), 0)

/** Join prompts with pauses between them. */
function joined(parts: readonly Prompt[], random: vt.Random, gain = () => 1): vt.Tensor {
  const pieces = parts.flatMap(({ samples }, i) => {
    const pause = i === 0 ? [] : [vt.zeros([Math.floor((0.05 + 0.35 * random.float()) * RATE)])]
    return [...pause, samples.mul(gain())]
  })
  return vt.cat(pieces)
}

/** Prompts to learn from, and what is drawn of them. */
export class PromptBatches {
  readonly #pools: Record<'all' | 'short' | 'symbols', readonly Prompt[]>
  readonly #settings: ParakeetDataSettings
  readonly #seed: number
  /** Texts of the held-out sequences. */
  readonly #reserved = new Set<string>()

  constructor(prompts: readonly Prompt[], settings: ParakeetDataSettings, seed: number) {
    const short = prompts.filter(({ samples }) => samples.size(0) < 2 * RATE)
    const symbols = prompts.filter(({ name }) => /^(digits\/\d|letters\/[a-z])$/.test(name))
    this.#pools = { all: prompts, short, symbols }
    this.#settings = settings
    this.#seed = seed
  }

  /** Write sequences of 3 to 5 digits and letters, which no batch has. */
  async writeSequences(folder: string, random: vt.Random): Promise<{ path: string; right: string }[]> {
    mkdirSync(folder, { recursive: true })
    const files: { path: string; right: string }[] = []
    while (files.length < this.#settings.sequences) {
      const parts = this.#draw('symbols', 3 + random.below(3), random)
      files.push({ path: resolve(folder, `${files.length}.wav`), right: textOf(parts) })
      await vt.scope(() => vt.writeWav(files.at(-1)!.path, joined(parts, random), { sampleRate: RATE }))
    }
    for (const { right } of files) this.#reserved.add(right)
    return files
  }

  /** Return clips of similar lengths with their texts. They depend on the seed and the step only, so a training can resume. */
  async batch(step: number, size: number): Promise<{ clips: vt.Tensor[]; texts: string[]; random: vt.Random }> {
    const random = new vt.Random(this.#seed, 1 + step)
    const drawn = Array.from({ length: 3 * size }, () => this.#sample(step, random))
    const from = size * random.below(3)
    const rows = drawn.sort((a, b) => lengthOf(a) - lengthOf(b)).slice(from, from + size)
    const clips: vt.Tensor[] = []
    for (const parts of rows) clips.push(await augmented(parts, random))
    return { clips, texts: rows.map(textOf), random }
  }

  #sample(step: number, random: vt.Random): Prompt[] {
    let done = 0
    const stage = this.#settings.stages.find(({ steps }) => step < (done += steps))
    for (;;) {
      const joins = random.float() < 0.5
      const from = random.float() < 0.3 ? 'symbols' : 'short'
      const parts = stage
        ? this.#draw(stage.from, 1 + random.below(stage.most), random)
        : joins
          ? this.#draw(from, 2 + random.below(4), random)
          : this.#draw('all', 1, random)
      if (!this.#reserved.has(textOf(parts))) return parts
    }
  }

  #draw(from: 'all' | 'short' | 'symbols', count: number, random: vt.Random): Prompt[] {
    const pool = this.#pools[from]
    return Array.from({ length: count }, () => pool[random.below(pool.length)]!)
  }
}

/** Join prompts at different levels, change the speed by up to a fifth, and add noise 10 to 50 dB below the speech. */
async function augmented(parts: readonly Prompt[], random: vt.Random): Promise<vt.Tensor> {
  const sound = joined(parts, random, () => 10 ** (0.6 * random.float() - 0.3))
  const clip = await vt.resample(sound, 16 + random.below(9), 20)
  const noise = clip.square().mean().sqrt().mul(10 ** (-0.5 - 2 * random.float())) // biome-ignore format: one line
  return clip.add(vt.randn(clip.shape, { generator: new vt.Generator(random.uint32()) }).mul(noise))
}

/** Write a tokenizer: byte pair encoding of the texts, in which ▁ begins a word. */
export async function writeTokenizer(folder: string, texts: Iterable<string>, count: number): Promise<void> {
  const words = [...texts].flatMap((text) => text.split(' ')).map((word) => ['▁', ...word])
  const merges: [string, string][] = []
  while (merges.length < count) {
    const counts = new Map<string, number>()
    for (const pair of words.flatMap((parts) => parts.slice(1).map((part, i) => `${parts[i]} ${part}`)))
      counts.set(pair, (counts.get(pair) ?? 0) + 1)
    const [best] = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
    if (best === undefined) break
    const [left, right] = best[0].split(' ') as [string, string]
    merges.push([left, right])
    for (const parts of words)
      for (let i = 1; i < parts.length; i += 1)
        if (parts[i - 1] === left && parts[i] === right) parts.splice(i - 1, 2, left + right)
  }
  const tokens = new Set(['<unk>', '<pad>', ..."▁'abcdefghijklmnopqrstuvwxyz", ...merges.map((pair) => pair.join('')), '<blank>']) // biome-ignore format: one line
  const vocab = Object.fromEntries([...tokens].map((token, id) => [token, id]))
  const spaces = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true }
  const special = ['<unk>', '<pad>', '<blank>'].map((content) => ({ id: vocab[content], content, special: true }))
  mkdirSync(folder, { recursive: true })
  await vt.writeJson(join(folder, 'tokenizer.json'), {
    model: { type: 'BPE', unk_token: '<unk>', vocab, merges },
    ...{ pre_tokenizer: spaces, decoder: spaces, added_tokens: special },
  })
  const names = { tokenizer_class: 'ParakeetTokenizer', unk_token: '<unk>', pad_token: '<pad>' }
  await vt.writeJson(join(folder, 'tokenizer_config.json'), names)
}
