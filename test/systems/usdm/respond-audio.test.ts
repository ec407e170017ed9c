import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { BigVGAN, scope, setNumThreads, type Tensor, tensor, type UnitExtractor } from '../../../lib/index.js'
import { frameUnits, Usdm, type UsdmTokenizer, unitFrames } from '../../../lib/systems/usdm/index.js'
import { relativeError, settledTensors } from '../../helpers.js'
import {
  chirp,
  SCRIPT,
  type Script,
  scriptedLlm,
  TinyVocoder,
  TinyVoicebox,
  tinySpeech,
  tinyTokenizer,
  tinyUnits,
} from './tiny-parts.js'

// The sound of a reply in pieces: what each goes on from, where they meet, when the first is there.

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-respond-audio-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let tokenizer: UsdmTokenizer
let units: UnitExtractor
beforeAll(async () => {
  setNumThreads(1)
  tokenizer = await tinyTokenizer(join(folder, 'text'))
  units = await tinyUnits()
})

const scripted = (script: Script = {}, parts: object = {}, config: object = {}) =>
  new Usdm({ llm: scriptedLlm(tokenizer, { ...SCRIPT, ...script }, config), tokenizer, units, ...parts })
const QUESTION = { units: [1, 2, 3] }

it('UnitVoicebox and BigVGAN: whole, in pieces without a step at their seams, in a voice', async () => {
  const usdm = scripted({ '<|unit12|>': '<|unit5|>' }, tinySpeech())
  const options = { maxUnits: 60, steps: 3, seed: 7 }
  const whole = await usdm.respond(QUESTION, { ...options, reference: chirp(0.5) })
  expect(whole.wav?.samples).toHaveLength(256 * unitFrames(60))
  expect(await usdm.respond(QUESTION, { ...options, reference: chirp(0.5) })).toEqual(whole)
  expect((await usdm.respond(QUESTION, options)).wav).not.toEqual(whole.wav)
  const before = await settledTensors()
  const pieces: Float32Array[] = []
  for await (const event of usdm.stream(QUESTION, { ...options, firstUnits: 20, chunkUnits: 15 })) {
    if (event.type === 'speech' && event.samples) pieces.push(event.samples)
  }
  expect(await settledTensors()).toBe(before)
  const samples = pieces.flatMap((piece) => [...piece])
  expect(samples).toHaveLength(256 * unitFrames(60))
  // Where the vocoder's pieces meet, and within a frame of where the Voicebox's do.
  const ends = pieces.map((_, i) => pieces.slice(0, i + 1).reduce((sum, { length }) => sum + length, 0))
  const seams = [20, 35, 50].map((count) => 256 * unitFrames(count))
  const isSeam = (at: number) => ends.includes(at) || seams.some((seam) => Math.abs(at - seam) <= 256)
  expect(largestStep(samples, isSeam)).toBeLessThan(3 * largestStep(samples, (at) => !isSeam(at)))
}, 300_000)

/** Between a sample and the one before it, of those samples that are asked for. */
const largestStep = (samples: ArrayLike<number>, at: (sample: number) => boolean): number => {
  let most = 0
  for (let i = 1; i < samples.length; i++) if (at(i)) most = Math.max(most, Math.abs(samples[i]! - samples[i - 1]!))
  return most
}

const UNSET = { steps: undefined, solver: undefined, guidance: undefined, seed: undefined }

/** Glides from where its prompt ends to the level of each unit, so that what comes next depends on what was said last. */
class GlidingVoicebox extends TinyVoicebox {
  forgets = false

  override async generate({ units, prompt }: Parameters<TinyVoicebox['generate']>[0]): Promise<Tensor> {
    const ids = (units.toArray() as bigint[][])[0]!.map(Number)
    const known = prompt?.size(2) ?? 0
    this.calls.push({ ...UNSET, prompt: known, frames: ids.length, units: ids })
    return scope(() => {
      const levels = prompt ? (prompt.select(0, 0).select(0, 0).toArray() as number[]) : []
      for (const unit of ids.slice(known)) {
        const last = levels.length === 0 || (this.forgets && levels.length === known) ? 1 : levels.at(-1)!
        levels.push(last + 0.05 * ((unit % 2) - 0.5 - last))
      }
      return tensor(levels).expand([1, 80, levels.length]).clone()
    })
  }
}

