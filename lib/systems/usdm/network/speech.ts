import { melSpectrogram } from '../../../audio/features.js'
import { griffinLim, inverseMelSpectrogram } from '../../../audio/griffin-lim.js'
import { defined } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { BIGVGAN_MEL } from '../../../models/bigvgan/config.js'
import type { Module } from '../../../nn/module.js'
import { type Device, type DType, noGrad, ops, scope, type Tensor, tensor } from '../../../tensor/index.js'
import { keepForever } from '../../../tensor/scope.js'
import { frameUnits, unitFrames } from '../data/frames.js'

/** What makes mel spectrograms of units, in the voice of a prompt: a `UnitVoicebox`. */
export interface UsdmVoicebox extends Module {
  /** `nTokens`: units; `nFeats`: bands. */
  readonly config: { nTokens?: number; nFeats?: number }
  /** Units of frames int64 [1, frames] -> [1, nFeats, frames], normalised. */
  generate(inputs: {
    units: Tensor
    prompt?: Tensor
    steps?: number
    solver?: 'euler' | 'heun'
    guidance?: number
    seed?: number | bigint
    signal?: AbortSignal
  }): Promise<Tensor>
  normalize(mel: Tensor): Tensor
  denormalize(mel: Tensor): Tensor
}

/** What makes samples of mel spectrograms: a `BigVGAN`, or a {@link GriffinLimVocoder}. */
export interface UsdmVocoder {
  /** In Hz. */
  readonly sampleRate: number
  readonly samplesPerFrame: number
  /** Log-mel spectrogram [1, bands, frames] -> [1, frames · samplesPerFrame]. */
  forward(inputs: { mel: Tensor }): Promise<{ waveform: Tensor }>
  /** The same of pieces as they come, each [bands, frames], as pieces of samples [n]. Left out: only whole. */
  stream?(
    mel: AsyncIterable<Tensor>,
    options?: { chunkFrames?: number; signal?: AbortSignal },
  ): AsyncGenerator<Tensor, void, undefined>
}

const { sampleRate: RATE, ...MEL } = BIGVGAN_MEL

/** A vocoder without weights, so that what was trained can be heard at once: voices come out as from a tin. */
export class GriffinLimVocoder implements UsdmVocoder {
  readonly sampleRate = RATE
  readonly samplesPerFrame = MEL.hopLength

  async forward({ mel }: { mel: Tensor }): Promise<{ waveform: Tensor }> {
    const { nFft, fMax, log, hopLength, padding } = MEL
    const waveform = await noGrad(() =>
      scope(async () => {
        const magnitudes = await inverseMelSpectrogram(mel.to({ dtype: 'float32' }), RATE, { nFft, fMax, log })
        const samples = await griffinLim(magnitudes, { hopLength, padding, seed: 0 })
        const wanted = mel.size(2) * hopLength
        const found = samples.size(1)
        const whole = found < wanted ? ops.constantPadNd(samples, [0, wanted - found]) : samples.narrow(1, 0, wanted)
        return whole.clamp(-1, 1)
      }),
    )
    return { waveform }
  }
}

/** A voice to speak with: how a clip sounds. Owns its tensor until `dispose()`. */
export class UsdmVoice {
  /** @internal */
  constructor(
    /** The unit of each frame. */
    readonly frames: Int32Array,
    /** Normalised mel spectrogram of as many frames, [1, bands, frames]. */
    readonly mel: Tensor,
  ) {}

