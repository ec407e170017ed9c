import { misuse, requireNumber, requireOptions, requireWhole } from '../../../base/check.js'
import { Random } from '../../../data/random.js'

export interface MaskTokensOptions {
  /** Share of the tokens that are predicted. Default 0.15. */
  probability?: number
  /** Replacements are drawn from 0 … vocabSize - 1. Default 50265, RoBERTa's. */
  vocabSize?: number
  /** Default 50264. */
  maskId?: number
  /** Never predicted. Default 0, 1, 2, 3 and `maskId`. */
  specialIds?: readonly number[]
}

/** No label: what a cross-entropy ignores. */
const NONE = -100

/**
 * BERT's masking of one text (Devlin et al. 2019): each token that is not special is predicted with `probability`; of
 * those, 80 % become `<mask>`, 10 % any token, and 10 % stay.
 * @returns the corrupted ids, and the labels: what was there where it is predicted, else -100
 */
export function maskTokens(
  ids: readonly number[],
  random: Random,
  options: MaskTokensOptions = {},
): { inputIds: number[]; labels: number[] } {
  const where = 'maskTokens'
  if (!Array.isArray(ids)) throw misuse(where, 'ids', 'an array of token ids', ids)
  if (!(random instanceof Random)) throw misuse(where, 'random', 'a Random', random)
  requireOptions(where, options, ['probability', 'vocabSize', 'maskId', 'specialIds'])
  const { probability = 0.15, vocabSize = 50265, maskId = 50264 } = options
  requireNumber(where, 'probability', probability, { least: 0 })
  requireWhole(where, 'vocabSize', vocabSize, 1)
  requireWhole(where, 'maskId', maskId)
  const specialIds = options.specialIds ?? [0, 1, 2, 3, maskId]
  if (!Array.isArray(specialIds)) throw misuse(where, 'specialIds', 'an array of token ids', specialIds)
  const inputIds = [...ids]
  const labels = ids.map((id, i) => {
    if (specialIds.includes(id) || random.float() >= probability) return NONE
    const fate = random.float()
    if (fate < 0.8) inputIds[i] = maskId
    else if (fate < 0.9) inputIds[i] = random.below(vocabSize)
    return id
  })
  return { inputIds, labels }
}

export interface MaskFramesOptions {
  /** At each frame outside of a span, the chance that one starts. Default 0.15. */
  probability?: number
  /** Shortest and longest span. Default 20 and 50. */
  minSpan?: number
  maxSpan?: number
  /** After a span of m frames the next can start round(block · m) + 1 frames after its start. Default 1.2. */
  block?: number
}

/** What becomes of a frame. */
export const SPECTRA_FRAME_FATES = { UNTOUCHED: 0, ZEROED: 1, REPLACED: 2, KEPT: 3 } as const

/**
 * SPECTRA's masking of the frames of one clip, for masked acoustic modelling: spans of one length, drawn for the clip;
 * of the frames in them 80 % become zero, 10 % another frame of the clip, and 10 % stay. A clip that is not longer than the
 * span gets none.
 * @returns `mask`, one of {@link SPECTRA_FRAME_FATES} for each frame, and `source`, the frame that replaces it (itself elsewhere)
 */
export function maskFrames(
  frames: number,
  random: Random,
  options: MaskFramesOptions = {},
): { mask: Int8Array; source: Int32Array } {
  const where = 'maskFrames'
  requireWhole(where, 'frames', frames)
  if (frames > 2 ** 31 - 1) throw misuse(where, 'frames', 'below 2^31', frames)
  if (!(random instanceof Random)) throw misuse(where, 'random', 'a Random', random)
  requireOptions(where, options, ['probability', 'minSpan', 'maxSpan', 'block'])
  const { probability = 0.15, minSpan = 20, maxSpan = 50, block = 1.2 } = options
  requireNumber(where, 'probability', probability, { least: 0 })
  requireWhole(where, 'minSpan', minSpan, 1)
  requireWhole(where, 'maxSpan', maxSpan, minSpan)
  requireNumber(where, 'block', block, { least: 0 })
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
    const fate = random.float()
    mask[i] =
      fate < 0.8 ? SPECTRA_FRAME_FATES.ZEROED : fate < 0.9 ? SPECTRA_FRAME_FATES.REPLACED : SPECTRA_FRAME_FATES.KEPT
    if (mask[i] === SPECTRA_FRAME_FATES.REPLACED) replaced.push(i)
  }
  // The first of a random order of all frames: no frame stands in for two.
  const order = replaced.length > 0 ? random.shuffle(Uint32Array.from(source)) : undefined
  for (const [k, frame] of replaced.entries()) source[frame] = order?.[k] as number
  return { mask, source }
}