/** Samples that stay as high as a frame's first band is. */
class StairVocoder extends TinyVocoder {
  override async forward({ mel }: { mel: Tensor }): Promise<{ waveform: Tensor }> {
    return { waveform: scope(() => mel.select(0, 0).select(0, 0).add(5.5).div(4).repeatInterleave(256).unsqueeze(0)) }
  }
  override async *stream(mel: AsyncIterable<Tensor>): AsyncGenerator<Tensor, void, undefined> {
    for await (const piece of mel) yield (await this.forward({ mel: piece.unsqueeze(0) })).waveform.select(0, 0)
  }
}

it('each piece goes on from the last of three seconds before it, behind the voice; one that did not would be heard', async () => {
  const voicebox = new GlidingVoicebox()
  const usdm = scripted({ '<|unit12|>': '<|unit5|>' }, { voicebox, vocoder: new StairVocoder() })
  using reference = await usdm.voice(chirp(0.5))
  const options = { maxUnits: 400, reference }
  const whole = await usdm.respond(QUESTION, options)
  const streamed = async () => {
    voicebox.calls = []
    const samples: number[] = []
    for await (const event of usdm.stream(QUESTION, { ...options, firstUnits: 20, chunkUnits: 60 })) {
      if (event.type === 'speech' && event.samples) samples.push(...event.samples)
    }
    return samples
  }
  const samples = await streamed()
  const begins = [0, 20, 80, 140, 200, 260, 320, 380].map((count) => unitFrames(count))
  const voice = reference.frames.length
  const context = Math.round((3 * 22_050) / 256)
  expect(voicebox.calls.map(({ prompt }) => prompt)).toEqual(begins.map((made) => voice + Math.min(made, context)))
  const frames = [...frameUnits(whole.units)]
  for (const [i, { units: said }] of voicebox.calls.entries()) {
    const made = begins[i] as number
    const own = frames.slice(Math.max(0, made - context), begins[i + 1] ?? frames.length)
    expect(said).toEqual([...reference.frames, ...own])
  }
  // What depends on no more than it is given is that of the whole.
  expect(samples).toHaveLength(256 * frames.length)
  expect(relativeError(Float32Array.from(samples), whole.wav!.samples)).toBeLessThan(1e-6)
  const seams = new Set(begins.map((made) => 256 * made))
  const [at, elsewhere] = [(sample: number) => seams.has(sample), (sample: number) => !seams.has(sample)]
  expect(largestStep(samples, elsewhere)).toBeGreaterThan(1e-3)
  expect(largestStep(samples, at)).toBeLessThanOrEqual(3 * largestStep(samples, elsewhere))
  voicebox.forgets = true
  const broken = await streamed()
  expect(largestStep(broken, at)).toBeGreaterThan(3 * largestStep(broken, elsewhere))
}, 300_000)

it('sound begins with the first piece of 50 units, though a BigVGAN as published looks 40 frames ahead', async () => {
  const config = { numMels: 80, upsampleInitialChannel: 64 }
  const published = BigVGAN.fromConfig({ ...BigVGAN.fromConfig('bigvgan_22khz_80band', { device: 'meta' }).config, ...config }, { seed: 2 }) // biome-ignore format: one line
  expect(published.receptiveFrames).toBe(40)
  const voicebox = new TinyVoicebox()
  const usdm = scripted({ '<|unit12|>': '<|unit5|>' }, { voicebox, vocoder: published.eval() })
  const first = async (options: object) => {
    let [written, rendered] = [0, 0]
    voicebox.calls = []
    for await (const event of usdm.stream(QUESTION, { maxUnits: 300, steps: 1, ...options })) {
      if (event.type !== 'speech') continue
      written += event.units.length
      rendered = voicebox.calls.reduce((sum, { frames }) => sum + frames, 0)
      if (event.samples) break
    }
    return { written, rendered }
  }
  // Of 300 units, and of the 516 frames that are rendered at once without a stream.
  expect(await first({})).toEqual({ written: 50, rendered: 86 })
  expect(await first({ firstUnits: 42 })).toEqual({ written: 42, rendered: 72 })
  // Fewer wait for the next piece.
  expect((await first({ firstUnits: 41 })).written).toBe(141)
})