  dispose(): void {
    this.mel.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** A voice, of samples [n] at 22.05 kHz and their units. */
export async function voiceOf(voicebox: UsdmVoicebox, samples: Tensor, units: ArrayLike<number>): Promise<UsdmVoice> {
  const all = frameUnits(requireUnits(voicebox, units))
  const count = Math.min(all.length, Math.floor(samples.size(0) / MEL.hopLength))
  // The spectrogram mirrors the ends.
  if (count * MEL.hopLength <= MEL.padding) {
    throw new DataError(`Usdm: the clip whose voice is wanted has ${samples.size(0)} samples at ${RATE} Hz, too few`, {
      samples: samples.size(0),
    })
  }
  return noGrad(() =>
    scope(async () => {
      const heard = samples.narrow(0, 0, count * MEL.hopLength).clamp(-1, 1)
      const mel = await melSpectrogram(heard.unsqueeze(0), RATE, { ...MEL, nMels: voicebox.config.nFeats ?? 80 })
      return new UsdmVoice(all.slice(0, count), keepForever(voicebox.normalize(mel.to(placeOf(voicebox)))))
    }),
  )
}

/** How units are spoken. */
export interface UsdmSpeaking {
  /** Evaluations of the Voicebox for each piece. Default 50, as published; 15 is the original demo's. */
  steps?: number
  /** Default 'heun'. */
  solver?: 'euler' | 'heun'
  /** Of classifier-free guidance. Default 1. */
  guidance?: number
}

export interface Speaking extends UsdmSpeaking {
  voicebox: UsdmVoicebox
  vocoder: UsdmVocoder
  voice?: UsdmVoice | undefined
  seed?: number | bigint | undefined
  signal?: AbortSignal | undefined
}

/** Frames of what was said before that a piece goes on from: three seconds. */
const CONTEXT = Math.round((3 * RATE) / MEL.hopLength)

/**
 * All units at once, as samples from -1 to 1.
 * @throws DataError where there are none
 */
export function spokenWhole(speaking: Speaking, units: ArrayLike<number>): Promise<Float32Array> {
  const { voicebox, vocoder, voice, signal } = speaking
  if (units.length === 0) throw new DataError('Usdm: the reply has no units, so there is nothing to be heard', {})
  const own = frameUnits(requireUnits(voicebox, units))
  return noGrad(() =>
    scope(async () => {
      const mel = voicebox.denormalize(await melOf(speaking, own, voice ? [voice] : []))
      signal?.throwIfAborted()
      return samplesOf((await vocoder.forward({ mel: mel.unsqueeze(0) })).waveform)
    }),
  )
}

/**
 * Units as they come, as samples as they come: pieces are made one after the other, each with the voice and what was said
 * before it as its prompt. Made at once the Voicebox hears the whole reply, so that this is another result.
 */
export async function* spokenAsTheyCome(
  speaking: Speaking,
  units: AsyncIterable<number>,
  pieces: { firstUnits: number; chunkUnits: number },
): AsyncGenerator<Float32Array, void, undefined> {
  const { vocoder, signal } = speaking
  const mels = melPieces(speaking, units, pieces)
  try {
    if (vocoder.stream) {
      for await (const samples of vocoder.stream(mels, signal ? { signal } : {})) {
        const given = await samplesOf(samples)
        samples.dispose()
        yield given
      }
      return
    }
    const all: Tensor[] = []
    try {
      for await (const mel of mels) all.push(mel.clone())
      if (all.length === 0) return
      yield await noGrad(() =>
        scope(async () => samplesOf((await vocoder.forward({ mel: ops.cat(all, 1).unsqueeze(0) })).waveform)),
      )
    } finally {
      for (const mel of all) mel.dispose()
    }
  } finally {
    await mels.return()
  }
}

/** Log-mel spectrograms [bands, frames] of pieces; each lives until the next is asked for. */
async function* melPieces(
  speaking: Speaking,
  source: AsyncIterable<number>,
  { firstUnits, chunkUnits }: { firstUnits: number; chunkUnits: number },
): AsyncGenerator<Tensor, void, undefined> {
  const { voicebox, voice } = speaking
  const units: number[] = []
  let made = 0
  let before: UsdmVoice | undefined
  let piece: Tensor | undefined
  const next = async (): Promise<Tensor> => {
    const own = frameUnits(units).slice(made)
    const seed = speaking.seed === undefined ? undefined : BigInt(speaking.seed) + BigInt(made)
    const context = [voice, before].filter((one) => one !== undefined)
    const result = await noGrad(() =>
      scope(async () => {
        const mel = await melOf({ ...speaking, seed }, own, context) // [bands, frames]
        const said = before ? ops.cat([before.mel.select(0, 0), mel], 1) : mel
        const from = Math.max(0, said.size(1) - CONTEXT)
        const kept = said
          .narrow(1, from, said.size(1) - from)
          .unsqueeze(0)
          .clone()
        const frames = Int32Array.from([...(before?.frames ?? []), ...own].slice(from))
        return { mel: keepForever(voicebox.denormalize(mel)), said: new UsdmVoice(frames, keepForever(kept)) }
      }),
    )
    before?.dispose()
    piece?.dispose()
    before = result.said
    piece = result.mel
    made += own.length
    return piece
  }
  try {
    let wanted = firstUnits
    for await (const unit of source) {
      units.push(unit)
      requireUnits(voicebox, [unit])
      if (units.length < wanted) continue
      wanted = units.length + chunkUnits
      yield await next()
    }
    if (unitFrames(units.length) > made) yield await next()
  } finally {
    before?.dispose()
    piece?.dispose()
  }
}

/** The normalised mel spectrogram [bands, frames] of frames, behind those of voices. */
async function melOf(speaking: Speaking, own: Int32Array, voices: readonly UsdmVoice[]): Promise<Tensor> {
  const { voicebox, steps, solver, guidance, seed, signal } = speaking
  const { device } = placeOf(voicebox)
  const before = voices.reduce((sum, { frames }) => sum + frames.length, 0)
  const all = BigInt64Array.from([...voices.flatMap(({ frames }) => [...frames]), ...own], BigInt)
  const mel = await voicebox.generate({
    units: tensor(all, { device }).unsqueeze(0),
    ...(before > 0 && {
      prompt: ops.cat(
        voices.map((voice) => voice.mel),
        2,
      ),
    }),
    ...defined({ steps, solver, guidance, seed, signal }),
  })
  return mel.select(0, 0).narrow(1, before, own.length)
}

/** @throws DataError for a unit that the Voicebox has not */
function requireUnits<U extends ArrayLike<number>>({ config }: UsdmVoicebox, units: U): U {
  const most = config.nTokens ?? 10_000
  for (let i = 0; i < units.length; i++) {
    const unit = units[i] as number
    if (Number.isInteger(unit) && unit >= 0 && unit < most) continue
    throw new DataError(`Usdm: ${String(unit)} is no unit of the Voicebox, which has ${most}`, { unit, units: most })
  }
  return units
}

const placeOf = (module: Module): { device: Device; dtype: DType } => {
  const [some] = module.parameters()
  return { device: some?.device ?? 'cpu', dtype: some?.dtype ?? 'float32' }
}

/** Samples of the first row, or of the only one. */
async function samplesOf(waveform: Tensor): Promise<Float32Array> {
  return noGrad(() =>
    scope(async () => {
      const samples = waveform.detach().flatten().to({ device: 'cpu', dtype: 'float32' }).clamp(-1, 1)
      return (await samples.data()) as Float32Array
    }),
  )
}
