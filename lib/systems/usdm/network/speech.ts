import { melSpectrogram } from '../../../audio/features.js'
import { griffinLim, inverseMelSpectrogram } from '../../../audio/griffin-lim.js'
import { defined } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { ChangesOf } from '../../../base/settings.js'
import { BIGVGAN_MEL } from '../../../models/bigvgan/config.js'
import type { Module } from '../../../nn/module.js'
import { type Device, type DType, noGrad, ops, scope, type Tensor, tensor } from '../../../tensor/index.js'
import { keepForever } from '../../../tensor/scope.js'
import type { ANSWER_SETTINGS } from '../configuration/settings.js'
import { frameUnits, unitFrames } from '../data/frames.js'

/** Predicts mel spectrograms from units, in the voice of a prompt: a `UnitVoicebox`. */
export interface UsdmVoicebox extends Module {
  /** `nTokens`: number of units; `nFeats`: number of mel bands. */
  readonly config: { nTokens?: number; nFeats?: number }
  /** Generate a normalized mel spectrogram [1, nFeats, frames] from the units of frames, int64 [1, frames]. */
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

/** Generates samples from mel spectrograms: a `BigVGAN`, or a {@link GriffinLimVocoder}. */
export interface UsdmVocoder {
  /** In Hz. */
  readonly sampleRate: number
  readonly samplesPerFrame: number
  /** Generate samples [1, frames · samplesPerFrame] from a log-mel spectrogram [1, bands, frames]. */
  forward(inputs: { mel: Tensor }): Promise<{ waveform: Tensor }>
  /** Generate pieces of samples [n] from a stream of spectrograms [bands, frames]. Optional: without it, audio comes in one piece. */
  stream?(
    mel: AsyncIterable<Tensor>,
    options?: { chunkFrames?: number; signal?: AbortSignal },
  ): AsyncGenerator<Tensor, void, undefined>
}

const { sampleRate: RATE, ...MEL } = BIGVGAN_MEL

/** A vocoder without weights, for a first listen to a trained model. Its audio quality is low. */
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

/** The voice of a clip, to speak with. Owns its tensor until `dispose()`. */
export class UsdmVoice {
  /** @internal */
  constructor(
    /** The unit of each frame. */
    readonly frames: Int32Array,
    /** Normalized mel spectrogram of as many frames, [1, bands, frames]. */
    readonly mel: Tensor,
  ) {}

