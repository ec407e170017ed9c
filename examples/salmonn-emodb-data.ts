/** Emo-DB as dialogs of several clips, in the form that SALMONN's training reads: made once, and used by salmonn-emodb.ts. */

import { existsSync, mkdirSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import * as vt from 'voxtorch'
import { readCsv } from 'voxtorch/files'
import * as salmonn from 'voxtorch/salmonn'
import { averageSpectrum, equalised, listen } from './salmonn-emodb-voices.js'

export interface DialogSettings {
  validSpeakers: string[]
  testSpeakers: string[]
  /** Clips of a dialog, at most; dialogs to learn from have fewer now and then. */
  turns: number
  /** Number of dialogs with each clip, in training and in validation and test. */
  passes: number
  measuredPasses: number
  /** Voices faster and higher, or slower and deeper, are further speakers to learn from. */
  speeds: number[]
  /** Whether a dialog to learn from has the voices of several actors. */
  mixed: boolean
  seed: number
}

interface Clip {
  path: string
  actor: string
  emotion: string
}

/** An item of the training data, as the challenge's converted dialogs are. */
interface Dialog {
  dialogue_id: string
  speaker: string
  input_text: string
  target_text: string
  audio_files: string[]
  emotion_sequence: string[]
}

const QUESTION = 'Which emotions follow each other ?'
const SPLITS = ['train', 'valid', 'test'] as const
export type DialogFiles = Record<(typeof SPLITS)[number] | 'tokenizer', string>

/**
 * Writes dialogs, for every split those of other actors, and a tokenizer of whole words. Dialogs to measure with are of one
 * actor each. What is there already stays.
 */
export async function writeDialogs(data: string, out: string, settings: DialogSettings): Promise<DialogFiles> {
  const files = Object.fromEntries(SPLITS.map((split) => [split, join(out, `${split}.json`)])) as DialogFiles
  files.tokenizer = join(out, 'tokenizer')
  const done = join(out, 'dialogs.json')
  if (existsSync(done)) {
    if (JSON.stringify(await vt.readJson(done)) === JSON.stringify(settings)) return files
    throw new Error(`${out} holds dialogs of other settings: name another folder with --out, or remove it`)
  }
  mkdirSync(join(out, 'wav'), { recursive: true })
  const rows = await readCsv(join(data, 'labels.csv'))
  const found = rows.map(({ file, actor, emotion }) => ({
    path: resolve(data, file!),
    actor: actor!,
    emotion: emotion!,
  }))
  const { validSpeakers, testSpeakers, turns, passes, measuredPasses, speeds, mixed, seed } = settings
  const gains = await voiceGains(found, [...validSpeakers, ...testSpeakers])
  const written = (some: Clip[], speed: number) => Promise.all(some.map((clip) => spoken(clip, speed, gains, out)))
  const clips = await written(found, 1)
  const heard = found.filter(({ actor }) => ![...validSpeakers, ...testSpeakers].includes(actor))
  const voices = await Promise.all(speeds.map((speed) => written(heard, speed)))
  const random = new vt.Random(seed)
  const training = Array.from({ length: passes }, (_, pass) => {
    const drawn = heard.map((_, i) => voices[random.below(speeds.length)]![i]!)
    const cast = mixed ? drawn.map((clip) => ({ ...clip, actor: 'several' })) : drawn
    return dialogs(cast, pass, random, () => 1 + random.below(turns))
  })
  // Those to measure with are all of one length, so what is left over of an actor's clips waits for the next pass.
  const measured = (actors: string[]) => {
    const own = clips.filter(({ actor }) => actors.includes(actor))
    const all = Array.from({ length: measuredPasses }, (_, pass) => dialogs(own, pass, random, () => turns))
    return all.flat().filter(({ audio_files }) => audio_files.length === turns)
  }
  await vt.writeJson(files.train, { annotation: training.flat() })
  await vt.writeJson(files.valid, { annotation: measured(validSpeakers) })
  await vt.writeJson(files.test, { annotation: measured(testSpeakers) })
  await writeTokenizer(files.tokenizer, turns, [...new Set(clips.map(({ emotion }) => emotion))].sort())
  await vt.writeJson(done, settings)
  return files
}

/**
 * Return gains that equalize the average spectrum of each actor to that of the training actors, because the natural brightness
 * of a voice is independent of its emotion. Needs recordings of a voice, but no labels.
 */
async function voiceGains(clips: Clip[], heldOut: string[]): Promise<Map<string, vt.Tensor>> {
  const actors = [...new Set(clips.map(({ actor }) => actor))]
  const spectra = await Promise.all(
    actors.map((actor) => averageSpectrum(clips.filter((clip) => clip.actor === actor).map(({ path }) => path))),
  )
  const gains = vt.scope(() => {
    const usual = vt.stack(spectra.filter((_, i) => !heldOut.includes(actors[i]!))).mean([0])
    return spectra.map((own) => usual.sub(own))
  })
  return new Map(actors.map((actor, i) => [actor, gains[i]!]))
}

/** Write the equalized clip, once; another speed makes another voice. */
async function spoken(clip: Clip, speed: number, gains: Map<string, vt.Tensor>, out: string): Promise<Clip> {
  const path = resolve(out, 'wav', `${basename(clip.path, '.wav')}-${speed}.wav`)
  await vt.scope(async () => {
    const samples = equalised(await listen(clip.path, speed), gains.get(clip.actor)!)
    await vt.writeWav(path, samples, { sampleRate: salmonn.SALMONN_RATE })
  })
  return { ...clip, path }
}

/** Each clip once, in dialogs of its actor's clips. */
function dialogs(clips: Clip[], pass: number, random: vt.Random, size: () => number): Dialog[] {
  const actors = [...new Set(clips.map(({ actor }) => actor))]
  return actors.flatMap((actor) => {
    const rest = random.shuffle(clips.filter((clip) => clip.actor === actor))
    const made: Dialog[] = []
    while (rest.length > 0) {
      const turns = rest.splice(0, size())
      const emotions = turns.map(({ emotion }) => emotion)
      made.push({
        dialogue_id: `${actor}-${pass}-${made.length}`,
        speaker: actor,
        input_text: QUESTION,
        target_text: salmonn.writeEmotionSuffix('', emotions, 'en').trim(),
        audio_files: turns.map(({ path }) => path),
        emotion_sequence: emotions,
      })
    }
    return made
  })
}

/** All words that occur. */
async function writeTokenizer(folder: string, turns: number, emotions: string[]): Promise<void> {
  mkdirSync(folder, { recursive: true })
  const special = ['<unk>', '<s>', '</s>']
  const prompts = Array.from({ length: turns }, (_, i) => {
    const blocks = Array.from({ length: i + 1 }, () => 1)
    return salmonn
      .buildSalmonnPrompt({ prompt: `${salmonn.SPEECH_BLOCK} ${QUESTION}`, blocks })
      .split(salmonn.SPEECH_MARKER)
  })
  const texts = [...prompts.flat(), salmonn.writeEmotionSuffix('', emotions, 'en')]
  const words = new Set([...special, ...texts.flatMap((text) => text.split(/\s+/))].filter((word) => word !== ''))
  await vt.writeJson(join(folder, 'tokenizer.json'), {
    version: '1.0',
    added_tokens: special.map((content, id) => ({ id, content, special: true, normalized: false })),
    pre_tokenizer: { type: 'WhitespaceSplit' },
    model: { type: 'WordLevel', unk_token: '<unk>', vocab: Object.fromEntries([...words].map((word, i) => [word, i])) },
  })
  const [unk_token, bos_token, eos_token] = special
  await vt.writeJson(join(folder, 'tokenizer_config.json'), { unk_token, bos_token, eos_token })
}

/** The same questions, each with the clips of another dialog. */
export function withOtherAudio(entries: readonly salmonn.SalmonnEntry[], seed: number): salmonn.SalmonnEntry[] {
  const order = new vt.Random(seed).shuffle(entries.map((_, i) => i))
  const other = new Map(order.map((from, k) => [from, order[(k + 1) % order.length]!]))
  return entries.map((entry, i) => ({ ...entry, audio: entries[other.get(i)!]!.audio }))
}

/** Turn accuracy of whoever always says the emotion that is most frequent there. */
export function mostFrequent(entries: readonly salmonn.SalmonnEntry[]): number {
  const all = entries.flatMap(({ emotions = [] }) => emotions)
  const counts = new Map<string, number>()
  for (const emotion of all) counts.set(emotion, (counts.get(emotion) ?? 0) + 1)
  return Math.max(...counts.values()) / all.length
}
