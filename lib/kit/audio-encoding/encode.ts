import { fitSamples, SPEECH_RATE } from '../../audio/clip.js'
import { logMelSpectrogram } from '../../audio/features.js'
import { requireNumber, requireOneOf } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import type { Beats } from '../../models/beats/beats.js'
import type { QFormer } from '../../models/q-former/q-former.js'
import { melBinsOf, type WhisperConfig, windowOf } from '../../models/whisper/config.js'
import type { WhisperEncoder } from '../../models/whisper/whisper.js'
import type { Linear } from '../../nn/linear.js'
import type { Module } from '../../nn/module.js'
import type { LayerNorm } from '../../nn/normalization.js'
import { cat, noGrad, scope, stack, type Tensor, zeros } from '../../tensor/index.js'
import { lengthMask, type PaddedClips, padClips } from '../pad.js'
import { type AudioFrames, clipKey, type EncoderFrames, type SalmonnFrames } from './frames.js'
import { type ClipWindow, equalWindows, overlappingWindows } from './windows.js'

const HOP = 160
const FFT = 400
/** Samples per frame of Whisper's encoder output. */
const FRAME = 2 * HOP
const BANDS = 128
/** Minimum number of samples for one patch of BEATs. */
export const LEAST_HEARD = 2800
/** Minimum number of samples in the published code, one second. */
const PUBLISHED_LEAST = SPEECH_RATE
/** Number of windows that frozen encoders process at once: enough for their kernels, with little memory. */
const GROUP = 8
/**
 * Overlap in seconds. BEATs' positional convolution covers 1.28 s on either side (64 tokens, 8 of which are a patch of 160 ms), so
 * the middle of an overlap has its full context.
 */
const OVERLAP = 2.56

/** Networks that compute audio embeddings in SALMONN (Tang et al. 2024, https://arxiv.org/abs/2310.13289). */
export interface AudioEncoderParts {
  whisper: WhisperEncoder
  /** BEATs and its norm; null if Whisper is the only encoder. */
  audio: { beats: Beats; lnAudio: LayerNorm } | null
  lnSpeech: LayerNorm
  qformer: QFormer
  projection: Linear
  /** Cache of the frozen encoders' outputs. */
  frames: SalmonnFrames | null
}

/** Options of the audio encoding. */
export interface AudioEncoding {
  compat: 'published' | undefined
  /** Overlap of windows in seconds. */
  overlap: number
}

/**
 * Complete the options of the audio encoding and check them.
 * @throws ConfigError for an overlap of more than half of the encoder's window
 */
export function audioEncoding(
  where: string,
  whisper: WhisperConfig,
  { compat, overlap }: { compat?: 'published' | undefined; overlap?: number | undefined },
): AudioEncoding {
  const most = (HOP * windowOf(whisper)) / SPEECH_RATE
  if (compat !== undefined) requireOneOf(where, 'compat', compat, ['published'])
  if (overlap !== undefined) requireNumber(where, 'overlap', overlap, { least: 0 })
  if (overlap !== undefined && overlap > most / 2) {
    throw new ConfigError(
      `${where}: overlap: expected at most ${most / 2} s, half of the encoder's window, got ${overlap}. Lower it.`,
      { overlap },
    )
  }
  return { compat, overlap: overlap ?? Math.min(OVERLAP, most / 4) }
}

/**
 * Encode clips of 16 kHz samples as embeddings of the language model, [tokens, hiddenSize] for each clip. Clips longer than the
 * encoder's window (30 s) are encoded in overlapping windows; each token of an overlap is used once.
 *
 * By default the number of tokens depends on the clip's length, and a clip's embeddings do not depend on the batch. `'published'`
 * splits without overlap, pads each window to 30 s (88 tokens), and handles the batch's padding in BEATs as the published code.
 */
export function encodeClips(
  encoders: AudioEncoderParts,
  clips: readonly Tensor[],
  encoding: AudioEncoding,
): Promise<Tensor[]> {
  const { compat } = encoding
  return scope(async () => {
    const most = HOP * windowOf(encoders.whisper.config)
    const least = Math.min(most, compat ? PUBLISHED_LEAST : LEAST_HEARD)
    const parts = clips.map((clip) => windowsOf(encoders, clip.size(0), encoding).map((part) => ({ clip, ...part })))
    const windows = parts.flat()
    // The published padding depends on the whole batch.
    const size = compat ? windows.length : GROUP
    const embeddings: Tensor[] = []
    for (let at = 0; at < windows.length; at += size) {
      const group = windows.slice(at, at + size)
      const waveforms = group.map(({ clip, from, to }) => {
        return fitSamples(clip.narrow(0, from, to - from), { leastSamples: least }).samples
      })
      const tokens = await encodeWindows(encoders, waveforms, compat)
      embeddings.push(...tokens.map((own, i) => taken(own, group[i] as ClipWindow, encoders.qformer)))
    }
    return parts.map(({ length }) => {
      const own = embeddings.splice(0, length)
      return own.length === 1 ? (own[0] as Tensor) : cat(own, 0)
    })
  })
}

