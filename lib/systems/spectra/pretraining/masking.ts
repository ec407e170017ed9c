import { argumentError, requireWhole } from '../../../base/check.js'
import { type ChangesOf, settings, unchecked } from '../../../base/settings.js'
import { Random } from '../../../data/random.js'

const TOKEN_SETTINGS = settings({
  /** Fraction of the tokens that are targets. */
  probability: { type: 'number', default: 0.15 },
  /** Random tokens are drawn from 0 … vocabSize - 1; the default is RoBERTa's. */
  vocabSize: { type: 'integer', min: 1, default: 50265 },
  /** Id of `<mask>`. */
  maskId: { type: 'integer', default: 50264 },
  /** Ids that are never targets. Default 0, 1, 2, 3 and `maskId`. */
  specialIds: { type: unchecked<readonly number[]>() },
})

/** @interface */
export type MaskTokensOptions = ChangesOf<typeof TOKEN_SETTINGS.table>

/** Label that a cross-entropy ignores. */
const IGNORED = -100

/**
 * Mask a text as BERT does (Devlin et al. 2019): each token that is not special is a target with `probability`. Of the targets, 80 % become
 * `<mask>`, 10 % a random token, and 10 % are kept.
 * @returns the masked ids, and the labels: the original ids of targets, else -100
 */
export function maskTokens(
  ids: readonly number[],
  random: Random,
  options: MaskTokensOptions = {},
): { inputIds: number[]; labels: number[] } {
  const where = 'maskTokens'
  if (!Array.isArray(ids)) throw argumentError(where, 'ids', 'an array of token ids', ids)
  if (!(random instanceof Random)) throw argumentError(where, 'random', 'a Random', random)
  const { probability, vocabSize, maskId, ...rest } = TOKEN_SETTINGS.read(where, options)
  const { specialIds = [0, 1, 2, 3, maskId] } = rest
  if (!Array.isArray(specialIds)) throw argumentError(where, 'specialIds', 'an array of token ids', specialIds)
  const inputIds = [...ids]
  const labels = ids.map((id, i) => {
    if (specialIds.includes(id) || random.float() >= probability) return IGNORED
    const draw = random.float()
    if (draw < 0.8) inputIds[i] = maskId
    else if (draw < 0.9) inputIds[i] = random.below(vocabSize)
    return id
  })
  return { inputIds, labels }
}

const FRAME_SETTINGS = settings({
  /** Probability that a span starts at a frame outside of a span. */
  probability: { type: 'number', default: 0.15 },
  /** Minimum span length. */
  minSpan: { type: 'integer', min: 1, default: 20 },
  /** Maximum span length. */
  maxSpan: { type: 'integer', default: 50 },
  /** After a span of m frames, the next one can start round(block · m) + 1 frames after its start. */
  block: { type: 'number', default: 1.2 },
})

/** @interface */
export type MaskFramesOptions = ChangesOf<typeof FRAME_SETTINGS.table>

/** Masking of a frame. */
export const SPECTRA_FRAME_FATES = { UNTOUCHED: 0, ZEROED: 1, REPLACED: 2, KEPT: 3 } as const

/**
 * Mask the frames of a clip as SPECTRA does, for masked acoustic modeling, in spans of one random length per clip. Of the frames in spans,
 * 80 % become zero, 10 % another frame of the clip, and 10 % are kept. A clip that is not longer than the span is not masked.
 * @returns `mask`, one of {@link SPECTRA_FRAME_FATES} per frame, and `source`, the frame that replaces it (else its own index)
 */
export function maskFrames(
  frames: number,
  random: Random,
  options: MaskFramesOptions = {},
): { mask: Int8Array; source: Int32Array } {
  const where = 'maskFrames'
  requireWhole(where, 'frames', frames)
  if (frames > 2 ** 31 - 1) throw argumentError(where, 'frames', 'an integer below 2^31', frames)
  if (!(random instanceof Random)) throw argumentError(where, 'random', 'a Random', random)
  const { probability, minSpan, maxSpan, block } = FRAME_SETTINGS.read(where, options)
  requireWhole(where, 'maxSpan', maxSpan, minSpan)
  const mask = new Int8Array(frames)
  const source = Int32Array.from({ length: frames }, (_, i) => i)
  const span = minSpan + random.below(maxSpan - minSpan + 1)
  const inSpan = new Uint8Array(frames)
  for (let i = 0; i < frames - span; i++) {
    if (random.float() >= probability) continue
    inSpan.fill(1, i, i + span)
    i += Math.round(block * span)
  }
  const replaced: number[] = []
  for (let i = 0; i < frames; i++) {
    if (!inSpan[i]) continue
    const draw = random.float()
    mask[i] =
      draw < 0.8 ? SPECTRA_FRAME_FATES.ZEROED : draw < 0.9 ? SPECTRA_FRAME_FATES.REPLACED : SPECTRA_FRAME_FATES.KEPT
    if (mask[i] === SPECTRA_FRAME_FATES.REPLACED) replaced.push(i)
  }
  // Replacements are the first frames of a random order, so no frame is used twice.
  const order = replaced.length > 0 ? random.shuffle(Uint32Array.from(source)) : undefined
  for (const [k, frame] of replaced.entries()) source[frame] = order?.[k] as number
  return { mask, source }
}