  dispose(): void {
    this.mel.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** Return the voice of samples [n] at 22.05 kHz with their units. */
export async function voiceOf(voicebox: UsdmVoicebox, samples: Tensor, units: ArrayLike<number>): Promise<UsdmVoice> {
  const all = frameUnits(requireUnits(voicebox, units))
  const count = Math.min(all.length, Math.floor(samples.size(0) / MEL.hopLength))
  // The spectrogram pads by reflection, which needs more samples than the padding.
  const least = Math.floor(MEL.padding / MEL.hopLength) + 1
  if (count < least) {
    throw new DataError(
      `Usdm: expected a reference clip of at least ${least} frames of ${MEL.hopLength} samples at ${RATE} Hz with their units, ` +
        `got ${samples.size(0)} samples with units for ${all.length} frames. Use a longer clip`,
      { samples: samples.size(0) },
    )
  }
  return noGrad(() =>
    scope(async () => {
      const heard = samples.narrow(0, 0, count * MEL.hopLength).clamp(-1, 1)
      const mel = await melSpectrogram(heard.unsqueeze(0), RATE, { ...MEL, nMels: voicebox.config.nFeats ?? 80 })
      return new UsdmVoice(all.slice(0, count), keepForever(voicebox.normalize(mel.to(placeOf(voicebox)))))
    }),
  )
}

/** Settings of the Voicebox. */
/** Settings of the speech of a reply. @interface */
export type UsdmSpeaking = Pick<ChangesOf<typeof ANSWER_SETTINGS.table>, 'steps' | 'solver' | 'guidance'>

export interface Speaking extends UsdmSpeaking {
  voicebox: UsdmVoicebox
  vocoder: UsdmVocoder
  voice?: UsdmVoice | undefined
  seed?: number | bigint | undefined
  signal?: AbortSignal | undefined
}

/** Maximum number of earlier frames that condition a piece: three seconds. */
const CONTEXT = Math.round((3 * RATE) / MEL.hopLength)

/**
 * Generate the audio of all units at once: samples from -1 to 1.
 * @throws DataError if there are no units
 */
export function speakAtOnce(speaking: Speaking, units: ArrayLike<number>): Promise<Float32Array> {
  const { voicebox, vocoder, voice, signal } = speaking
  if (units.length === 0) throw new DataError('Usdm: expected a reply with units, got none, so there is no audio')
  const pieceFrames = frameUnits(requireUnits(voicebox, units))
  return noGrad(() =>
    scope(async () => {
      const mel = voicebox.denormalize(await melOf(speaking, pieceFrames, voice ? [voice] : []))
      signal?.throwIfAborted()
      return samplesOf((await vocoder.forward({ mel: mel.unsqueeze(0) })).waveform)
    }),
  )
}

/**
 * Generate audio in pieces while units arrive. Each piece is conditioned on the voice and on the audio before it. At once, the Voicebox
 * sees the whole reply, so the results differ.
 */
export async function* speakInPieces(
  speaking: Speaking,
  units: AsyncIterable<number>,
  pieces: { firstUnits: number; chunkUnits: number },
): AsyncGenerator<Float32Array, void, undefined> {
  const { vocoder, signal } = speaking
  const mels = melPieces(speaking, units, pieces)
  try {
    if (vocoder.stream) {
      for await (const samples of vocoder.stream(mels, signal ? { signal } : {})) {
        const pieceSamples = await samplesOf(samples)
        samples.dispose()
        yield pieceSamples
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

/** Yield log-mel spectrograms [bands, frames] of pieces; each is disposed when the next one is requested. */
async function* melPieces(
  speaking: Speaking,
  source: AsyncIterable<number>,
  { firstUnits, chunkUnits }: { firstUnits: number; chunkUnits: number },
): AsyncGenerator<Tensor, void, undefined> {
  const { voicebox, voice } = speaking
  const units: number[] = []
  let doneFrames = 0
  let before: UsdmVoice | undefined
  let piece: Tensor | undefined
  const next = async (): Promise<Tensor> => {
    const pieceFrames = frameUnits(units).slice(doneFrames)
    const seed = speaking.seed === undefined ? undefined : BigInt(speaking.seed) + BigInt(doneFrames)
    const context = [voice, before].filter((one) => one !== undefined)
    const result = await noGrad(() =>
      scope(async () => {
        const mel = await melOf({ ...speaking, seed }, pieceFrames, context) // [bands, frames]
        const said = before ? ops.cat([before.mel.select(0, 0), mel], 1) : mel
        const from = Math.max(0, said.size(1) - CONTEXT)
        const kept = said
          .narrow(1, from, said.size(1) - from)
          .unsqueeze(0)
          .clone()
        const frames = Int32Array.from([...(before?.frames ?? []), ...pieceFrames].slice(from))
        return { mel: keepForever(voicebox.denormalize(mel)), said: new UsdmVoice(frames, keepForever(kept)) }
      }),
    )
    before?.dispose()
    piece?.dispose()
    before = result.said
    piece = result.mel
    doneFrames += pieceFrames.length
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
    if (unitFrames(units.length) > doneFrames) yield await next()
  } finally {
    before?.dispose()
    piece?.dispose()
  }
}

/** Return the normalized mel spectrogram [bands, frames] of frames, conditioned on voices. */
async function melOf(speaking: Speaking, pieceFrames: Int32Array, voices: readonly UsdmVoice[]): Promise<Tensor> {
  const { voicebox, steps, solver, guidance, seed, signal } = speaking
  const { device } = placeOf(voicebox)
  const before = voices.reduce((sum, { frames }) => sum + frames.length, 0)
  const all = BigInt64Array.from([...voices.flatMap(({ frames }) => [...frames]), ...pieceFrames], BigInt)
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
  return mel.select(0, 0).narrow(1, before, pieceFrames.length)
}

/** @throws DataError for a unit outside of the Voicebox's units */
function requireUnits<U extends ArrayLike<number>>({ config }: UsdmVoicebox, units: U): U {
  const most = config.nTokens ?? 10_000
  for (let i = 0; i < units.length; i++) {
    const unit = units[i] as number
    if (Number.isInteger(unit) && unit >= 0 && unit < most) continue
    throw new DataError(`Usdm: expected units from 0 to ${most - 1}, those of the Voicebox, got ${String(unit)}`, {
      unit,
      units: most,
    })
  }
  return units
}

const placeOf = (module: Module): { device: Device; dtype: DType } => {
  const [some] = module.parameters()
  return { device: some?.device ?? 'cpu', dtype: some?.dtype ?? 'float32' }
}

/** Return all samples of a waveform on the CPU, clamped to -1 … 1. */
async function samplesOf(waveform: Tensor): Promise<Float32Array> {
  return noGrad(() =>
    scope(async () => {
      const samples = waveform.detach().flatten().to({ device: 'cpu', dtype: 'float32' }).clamp(-1, 1)
      return (await samples.data()) as Float32Array
    }),
  )
}