/** Return the number of tokens that {@link encodeClips} computes for a number of samples. */
export function heardTokens(
  parts: Pick<AudioEncoderParts, 'whisper' | 'audio' | 'qformer'>,
  samples: number,
  encoding: AudioEncoding,
): number {
  const { qformer, whisper } = parts
  const { queryLength = 1 } = qformer.config
  const least = Math.min(HOP * windowOf(whisper.config), LEAST_HEARD)
  return windowsOf(parts, samples, encoding).reduce((sum, { from, to, first, end }) => {
    const frames = Math.ceil(Math.ceil(Math.max(to - from, least) / HOP) / 2)
    return sum + ((end ?? (qformer.windowCounts([frames])[0] as number)) - first) * queryLength
  }, 0)
}

function windowsOf(
  { whisper, audio, qformer }: Pick<AudioEncoderParts, 'whisper' | 'audio' | 'qformer'>,
  samples: number,
  encoding: AudioEncoding,
): ClipWindow[] {
  const most = HOP * windowOf(whisper.config)
  const { window = 0, stride = window } = qformer.config
  // Without BEATs, windows may begin at any frame of Whisper.
  const { inputPatchSize: patch = 16 } = audio?.beats.config ?? { inputPatchSize: FRAME / HOP }
  // If frames of the encoders differ in length, or if the Q-Former reads all frames at once, tokens have no position in time.
  const isOnGrid = window > 0 && (audio === null || patch * HOP === FRAME * Math.floor(BANDS / patch))
  if (encoding.compat || !isOnGrid) return equalWindows(samples, most)
  const overlap = Math.round(encoding.overlap * SPEECH_RATE)
  return overlappingWindows(samples, {
    ...{ most, overlap, window: FRAME * window, stride: FRAME * stride, patch: HOP * patch },
  })
}

/** Select the tokens of a window that belong to the clip. */
function taken(tokens: Tensor, { first, end }: ClipWindow, { config }: QFormer): Tensor {
  const { queryLength = 1 } = config
  const last = end === null ? tokens.size(0) : end * queryLength
  return tokens.narrow(0, first * queryLength, last - first * queryLength)
}

function encodeWindows(
  encoders: AudioEncoderParts,
  windows: Tensor[],
  compat: 'published' | undefined,
): Promise<Tensor[]> {
  return scope(async () => {
    const { qformer, projection } = encoders
    const { speech, audio } = await runEncoders(encoders, windows, compat)
    const dtype = projection.weight.dtype
    const norms = [encoders.lnSpeech, ...(encoders.audio ? [encoders.audio.lnAudio] : [])]
    const both = [speech, ...(audio ? [audio] : [])].map(({ states, lengths }, i) => {
      return normalized(norms[i] as LayerNorm, states.to({ dtype }), compat ? null : lengths)
    })
    const time = Math.max(...both.map((states) => states.size(1)))
    const padded = both.map((states) => filled(states, time))
    const lengths = speech.lengths.map((length, row) => Math.max(length, audio?.lengths[row] ?? 0))
    const read = await qformer.forward({
      encoderHiddenStates: cat(padded, 2),
      ...(compat ? { compat } : { lengths }),
    })
    const embeddings = projection.forward(read.lastHiddenState)
    return read.lengths.map((length, row) => embeddings.select(0, row).narrow(0, 0, length))
  })
}

/** Run the encoders: on all windows at once, or with a cache on one at a time, so that its entries do not depend on the batch. */
async function runEncoders(
  encoders: AudioEncoderParts,
  windows: Tensor[],
  compat: 'published' | undefined,
): Promise<AudioFrames> {
  const { whisper, audio, frames } = encoders
  const trains = [whisper, ...(audio ? [audio.beats] : [])].some(isTrained)
  // The published padding of BEATs depends on the whole batch.
  if (!frames || trains || compat) return runTogether(encoders, windows, compat)
  const alone: AudioFrames[] = []
  for (const window of windows) {
    const key = await clipKey(window)
    const known = frames.get(key)
    const states = known ?? (await scope(() => runTogether(encoders, [window], compat)))
    if (known === undefined) frames.keep(key, states)
    alone.push(states)
  }
  return {
    speech: together(alone.map(({ speech }) => speech)),
    audio: audio && together(alone.map((one) => one.audio as EncoderFrames)),
  }
}

async function runTogether(
  { whisper, audio }: AudioEncoderParts,
  windows: Tensor[],
  compat: 'published' | undefined,
): Promise<AudioFrames> {
  const { device } = whisper.parameters()[0] as Tensor
  const batch = padClips(windows, { device })
  return {
    speech: await encodeFrozen(whisper, () => whisperStates(whisper, batch, compat)),
    audio: audio && (await encodeFrozen(audio.beats, () => beatsStates(audio.beats, batch, compat))),
  }
}

/** Batch the frames of several windows. */
function together(rows: EncoderFrames[]): EncoderFrames {
  const time = Math.max(...rows.map(({ states }) => states.size(1)))
  return {
    states: cat(
      rows.map(({ states }) => filled(states, time)),
      0,
    ),
    lengths: rows.flatMap(({ lengths }) => lengths),
  }
}

const isTrained = (encoder: Module): boolean => encoder.parameters().some(({ requiresGrad }) => requiresGrad)

/** Run an encoder; a frozen one in evaluation mode and without gradients. */
function encodeFrozen(encoder: Module, encode: () => Promise<EncoderFrames>): Promise<EncoderFrames> {
  if (isTrained(encoder)) return encode()
  if (encoder.training) encoder.eval()
  return noGrad(encode)
}

async function whisperStates(
  whisper: WhisperEncoder,
  { inputValues, lengths }: PaddedClips,
  compat: 'published' | undefined,
): Promise<EncoderFrames> {
  const { device, dtype } = whisper.parameters()[0] as Tensor
  const most = HOP * windowOf(whisper.config)
  const steps = lengths.map((samples) => (compat ? most / HOP : Math.ceil(samples / HOP)))
  const longest = Math.max(...steps)
  // The last frames include the silence after the clip, as in a clip that is padded to 30 s.
  const ends = lengths.map((samples) => (compat ? most : Math.min(most, HOP * Math.ceil((samples + FFT) / HOP))))
  const samples = inputValues.to({ device })
  const spectra: Tensor[] = []
  // The STFT reflects the signal at its end, so only clips with the same end are computed together.
  for (const length of new Set(ends)) {
    const rows = [...ends.keys()].filter((row) => ends[row] === length)
    const clips = rows.length === ends.length ? samples : stack(rows.map((row) => samples.select(0, row)))
    const alike = await logMelSpectrogram(clips, { nMels: melBinsOf(whisper.config), length })
    for (const [i, row] of rows.entries()) {
      const own = alike.select(0, i).narrow(1, 0, steps[row] as number)
      spectra[row] = filled(own.t().unsqueeze(0), longest)
    }
  }
  const inputFeatures = cat(spectra, 0).transpose(1, 2).contiguous().to({ dtype })
  const isRagged = steps.some((count) => count < longest)
  // The mask stays on the CPU, where the encoder reads it.
  const attentionMask = isRagged ? lengthMask(steps, longest) : null
  const { lastHiddenState } = await whisper.forward({ inputFeatures, attentionMask })
  return { states: lastHiddenState, lengths: steps.map((count) => Math.ceil(count / 2)) }
}

async function beatsStates(
  beats: Beats,
  { inputValues, lengths }: PaddedClips,
  compat: 'published' | undefined,
): Promise<EncoderFrames> {
  const { dtype } = beats.parameters()[0] as Tensor
  const longest = inputValues.size(1)
  const isRagged = lengths.some((length) => length < longest)
  // The published mask counts samples, and its patches span the whole batch.
  if (compat) {
    const { lastHiddenState } = await beats.forward({ inputValues, ...(isRagged && { lengths, compat }) })
    return { states: lastHiddenState, lengths: lengths.map(() => lastHiddenState.size(1)) }
  }
  const fbank = await beats.fbank(inputValues)
  const patch = beats.config.inputPatchSize ?? 16
  const bands = Math.floor(fbank.size(2) / patch)
  const frames = lengths.map((length) => 1 + Math.floor((length - FFT) / HOP))
  const rows = fbank.to({ dtype })
  const { lastHiddenState } = await beats.forward({ fbank: rows, ...(isRagged && { lengths: frames }) })
  return { states: lastHiddenState, lengths: frames.map((count) => bands * Math.floor(count / patch)) }
}

/** Apply a layer norm, with zeros at padding, where its bias would remain otherwise. */
function normalized(norm: LayerNorm, states: Tensor, lengths: number[] | null): Tensor {
  return scope(() => {
    const time = states.size(1)
    if (!lengths || lengths.every((length) => length >= time)) return norm.forward(states)
    const padding = lengthMask(lengths, time, states.device).logicalNot().unsqueeze(2)
    return norm.forward(states.maskedFill(padding, 0)).maskedFill(padding, 0)
  })
}

/** Pad states with zeros to [rows, time, size]. */
function filled(states: Tensor, time: number): Tensor {
  const [rows, own, size] = states.shape as [number, number, number]
  if (own === time) return states
  const { device, dtype } = states
  return scope(() => cat([states, zeros([rows, time - own, size], { device, dtype })], 1))
}
